// @ts-check
/**
 * One response on its way through the page: its frames, its voice, and when it begins and ends.
 *
 * Audio starts once a pre-roll of sound and frames is there; missing frames hold it back only for
 * a moment, and once it plays it never waits for a frame.
 */

import { mayStart } from "./clock.js";
import { FrameQueue } from "./frames.js";

/**
 * Pre-roll. Live speech comes in chunks at the speed of speech, so a chunk and a little more has
 * to be in hand; other speech comes faster than it is played.
 */
const PREROLL_MS = { live: 650, prompt: 240 };
const TIMEOUT_MS = { live: 2500, prompt: 1500 };

export class Speech {
  /**
   * @param {object} options
   * @param {string} options.id  the response's
   * @param {number} options.generation  modulo 65536
   * @param {boolean} options.live
   * @param {import("./player.js").Player} options.player
   * @param {(jpeg: Uint8Array) => Promise<ImageBitmap>} options.decode
   */
  constructor({ id, generation, live, player, decode }) {
    this.id = id;
    this.generation = generation;
    this.live = live;
    this.player = player;
    this.frames = new FrameQueue({ decode });
    /** Cycle index of frame 0. */
    this.cycleIndex = 0;
    /** @type {number | null} the first frame that will not come */
    this.endFrame = null;
    /** @type {string | null} */
    this.itemId = null;
    /** @type {number | null} */
    this.firstAudioMs = null;
    this.started = false;
    this.audioEnded = false;
    /** The server has sent all of it. */
    this.complete = false;
    this.cut = false;
    this.transcript = "";
    player.begin();
  }

  /**
   * @param {Int16Array} samples
   * @param {number} nowMs
   */
  audio(samples, nowMs) {
    this.firstAudioMs ??= nowMs;
    this.player.push(samples);
  }

  endAudio() {
    this.audioEnded = true;
    this.player.end();
  }

  /**
   * Start to play, if it is time. Called at every animation frame, and on a timer where the page
   * is hidden.
   * @param {number} nowMs
   */
  tick(nowMs) {
    if (this.started || this.firstAudioMs === null) return;
    const kind = this.live ? "live" : "prompt";
    const waitedMs = nowMs - this.firstAudioMs;
    const videoEnded = this.endFrame !== null && this.frames.counts.received >= this.endFrame;
    const buffered = {
      audioMs: this.player.receivedS * 1000,
      videoMs: this.frames.primed ? this.frames.reachMs() : 0,
      audioEnded: this.audioEnded,
      videoEnded,
      waitedMs,
    };
    const limits = { prerollMs: PREROLL_MS[kind], timeoutMs: TIMEOUT_MS[kind] };
    if (!mayStart(buffered, limits)) return;
    this.started = true;
    this.player.play();
  }

  /**
   * @param {number} performanceMs
   * @param {number} [leadS]
   */
  heardAt(performanceMs, leadS) {
    return this.started ? this.player.heardAt(performanceMs, leadS) : null;
  }

  /**
   * Is it over: cut off, or all that was said has been heard?
   * @param {number | null} heardS
   */
  isOverAt(heardS) {
    if (this.cut) return true;
    if (!this.audioEnded) return false;
    if (!this.player.received) return true;
    return heardS !== null && heardS >= this.player.receivedS - 0.001;
  }

  /** Cut it off: silence within 10 ms, and the face goes to rest at its next paint. */
  interrupt() {
    this.cut = true;
    this.player.stop();
  }

  close() {
    this.player.stop();
    this.frames.close();
  }
}
