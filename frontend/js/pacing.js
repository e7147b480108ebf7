// @ts-check
/**
 * When a response may start to play: as early as it can without frames that come too late. Pure.
 *
 * How long a frame would have had to wait is known once it has come: arrival minus its own time in
 * the response, from the first audio on. The largest of those waits is the pre-roll that the
 * response would have needed; the next one gets that, and a little for what decoding takes.
 */

import { percentile } from "./numbers.js";

/** Decoding, and the paint that a frame is for. */
const MARGIN_MS = 40;
/** Responses whose waits are remembered. */
const REMEMBERED = 4;
/** Fewer frames tell too little. */
const ENOUGH = 12;
/** Share of frames that should have been in time: a stall is no reason to wait. */
const IN_TIME = 0.98;
/** What is not live soon runs ahead: only its beginning tells. */
const BEGINNING_MS = 2000;
const MOST = 1500;
const LONGEST_MS = 2800;
/** Frames that are received before the first response of its kind starts, as time. */
const FIRST_REACH_MS = 240;
/**
 * Live speech comes in chunks at the speed of speech. The first response starts so long after its
 * first frame: then a first chunk may be that much shorter than those that follow.
 */
const FIRST_LIVE_MS = 300;
/** Missing frames hold the sound back at most this much longer. */
const PATIENCE_MS = 1300;

/** What responses of one kind needed. */
export class Pacing {
  /** @param {boolean} live  speech that is made while it is heard */
  constructor(live) {
    this.live = live;
    /** @type {number[]} ms */
    this.needed = [];
  }

  /** A response was played. @param {Wait} wait */
  learn(wait) {
    if (wait.waits.length < ENOUGH) return;
    this.needed.push(wait.neededMs);
    if (this.needed.length > REMEMBERED) this.needed.shift();
  }

  /** From the first audio to the start, ms; null: not known yet. */
  get waitMs() {
    if (!this.needed.length) return null;
    return Math.min(LONGEST_MS, Math.max(0, ...this.needed) + MARGIN_MS);
  }

  /** @returns {Wait} */
  begin() {
    return new Wait(this.live, this.waitMs);
  }
}

/**
 * @typedef {object} Buffered
 * @property {number} audioMs  audio received
 * @property {number} videoMs  how far decoded frames, and those behind them, reach
 * @property {boolean} audioEnded  no more audio will come
 * @property {boolean} videoEnded  no more frames will come
 */

/** One response until it starts, and what it needed. Times in ms from its first audio on. */
export class Wait {
  /**
   * @param {boolean} live
   * @param {number | null} plannedMs  null: nothing is known of such responses
   */
  constructor(live, plannedMs) {
    this.live = live;
    this.plannedMs = plannedMs;
    /** @type {number | null} when the first frame came */
    this.firstFrameMs = null;
    /** @type {number[]} */
    this.waits = [];
  }

  /**
   * @param {number} atMs  when it came
   * @param {number} ptsMs  when it is due
   */
  frame(atMs, ptsMs) {
    this.firstFrameMs ??= atMs;
    if (!this.live && ptsMs > BEGINNING_MS) return;
    this.waits.push(atMs - ptsMs);
    if (this.waits.length > MOST) this.waits.shift();
  }

  /** With so long a pre-roll nearly all of its frames would have been in time. */
  get neededMs() {
    return percentile(this.waits, IN_TIME);
  }

  /**
   * May it start?
   * @param {number} nowMs
   * @param {Buffered} buffered
   */
  isOver(nowMs, buffered) {
    if (buffered.audioMs <= 0) return false;
    const { waitMs } = this;
    if (nowMs >= (waitMs ?? FIRST_REACH_MS) + PATIENCE_MS) return true;
    if (waitMs === null) return hasReached(buffered);
    return nowMs >= waitMs && (buffered.videoMs > 0 || buffered.videoEnded);
  }

  /** As planned; the first live response: some time after its first frame; else null. */
  get waitMs() {
    if (this.plannedMs !== null || !this.live) return this.plannedMs;
    return this.firstFrameMs === null ? LONGEST_MS : this.firstFrameMs + FIRST_LIVE_MS;
  }
}

/**
 * Are so much sound and so many frames there that it can begin?
 * @param {Buffered} buffered
 */
function hasReached({ audioMs, videoMs, audioEnded, videoEnded }) {
  const audio = audioEnded || audioMs >= FIRST_REACH_MS;
  const reach = audioEnded ? Math.min(FIRST_REACH_MS, audioMs) : FIRST_REACH_MS;
  return audio && (videoEnded || videoMs >= reach);
}
