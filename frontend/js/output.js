// @ts-check
/**
 * The sound output: does it run, and which context time is heard when?
 *
 * Owns the AudioContext. The system may suspend it at any time (a phone call, a headset unplugged,
 * the autoplay policy), and on a machine without an output device it never starts. Both are states
 * here; in both the clock stops. Knows nothing of what is played.
 */

import { MotionMeter, OutputClock } from "./clock.js";

/** A context that does not run this long after it was asked to has no device. */
const START_MS = 3000;
/** Heard time is at most this far ahead of what was rendered: the clock may have stopped unsaid. */
const AHEAD_S = 0.1;

/**
 * @typedef {"off" | "starting" | "running" | "paused" | "missing"} OutputState
 *   off: not asked for. starting: asked for, not yet running. paused: it ran, and the system
 *   stopped it. missing: it does not start.
 */

export class Output {
  /**
   * @param {object} [options]
   * @param {() => AudioContext} [options.create]
   * @param {() => number} [options.now]  performance ms
   */
  constructor({
    create = () => new AudioContext({ latencyHint: "interactive" }),
    now = () => performance.now(),
  } = {}) {
    this.create = create;
    this.now = now;
    /** @type {AudioContext | null} */
    this.context = null;
    /** @type {OutputState} */
    this.state = "off";
    this.clock = new OutputClock();
    this.motion = new MotionMeter();
    this.startedMs = 0;
    this.broken = false;
    /** It ran since it was asked for. */
    this.hasRun = false;
    /** @type {number | null} context time that is heard while nothing moves */
    this.heldS = null;
    /** @type {(state: OutputState) => void} */
    this.onState = () => {};
  }

  /** Ask for sound. Call it in a user's gesture; it neither waits nor throws. */
  start() {
    if (this.state === "running" || this.state === "paused") return this.resume();
    this.startedMs = this.now();
    this.hasRun = false;
    this.motion.reset();
    try {
      this.context ??= this.#made();
    } catch (error) {
      console.warn("no AudioContext:", error); // the state becomes "missing"
    }
    this.#become("starting");
    this.resume();
    this.tick();
  }

  /** Whatever the context says: what would play on it cannot, or can again. @param {boolean} broken */
  fail(broken) {
    if (this.broken === broken) return;
    this.broken = broken;
    this.startedMs = this.now();
    this.hasRun = false;
    this.tick();
  }

  /** No more sound is wanted. */
  stop() {
    this.#become("off");
    void this.context?.suspend().catch(() => {});
  }

  /** Try to go on. Browsers may allow it only in a user's gesture. */
  resume() {
    const context = this.context;
    if (!context || this.broken || this.state === "off" || this.state === "running") return;
    // A gesture counts in its own call only. Where a context calls itself running although nothing
    // moves, only a new start helps.
    const stopped = context.state === "running" ? context.suspend() : null;
    const resumed = stopped ? stopped.then(() => context.resume()) : context.resume();
    void resumed.catch(() => {}); // the state tells whether it did
  }

  /** Read the clocks; at each animation frame, and on a timer where the page is hidden. */
  tick() {
    const context = this.context;
    if (this.state === "off") return;
    if (!context || this.broken) return this.#become("missing");
    const moves = this.motion.update(this.now(), context.currentTime);
    if (context.state === "running" && moves) {
      this.hasRun = true;
      this.#become("running");
      if (this.clock.update(context.getOutputTimestamp())) this.heldS = null;
    } else if (this.hasRun) this.#become("paused");
    else if (this.now() - this.startedMs >= START_MS) this.#become("missing");
    else this.#become("starting");
  }

  /**
   * Context time heard at a performance time, in seconds; null before any sound. While the output
   * is stopped, this is constant.
   * @param {number} performanceMs
   * @returns {number | null}
   */
  contextTimeAt(performanceMs) {
    if (this.heldS !== null) return this.heldS;
    const heardS = this.clock.contextTimeAt(performanceMs);
    return heardS === null ? null : Math.min(heardS, this.#renderedS + AHEAD_S);
  }

  get sampleRate() {
    return this.context?.sampleRate ?? 48_000;
  }

  get #renderedS() {
    return this.context?.currentTime ?? 0;
  }

  #made() {
    const context = this.create();
    context.addEventListener("statechange", () => this.tick());
    return context;
  }

  /** @param {OutputState} state */
  #become(state) {
    if (this.state === state) return;
    if (this.state === "running") this.#hold();
    this.state = state;
    this.onState(state);
  }

  /** The clock stops here, until sound flows again. */
  #hold() {
    const heardS = this.clock.contextTimeAt(this.now());
    this.heldS = heardS === null ? null : Math.min(heardS, this.#renderedS);
    this.clock.reset();
    this.motion.reset();
  }
}
