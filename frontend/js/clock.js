// @ts-check
/**
 * Arithmetic of time: what will be heard when this paint reaches the screen?
 *
 * Pure. Nothing here reads a clock or the DOM; the caller passes every reading in, so each rule is
 * tested with numbers. Three steps lead from a paint to a moment of the response:
 *
 *   paint (performance ms) --OutputClock--> context time heard --PlayedTimeline--> media time
 *
 * Frames change at their own pts, not at the midpoint between two: frame i is shown from the first
 * paint at which `heard >= pts_i - half a refresh`. That paint is the one nearest to pts_i, so at
 * 60 Hz no frame is off by more than 8.4 ms, where "the nearest frame" would allow 20 ms.
 */

/** Frames shown later than this after their sound count as late. */
export const LATE_MS = 10;

/** So many pairs in a row tell a jump of the output clock from a stray reading. */
const JUMP_PAIRS = 3;
/** Readings this close to each other do not jitter: what they say together is so. */
const AGREE_S = 0.0005;

/**
 * Context time heard at a performance time, from `AudioContext.getOutputTimestamp()` pairs.
 *
 * Each pair is right but for jitter of the audio thread; both clocks run at the same speed but for
 * parts per million. So the offset between them is smoothed. Where it truly jumps it is taken over
 * at once: far, by a new device or a suspended context; or by the 10 to 30 ms for which a busy
 * machine left the output without sound. Smoothed, those would put a second of frames out of step.
 */
export class OutputClock {
  /**
   * @param {object} [options]
   * @param {number} [options.smoothing]  share of a new pair in the estimate, (0, 1]
   * @param {number} [options.farS]  pairs this far off are a jump, whether or not they agree
   * @param {number} [options.nearS]  pairs less far off are smoothed in, also where they agree
   */
  constructor({ smoothing = 0.05, farS = 0.06, nearS = 0.004 } = {}) {
    this.smoothing = smoothing;
    this.farS = farS;
    this.nearS = nearS;
    /** @type {number | null} */
    this.offsetS = null;
    this.lastPerformanceMs = -1;
    /** @type {number[]} the last pairs' offsets */
    this.recent = [];
    this.pairs = 0;
  }

  /**
   * @param {{contextTime?: number, performanceTime?: number}} pair
   * @returns {boolean}  whether the pair told anything new
   */
  update({ contextTime = 0, performanceTime = 0 }) {
    // Before sound flows both are 0; between two audio callbacks the pair repeats.
    if (contextTime <= 0 || performanceTime <= 0) return false;
    if (performanceTime === this.lastPerformanceMs) return false;
    this.lastPerformanceMs = performanceTime;
    const offsetS = contextTime - performanceTime / 1000;
    this.recent = [...this.recent, offsetS].slice(-JUMP_PAIRS);
    if (this.offsetS === null || this.#hasJumped(this.offsetS)) {
      this.offsetS = offsetS;
      this.pairs = 1;
      return true;
    }
    const errorS = offsetS - this.offsetS;
    if (Math.abs(errorS) > this.farS) return false;
    // Average quickly at first, then settle.
    this.pairs += 1;
    this.offsetS += errorS * Math.max(this.smoothing, 1 / this.pairs);
    return true;
  }

  /**
   * The output stopped: what the pairs said no longer holds. The last pair is remembered, because
   * browsers repeat it until sound flows again.
   */
  reset() {
    this.offsetS = null;
    this.recent = [];
    this.pairs = 0;
  }

  /** Do the last pairs say together that the clock is elsewhere? @param {number} offsetS */
  #hasJumped(offsetS) {
    if (this.recent.length < JUMP_PAIRS) return false;
    const nearestS = Math.min(...this.recent.map((recent) => Math.abs(recent - offsetS)));
    const agree = Math.max(...this.recent) - Math.min(...this.recent) <= AGREE_S;
    return nearestS > (agree ? this.nearS : this.farS);
  }

  /**
   * @param {number} performanceMs
   * @returns {number | null}  seconds of context time heard then; null before any sound
   */
  contextTimeAt(performanceMs) {
    return this.offsetS === null ? null : this.offsetS + performanceMs / 1000;
  }
}

/**
 * Which moment of the response is output at which context time. The playback worklet reports an
 * anchor whenever the relation changes: it started, ran dry, went on, ended.
 */
export class PlayedTimeline {
  constructor() {
    /** @type {{contextTime: number, mediaTime: number, running: boolean}[]} */
    this.anchors = [];
  }

  /**
   * @param {number} contextTime  seconds
   * @param {number} mediaTime  seconds
   * @param {boolean} running  whether media time goes on from here, or stops
   */
  anchor(contextTime, mediaTime, running) {
    this.anchors.push({ contextTime, mediaTime, running });
    // Output latency is at most a few hundred ms; 64 changes cover far more than that.
    if (this.anchors.length > 64) this.anchors.shift();
  }

