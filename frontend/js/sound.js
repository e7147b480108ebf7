// @ts-check
/**
 * Sound that does not start or was stopped: what the user is told, and the gestures after which it
 * is tried again. Knows the DOM; nothing of the output.
 */

const UNTIL = "Until then you see the avatar speak without its voice.";

/** Why there is no sound, and what to do. */
export function whatIsMissing() {
  if (!window.isSecureContext) {
    return "Browsers play its voice only on pages from https or localhost. Here you see it speak in silence.";
  }
  const policy = /** @type {any} */ (navigator).getAutoplayPolicy?.("audiocontext");
  if (policy === "disallowed") {
    return `The browser blocks sound on this page. Allow it in the address bar’s site settings, then tap anywhere. ${UNTIL}`;
  }
  return `Sound does not start. Connect a loudspeaker or headphones, then tap anywhere. ${UNTIL}`;
}

/** When a browser may let the page start sound again. @param {() => void} tryAgain */
export function atEachGesture(tryAgain) {
  // Each browser takes others of these.
  for (const gesture of ["pointerup", "touchend", "click", "keydown"]) {
    window.addEventListener(gesture, tryAgain, { capture: true, passive: true });
  }
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) tryAgain();
  });
}
