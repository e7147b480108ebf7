// @ts-check
/**
 * A button that is held, by pointer or by the space bar. Knows the DOM, and not what it is for.
 */

/**
 * @param {HTMLButtonElement} button
 * @param {object} does
 * @param {() => boolean} does.wanted  the space bar is the button's
 * @param {() => void} does.press
 * @param {() => void} does.release
 */
export function onHold(button, { wanted, press, release }) {
  let held = false;
  const begin = () => {
    if (held || !wanted()) return;
    held = true;
    press();
  };
  const end = () => {
    if (held) release();
    held = false;
  };
  button.addEventListener("pointerdown", (event) => {
    button.setPointerCapture(event.pointerId); // let go anywhere
    begin();
  });
  for (const over of ["pointerup", "pointercancel"]) button.addEventListener(over, end);
  button.addEventListener("contextmenu", (event) => event.preventDefault()); // of a long touch
  document.addEventListener("keydown", (event) => {
    if (event.key !== " " || !wanted() || isTypedInto(event.target, button)) return;
    event.preventDefault(); // no scrolling
    if (!event.repeat) begin();
  });
  document.addEventListener("keyup", (event) => {
    if (event.key !== " ") return;
    if (held) event.preventDefault(); // no click of the button
    end();
  });
  window.addEventListener("blur", end);
  document.addEventListener("click", () => {
    if (wanted()) letGo();
  });
}

/** A control that was clicked keeps no space bar; one that was reached by keyboard does. */
export function letGo() {
  const active = document.activeElement;
  if (!(active instanceof HTMLElement) || active.matches(":focus-visible")) return;
  if (active.matches("a, button, input, summary")) active.blur();
}

/**
 * Does the space bar belong to what has the focus?
 * @param {EventTarget | null} target
 * @param {HTMLElement} button
 */
function isTypedInto(target, button) {
  if (!(target instanceof Element) || target === button) return false;
  return target.matches("a, button, input, select, summary, textarea");
}