  clear() {
    this.anchors = [];
  }

  /**
   * @param {number | null} contextTime
   * @returns {number | null}  seconds of the response heard at that context time; null before it
   *   began. Negative values do not occur.
   */
  mediaTimeAt(contextTime) {
    if (contextTime === null) return null;
    for (let i = this.anchors.length - 1; i >= 0; i--) {
      const anchor = this.anchors[i];
      if (contextTime < anchor.contextTime) continue;
      if (!anchor.running) return anchor.mediaTime;
      return anchor.mediaTime + (contextTime - anchor.contextTime);
    }
    return null;
  }

  /**
   * The same, reaching one refresh ahead of the beginning: the first frame's nearest paint may be
   * half a refresh before the first sample is heard.
   * @param {number | null} contextTime
   * @param {number} leadS
   * @returns {number | null}
   */
  mediaTimeNear(contextTime, leadS) {
    const exact = this.mediaTimeAt(contextTime);
    if (exact !== null || contextTime === null || !this.anchors.length) return exact;
    const first = this.anchors[0];
    const untilS = first.contextTime - contextTime;
    return first.running && untilS <= leadS ? first.mediaTime - untilS : null;
  }
}

/**
 * The position in a response that nothing plays: it moves by the wall clock, and never past the
 * audio that was received.
 */
export class SilentTimeline {
  constructor() {
    /** @type {number | null} when position 0 was, in performance ms */
    this.startMs = null;
  }

  /**
   * @param {number} performanceMs
   * @param {number} [mediaTime]  seconds to begin at
   */
  play(performanceMs, mediaTime = 0) {
    this.startMs = performanceMs - mediaTime * 1000;
  }

  clear() {
    this.startMs = null;
  }

  /**
   * @param {number} performanceMs
   * @param {number} receivedS  where it must wait for more audio
   * @returns {number | null}  seconds; null while it is not playing
   */
  mediaTimeAt(performanceMs, receivedS) {
    const startMs = this.startMs;
    if (startMs === null) return null;
    const aheadMs = Math.max(0, performanceMs - startMs - receivedS * 1000);
    this.startMs = startMs + aheadMs;
    return Math.max(0, (performanceMs - this.startMs) / 1000);
  }
}

/** Time without progress that counts as a standstill. */
const STILL_MS = 500;
/** A pause between two readings counts as this much at most: the page itself may have slept. */
const STILL_STEP_MS = 200;

/**
 * Does a context's time move? Its state does not always tell: some browsers call a context
 * "running" whose device was taken away.
 */
export class MotionMeter {
  /** @type {number | null} */
  contextTime = null;
  lastMs = 0;
  stillMs = STILL_MS;

  /** Nothing is known: it does not move until it is seen to. */
  reset() {
    this.contextTime = null;
    this.stillMs = STILL_MS;
  }

  /**
   * @param {number} performanceMs
   * @param {number} contextTime
   * @returns {boolean}  whether it moves
   */
  update(performanceMs, contextTime) {
    if (this.contextTime !== null && contextTime > this.contextTime) this.stillMs = 0;
    else this.stillMs += Math.min(STILL_STEP_MS, Math.max(0, performanceMs - this.lastMs));
    this.contextTime = contextTime;
    this.lastMs = performanceMs;
    return this.stillMs < STILL_MS;
  }
}

/**
 * The display's refresh interval: the median of the last animation frames' distances. A busy page
 * skips refreshes, which makes multiples; the median of the shorter half leaves them out.
 */
export class RefreshMeter {
  constructor() {
    /** @type {number[]} */
    this.deltas = [];
    this.last = 0;
    this.intervalMs = 1000 / 60;
  }

  /**
   * @param {number} timestampMs  what requestAnimationFrame gave
   * @returns {number}  the interval in ms
   */
  tick(timestampMs) {
    const delta = timestampMs - this.last;
    this.last = timestampMs;
    if (delta > 3 && delta < 60) {
      this.deltas.push(delta);
      if (this.deltas.length > 60) this.deltas.shift();
      if (this.deltas.length >= 10) {
        const sorted = [...this.deltas].sort((a, b) => a - b);
        this.intervalMs = sorted[Math.floor(sorted.length / 4)];
      }
    }
    return this.intervalMs;
  }
}

/**
 * When a paint drawn now reaches the screen: one refresh after the animation frame began. Screens
 * add their own few ms, as loudspeakers do.
 * @param {number} timestampMs  of the animation frame
 * @param {number} intervalMs  the refresh interval
 * @returns {number}
 */
export function paintTime(timestampMs, intervalMs) {
  return timestampMs + intervalMs;
}

/**
 * Is frame `pts` due at a paint that is heard at `heardS`?
 * @param {number} ptsUs
 * @param {number} heardS
 * @param {number} intervalMs
 */
export function isDue(ptsUs, heardS, intervalMs) {
  return heardS * 1000 >= ptsUs / 1000 - intervalMs / 2;
}
