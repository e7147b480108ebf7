// @ts-check
/**
 * One response's frames, from their bytes to the bitmap that is due.
 *
 * Knows nothing of the network, the canvas or clocks: given what is heard, it returns a frame.
 * Decoding is passed in, so the rules run under `node --test`.
 *
 * Bounds: at most `ahead` frames are decoded or being decoded beyond the head; at most
 * `maxWaiting` frames wait for it. When full, the oldest waiting frame is dropped and counted.
 */

import { isDue } from "./clock.js";

/**
 * @typedef {object} Closable
 * @property {() => void} close
 *
 * @typedef {object} Frame
 * @property {number} index
 * @property {number} ptsUs
 * @property {[number, number, number, number]} region
 * @property {Uint8Array | null} data  null once decoding began
 * @property {Closable | null} bitmap  what is drawn; null until decoded
 * @property {"waiting" | "decoding" | "ready" | "failed"} state
 */

export class FrameQueue {
  /**
   * @param {object} options
   * @param {(data: Uint8Array, frame: Frame) => Promise<Closable>} options.decode
   * @param {number} [options.ahead]
   * @param {number} [options.parallel]  decodes under way at once
   * @param {number} [options.maxWaiting]
   */
  constructor({ decode, ahead = 12, parallel = 3, maxWaiting = 1500 }) {
    this.decode = decode;
    this.ahead = ahead;
    this.parallel = parallel;
    this.maxWaiting = maxWaiting;
    /** @type {Frame[]} ordered by index, from the head on */
    this.frames = [];
    /** @type {Frame | null} */
    this.current = null;
    this.decoding = 0;
    this.nextIndex = 0;
    this.closed = false;
    this.counts = { received: 0, shown: 0, dropped: 0, failed: 0 };
  }

  /** @param {{index: number, ptsUs: number, region: Frame["region"], payload: Uint8Array}} message */
  push({ index, ptsUs, region, payload }) {
    if (this.closed) return;
    this.counts.received += 1;
    const isPast = this.current !== null && index <= this.current.index;
    const isDouble = this.frames.some((frame) => frame.index === index);
    if (isPast || isDouble) {
      this.counts.dropped += 1;
      return;
    }
    /** @type {Frame} */
    const frame = { index, ptsUs, region, data: payload, bitmap: null, state: "waiting" };
    let at = this.frames.length;
    while (at > 0 && this.frames[at - 1].index > index) at -= 1;
    this.frames.splice(at, 0, frame);
    if (this.frames.length > this.maxWaiting) this.#drop(this.frames.shift());
    this.#pump();
  }

  /**
   * The frame to show at a paint heard at `heardS`: the last decoded one that is due, or the one
   * shown before. Older frames are dropped; a frame dropped unseen is counted.
   * @param {number} heardS
   * @param {number} intervalMs  the refresh interval
   * @returns {{frame: Frame | null, isNew: boolean}}
   */
  take(heardS, intervalMs) {
    let due = -1;
    for (let i = 0; i < this.frames.length; i++) {
      if (!isDue(this.frames[i].ptsUs, heardS, intervalMs)) break;
      if (this.frames[i].state === "ready") due = i;
    }
    if (due < 0) {
      this.#skipHopeless(heardS, intervalMs);
      this.#pump();
      return { frame: this.current, isNew: false };
    }
    for (const frame of this.frames.splice(0, due)) this.#drop(frame);
    this.current?.bitmap?.close();
    this.current = this.frames.shift() ?? null;
    this.counts.shown += 1;
    this.#pump();
    return { frame: this.current, isNew: true };
  }

  /**
   * A frame not yet decoded whose successor is due as well will not be shown: it is dropped.
   * @param {number} heardS
   * @param {number} intervalMs
   */
  #skipHopeless(heardS, intervalMs) {
    while (this.frames.length > 1 && isDue(this.frames[1].ptsUs, heardS, intervalMs)) {
      this.#drop(this.frames.shift());
    }
  }

  /** How far frames reach, as a pts in ms. They come in order: what lacks between was dropped. */
  reachMs() {
    const last = this.frames.at(-1) ?? this.current;
    return last ? (last.ptsUs + this.#stepUs()) / 1000 : 0;
  }

  /** Are the first frames decoded, as many as are at once, so that each can be shown in time? */
  get primed() {
    const first = this.frames.slice(0, this.parallel);
    return first.length > 0 && first.every(({ state }) => state === "ready" || state === "failed");
  }

  /** Frames received that are still to be shown. */
  get waiting() {
    return this.frames.length;
  }

  close() {
    this.closed = true;
    for (const frame of this.frames) frame.bitmap?.close();
    this.current?.bitmap?.close();
    this.frames = [];
    this.current = null;
  }

  #stepUs() {
    const [a, b] = this.frames;
    if (a && b) return (b.ptsUs - a.ptsUs) / (b.index - a.index);
    const one = this.current ?? a;
    return one && one.index > 0 ? one.ptsUs / one.index : 40_000;
  }

  /** @param {Frame | undefined} frame */
  #drop(frame) {
    if (!frame) return;
    if (frame.state !== "failed") this.counts.dropped += 1;
    frame.bitmap?.close();
    frame.bitmap = null;
    frame.data = null;
    frame.state = "failed";
  }

  /** Decode in order, a bounded number ahead. */
  #pump() {
    for (const frame of this.frames.slice(0, this.ahead)) {
      if (this.decoding >= this.parallel) return;
      if (frame.state === "waiting") void this.#decode(frame);
    }
  }

  /** @param {Frame} frame */
  async #decode(frame) {
    const data = /** @type {Uint8Array} */ (frame.data);
    frame.data = null;
    frame.state = "decoding";
    this.decoding += 1;
    try {
      const bitmap = await this.decode(data, frame);
      if (this.closed || frame.state !== "decoding") bitmap.close();
      else {
        frame.bitmap = bitmap;
        frame.state = "ready";
      }
    } catch {
      // A broken picture costs its frame, not the response; one that was dropped meanwhile is counted.
      if (frame.state === "decoding") this.counts.failed += 1;
      frame.state = "failed";
    } finally {
      this.decoding -= 1;
      if (!this.closed) this.#pump();
    }
  }
}

/**
 * Which source frame to show: forward, then backward, for ever, without showing an end twice. The
 * server counts the same way.
 * @param {number} index
 * @param {number} count
 */
export function cycleIndex(index, count) {
  if (count < 2) return 0;
  const period = 2 * (count - 1);
  const offset = ((index % period) + period) % period;
  return offset < count ? offset : period - offset;
}

/**
 * Where in the idle cycle a frame of speech was drawn: speech may have another rate than the cycle.
 * @param {number} first  the position under the response's frame 0
 * @param {number} ptsUs  of the frame
 * @param {number} idleFps
 */
export function cyclePosition(first, ptsUs, idleFps) {
  return first + Math.floor((ptsUs * idleFps) / 1e6 + 1e-4); // pts are rounded to microseconds
}
