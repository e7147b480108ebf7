// @ts-check
/**
 * What the page remembers from one visit to the next: the choices of the panel, nothing else.
 *
 * What was stored may be of another version or of another server: it is a wish, used only where it
 * is one of the choices that there are.
 */

/** @typedef {"avatar" | "mode" | "voice" | "microphone" | "hold" | "background"} Setting */

const MAX_LENGTH = 512;

/**
 * @param {Setting} name
 * @returns {string}  empty: nothing
 */
export function remembered(name) {
  try {
    const value = localStorage.getItem(`wsavatar.${name}`) ?? "";
    return value.length > MAX_LENGTH ? "" : value;
  } catch {
    return ""; // storage may be forbidden; nothing depends on it
  }
}

/**
 * @param {Setting} name
 * @param {string} value
 */
export function remember(name, value) {
  try {
    localStorage.setItem(`wsavatar.${name}`, value);
  } catch {
    // see above
  }
}

/**
 * The first wish that is one of the choices; else the fallback.
 * @template {string} T
 * @param {readonly T[]} choices
 * @param {(string | null | undefined)[]} wishes  the strongest first
 * @param {T} fallback
 * @returns {T}
 */
export function chosen(choices, wishes, fallback) {
  for (const wish of wishes) {
    const found = choices.find((choice) => choice === wish);
    if (found !== undefined) return found;
  }
  return fallback;
}
