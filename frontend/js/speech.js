// @ts-check
/**
 * One response on its way through the page: its frames, its voice, and when it begins and ends.
 *
 * Audio starts once a pre-roll of sound and frames is there; missing frames hold it back only for
 * a moment, and once it plays it never waits for a frame.
 */

import { SpokenText } from "./captions.js";
import { FrameQueue } from "./frames.js";
import { Picture } from "./picture.js";

export class Speech {
  /**
   * @param {object} options
   * @param {string} options.id  the response's
   * @param {number} options.generation  modulo 65536
   * @param {import("./pacing.js").Pacing} options.pacing  of responses of its kind
   * @param {import("./player.js").Player} options.player
   * @param {(picture: Uint8Array) => Promise<ImageBitmap>} options.decode
   * @param {import("./idle.js").IdleCycle} options.idle  of the avatar that speaks
   */
  constructor({ id, generation, pacing, player, decode, idle }) {
    this.id = id;
    this.generation = generation;
    /** The user's own speech, as it is said. */
    this.live = pacing.live;
    this.pacing = pacing;
    this.wait = pacing.begin();
    this.player = player;
    this.frames = new FrameQueue({
      decode: (data, frame) => Picture.of(frame, decode(data), idle, this.cycleIndex),
    });
    /** Cycle index of frame 0. */
    this.cycleIndex = 0;
    /** @type {number | null} the first frame that will not come */
    this.endFrame = null;
    /** @type {string | null} */
    this.itemId = null;
    /** @type {number | null} */
    this.firstAudioMs = null;
    /** Frames shown late. */
    this.late = 0;
    this.started = false;
    this.audioEnded = false;
    /** The server has sent all of it. */
    this.complete = false;
    this.cut = false;
    /** Its first sample was heard. */
    this.isHeard = false;
    /** It was heard to its end. */
    this.over = false;
    this.spoken = new SpokenText();
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

  /**
   * @param {import("./protocol.js").BinaryMessage} message
   * @param {number} nowMs
   */
  frame(message, nowMs) {
    // After a gap in the sound frames come later than they would have had to.
    if (!this.player.hasRunDry) {
      this.wait.frame(nowMs - (this.firstAudioMs ?? nowMs), message.ptsUs / 1000);
    }
    this.frames.push(message);
  }

  endAudio() {
    this.audioEnded = true;
    this.player.end();
    this.spoken.finish(this.player.receivedS);
  }

  /**
   * How many characters of its text were heard.
   * @param {number} performanceMs
   */
  saidAt(performanceMs) {
    if (this.over) return this.spoken.text.length;
    return this.spoken.saidAt(this.heardAt(performanceMs) ?? null);
  }

  /**
   * Start to play, if it is time. Called at every animation frame, and on a timer where the page
   * is hidden.
   * @param {number} nowMs
   */
  tick(nowMs) {
    if (this.started || this.firstAudioMs === null) return;
    const buffered = {
      audioMs: this.player.receivedS * 1000,
      videoMs: this.frames.primed ? this.frames.reachMs() : 0,
      audioEnded: this.audioEnded,
      videoEnded: this.endFrame !== null, // told behind the last frame
    };
    if (!this.wait.isOver(nowMs - this.firstAudioMs, buffered)) return;
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

  /** Nothing plays it: it is seen and not heard. */
  get silent() {
    return this.started && this.player.silent;
  }

  /**
   * Seconds of it that were heard, for the server: all of it once it is over, and never more.
   * @param {number} performanceMs
   */
  positionS(performanceMs) {
    const heardS = this.heardAt(performanceMs) ?? 0;
    return this.over ? this.player.receivedS : Math.min(heardS, this.player.receivedS);
  }

  /** The sound was stopped from outside: the face rests until it goes on. */
  get paused() {
    return this.started && this.player.paused;
  }

  /**
   * Is it over: cut off, or all that was said has been heard?
   * @param {number | null} heardS
   */
  isOverAt(heardS) {
    if (this.cut) return true;
    if (!this.audioEnded) return false;
    const { received, receivedS } = this.player;
    this.over = !received || (heardS !== null && heardS >= receivedS - 0.001);
    return this.over;
  }

  /** Cut it off: silence within 10 ms, and the face goes to rest at its next paint. */
  interrupt() {
    this.cut = true;
    this.player.stop();
  }

  close() {
    this.player.stop();
    this.frames.close();
    this.pacing.learn(this.wait);
  }
}
