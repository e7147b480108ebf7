// @ts-check
/** A picture of the user, by the camera: a dialog with what it sees, and one shot. Knows the DOM. */

import { element } from "./view.js";

const WANTED = { width: { ideal: 1280 }, height: { ideal: 960 }, facingMode: "user" };
const QUALITY = 0.95;

/** The camera cannot be used; the message says what to do. */
export class CameraError extends Error {}

/** @type {Record<string, string>} by what the browser calls it */
const PROBLEMS = {
  NotAllowedError: "The camera is blocked. Allow it in the address bar’s site settings.",
  NotFoundError: "No camera was found. Connect one, or choose a photo.",
  NotReadableError: "The camera is in use by another program. Close it there and try again.",
};

/**
 * Ask for a shot.
 * @returns {Promise<File | null>}  null: the user wants none
 * @throws {CameraError}
 */
export async function shoot() {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new CameraError("The browser gives the camera to pages from https or localhost only.");
  }
  const dialog = /** @type {HTMLDialogElement} */ (element("camera-dialog"));
  const video = /** @type {HTMLVideoElement} */ (element("camera-picture"));
  /** @type {MediaStream | null} */
  let stream = null;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: WANTED, audio: false });
    video.srcObject = stream;
    await video.play();
    dialog.showModal();
    return (await answerOf(dialog)) === "take" ? await picture(video) : null;
  } catch (error) {
    const name = error instanceof Error ? error.name : "";
    throw new CameraError(PROBLEMS[name] ?? "The camera does not work. Choose a photo instead.");
  } finally {
    if (dialog.open) dialog.close();
    for (const track of stream?.getTracks() ?? []) track.stop();
    video.srcObject = null;
  }
}

/** What was pressed: a button's value; empty: it was closed otherwise. @param {HTMLDialogElement} dialog */
function answerOf(dialog) {
  dialog.returnValue = "";
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
  });
}

/** Not mirrored, as others see the user. @param {HTMLVideoElement} video */
async function picture(video) {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")).drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
  return new File([blob], "me.jpg", { type: "image/jpeg" });
}
