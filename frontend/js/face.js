// @ts-check
/**
 * The picture: at every animation frame, what the canvas shows.
 *
 * At rest it shows the idle cycle, by the wall clock. While a response is heard it shows the frame
 * that belongs to the sound. Every change between the two dissolves: a snapshot of the old picture
 * fades out over the new one. Knows nothing of the network; of sound only what `heardAt` returns.
 */

import { RefreshMeter, paintTime } from "./clock.js";
import { cyclePosition } from "./frames.js";

const DISSOLVE_MS = 160;
/** No new frame for this long: the face goes to rest rather than freeze. */
const STARVED_S = 0.4;

/**
 * @typedef {import("./speech.js").Speech} Speech
 * @typedef {import("./idle.js").IdleCycle} IdleCycle
 * @typedef {import("./frames.js").Frame} Frame
 * @typedef {import("./picture.js").Picture} Picture
 */

export class Face {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    this.before = document.createElement("canvas");
    this.refresh = new RefreshMeter();
    /** @type {IdleCycle | null} */
    this.idle = null;
    /** @type {Speech | null} */
    this.speech = null;
    /** @type {object | null} what the canvas shows: a Speech or an IdleCycle */
    this.source = null;
    /** Opacity of the snapshot over the picture, 0 to 1. */
    this.fade = 0;
    /** @type {ImageBitmap | Picture | null} what the canvas shows, and nothing else */
    this.shown = null;
    this.idleIndex = 0;
    this.idleSinceMs = 0;
    this.lastMs = 0;
    /** @type {(frame: Frame, errorMs: number, paintMs: number) => void} a frame was shown first */
    this.onFrame = () => {};
    /** @type {(speech: Speech) => void} a response was heard and seen to its end, or cut off */
    this.onRest = () => {};
  }

  /** @param {IdleCycle} idle */
  setIdle(idle) {
    this.#finish();
    this.idle?.close();
    this.idle = idle;
    this.restart(performance.now());
  }

  /** The same cycle before another background goes on where it is. @param {IdleCycle} idle */
  exchangeIdle(idle) {
    this.#finish();
    this.idle?.close();
    this.idle = idle;
  }

  /** The idle cycle begins anew: the server counts it from this moment. @param {number} nowMs */
  restart(nowMs) {
    this.#resumeIdle(0, nowMs);
  }

  /** @param {Speech} speech */
  play(speech) {
    this.#finish();
    this.speech = speech;
  }

  /** @param {number} timestampMs  what requestAnimationFrame gave */
  draw(timestampMs) {
    const intervalMs = this.refresh.tick(timestampMs);
    const elapsedMs = Math.min(100, Math.max(0, timestampMs - this.lastMs));
    this.lastMs = timestampMs;
    this.fade = Math.max(0, this.fade - elapsedMs / DISSOLVE_MS);
    if (!this.idle) return;
    const paintMs = paintTime(timestampMs, intervalMs);
    const isSpeaking = this.speech !== null && this.#speak(this.speech, paintMs, intervalMs);
    if (!isSpeaking) this.#rest(this.idle, paintMs);
    if (this.fade > 0) this.#draw(this.before, this.fade);
  }

  /**
   * Show the response's frame that is due.
   * @param {Speech} speech
   * @param {number} paintMs
   * @param {number} intervalMs
   * @returns {boolean}  whether there was one
   */
  #speak(speech, paintMs, intervalMs) {
    const heardS = speech.heardAt(paintMs, intervalMs / 1000);
    if (speech.isOverAt(heardS)) {
      this.#finish(paintMs);
      return false;
    }
    if (heardS === null) return false;
    if (speech.paused) return this.#leave(speech, paintMs);
    const { frame, isNew } = speech.frames.take(heardS, intervalMs);
    if (!frame) return false;
    if (heardS - frame.ptsUs / 1e6 > STARVED_S) return this.#leave(speech, paintMs);
    this.#changeTo(speech);
    const picture = /** @type {Picture} */ (frame.bitmap);
    this.#show(picture, () => picture.draw(this.context));
    if (isNew) this.onFrame(frame, frame.ptsUs / 1000 - heardS * 1000, paintMs);
    return true;
  }

  /**
   * Show the idle cycle. Until its frame is decoded, the picture stays as it is.
   * @param {IdleCycle} idle
   * @param {number} paintMs
   */
  #rest(idle, paintMs) {
    const shown = Math.floor(((paintMs - this.idleSinceMs) * idle.fps) / 1000);
    const bitmap = idle.bitmap(this.idleIndex + Math.max(0, shown));
    if (!bitmap) return;
    this.#changeTo(idle);
    this.#show(bitmap, () => {
      this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
      this.#draw(bitmap);
    });
  }

  /**
   * Draw what is not on the canvas yet. Most paints change nothing, and then cost nothing;
   * during a dissolve each one draws.
   * @param {ImageBitmap | Picture} picture
   * @param {() => void} draw
   */
  #show(picture, draw) {
    if (this.shown === picture) return;
    draw();
    this.shown = this.fade > 0 ? null : picture;
  }

  /** Begin a dissolve from what the canvas shows to another source. @param {object} source */
  #changeTo(source) {
    if (this.source === source) return;
    if (this.source !== null) {
      this.before.width = this.canvas.width;
      this.before.height = this.canvas.height;
      /** @type {CanvasRenderingContext2D} */ (this.before.getContext("2d")).drawImage(
        this.canvas,
        0,
        0,
      );
      this.fade = 1;
    }
    this.source = source;
    this.shown = null;
    this.#fitCanvas();
  }

  /**
   * The response is over.
   * @param {number} [nowMs]
   */
  #finish(nowMs = performance.now()) {
    const speech = this.speech;
    if (!speech) return;
    this.#leave(speech, nowMs);
    this.speech = null;
    speech.close();
    this.onRest(speech);
  }

  /**
   * @param {Speech} speech
   * @param {Frame} frame
   */
  #positionOf(speech, frame) {
    return cyclePosition(speech.cycleIndex, frame.ptsUs, this.idle?.fps ?? 25);
  }

  /**
   * The response's frames pause or end: the idle cycle goes on from the last one shown.
   * @param {Speech} speech
   * @param {number} nowMs
   * @returns {false}  no frame of the response is to be shown
   */
  #leave(speech, nowMs) {
    const shown = speech.frames.current;
    if (shown && this.source === speech) {
      this.#resumeIdle(this.#positionOf(speech, shown) + 1, nowMs);
    }
    return false;
  }

  /**
   * @param {number} index
   * @param {number} nowMs
   */
  #resumeIdle(index, nowMs) {
    this.idleIndex = index;
    this.idleSinceMs = nowMs;
  }

  /**
   * @param {CanvasImageSource} picture
   * @param {number} [alpha]
   */
  #draw(picture, alpha = 1) {
    this.context.globalAlpha = alpha;
    this.context.drawImage(picture, 0, 0, this.canvas.width, this.canvas.height);
    this.context.globalAlpha = 1;
  }

  #fitCanvas() {
    const { width, height } = /** @type {IdleCycle} */ (this.idle);
    if (this.canvas.width === width && this.canvas.height === height) return;
    this.canvas.width = width;
    this.canvas.height = height;
    this.context.imageSmoothingQuality = "high";
  }
}
