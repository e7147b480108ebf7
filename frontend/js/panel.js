// @ts-check
/** The figures on the panel, and the times of the last turn. Knows the DOM. */

import { LATE_MS } from "./clock.js";
import { Numbers, percentile } from "./numbers.js";
import { element } from "./view.js";

/** @type {import("./turns.js").Step[]} */
const STEPS = ["decided", "transcript", "token", "sound", "frame", "heard"];

/**
 * @param {number | null | undefined} value
 * @param {string} unit
 * @param {number} [digits]
 */
function written(value, unit, digits = 0) {
  const isKnown = value !== null && value !== undefined && Number.isFinite(value);
  return isKnown ? `${value.toFixed(digits)} ${unit}` : "–";
}

export class Panel {
  constructor() {
    this.numbers = new Numbers();
  }

  /**
   * A frame was shown first.
   * @param {number} errorMs
   * @param {number} paintMs
   * @param {number} askedMs
   * @returns {boolean}  whether it was late
   */
  frame(errorMs, paintMs, askedMs) {
    this.numbers.firstFrameMs ??= paintMs - askedMs;
    return this.numbers.frame(paintMs, errorMs, LATE_MS);
  }

  /** A response begins. */
  begin() {
    this.numbers.firstFrameMs = null;
  }

  /** It is over. @param {import("./speech.js").Speech} speech */
  end({ frames: { counts } }) {
    this.numbers.dropped += counts.dropped + counts.failed;
  }

  /**
   * @param {import("./speech.js").Speech | null} speech
   * @param {import("./player.js").Player} player
   * @param {number} nowMs
   */
  show(speech, player, nowMs) {
    const { numbers } = this;
    const counts = speech?.frames.counts;
    const dropped = numbers.dropped + (counts ? counts.dropped + counts.failed : 0);
    write("n", {
      first: written(numbers.firstFrameMs, "ms"),
      fps: speech?.started ? written(numbers.fps(nowMs), "fps", 1) : "–",
      p50: written(percentile(numbers.errors, 0.5), "ms", 1),
      p99: written(percentile(numbers.errors, 0.99), "ms", 1),
      shown: String(numbers.shown),
      late: String(numbers.late),
      dropped: String(dropped),
      audio: speech ? written(player.bufferedS * 1000, "ms") : "–",
      video: speech ? String(speech.frames.waiting) : "–",
    });
  }

  /** The times of the last turn. @param {import("./turns.js").TurnTimes} times */
  turn(times) {
    for (const step of STEPS) {
      const row = /** @type {HTMLElement} */ (element(`t-${step}`).parentElement);
      row.hidden = times[step] === undefined;
      write("t", { [step]: written(times[step], "ms") });
    }
    element("turn").hidden = !Object.keys(times).length;
  }
}

/**
 * @param {string} prefix
 * @param {Record<string, string>} texts  by the end of their elements' ids
 */
function write(prefix, texts) {
  for (const [name, text] of Object.entries(texts)) {
    const cell = element(`${prefix}-${name}`);
    if (cell.textContent !== text) cell.textContent = text;
  }
}
