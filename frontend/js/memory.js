// @ts-check
/** What the page remembers from one visit to the next: the avatar and the mode, nothing else. */

/** @param {string} key */
export function remembered(key) {
  try {
    return localStorage.getItem(`wsavatar.${key}`) ?? "";
  } catch {
    return ""; // storage may be forbidden; nothing depends on it
  }
}

/**
 * @param {string} key
 * @param {string} value
 */
export function remember(key, value) {
  try {
    localStorage.setItem(`wsavatar.${key}`, value);
  } catch {
    // see above
  }
}
