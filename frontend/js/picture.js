// @ts-check
/**
 * What a frame of speech shows: its own picture, or the mouth on the idle picture it was drawn on.
 * Owns those bitmaps; knows neither the network nor the canvas.
 */

import { cyclePosition } from "./frames.js";

/**
 * @typedef {import("./frames.js").Frame} Frame
 * @typedef {import("./idle.js").IdleCycle} IdleCycle
 */

export class Picture {
  /**
   * @param {ImageBitmap} bitmap
   * @param {Frame["region"]} region  its place, in the avatar's pixels
   * @param {ImageBitmap | null} under  what it lies on; null: nothing is seen of that
   * @param {() => void} release  `under` is not needed any more
   * @param {boolean} [replaces]  `under` is not seen through its transparent pixels either
   */
  constructor(bitmap, region, under, release, replaces = false) {
    this.bitmap = bitmap;
    this.region = region;
    this.under = under;
    this.release = release;
    this.replaces = replaces;
  }

  /**
   * @param {Frame} frame
   * @param {Promise<ImageBitmap>} decoding  its bytes
   * @param {IdleCycle} idle
   * @param {number} firstIndex  the cycle index of the response's frame 0
   */
  static async of(frame, decoding, idle, firstIndex) {
    const { region, ptsUs } = frame;
    if (region[2] === idle.width && region[3] === idle.height) {
      return new Picture(await decoding, region, null, () => {});
    }
    const index = cyclePosition(firstIndex, ptsUs, idle.fps);
    const holding = idle.hold(index);
    try {
      // Transparent pixels replace transparent ones; on a picture that has none they would be holes.
      return new Picture(await decoding, region, await holding, () => idle.release(index), !idle.isOpaque);
    } catch (error) {
      idle.release(index);
      throw error;
    }
  }

  /** @param {CanvasRenderingContext2D} context */
  draw(context) {
    const { width, height } = context.canvas;
    context.clearRect(0, 0, width, height);
    if (this.under) {
      context.drawImage(this.under, 0, 0, width, height);
      if (this.replaces) context.clearRect(...this.region);
    }
    context.drawImage(this.bitmap, ...this.region);
  }

  close() {
    this.bitmap.close();
    this.release();
  }
}
