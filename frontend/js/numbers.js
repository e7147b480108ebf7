// @ts-check
/** The numbers on the panel: rates and percentiles over a moving window. Pure. */

/**
 * @param {number[]} values
 * @param {number} share  in [0, 1]
 * @returns {number}  the nearest-rank percentile; NaN of nothing
 */
export function percentile(values, share) {
  if (!values.length) return NaN;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))];
}

/** What the viewer got, lately. */
export class Numbers {
  constructor() {
    /** @type {number[]} |pts - heard| of the last frames shown, ms */
    this.errors = [];
    /** @type {number[]} when the last frames were shown, ms */
    this.shownAt = [];
    this.shown = 0;
    this.late = 0;
    this.dropped = 0;
    /** @type {number | null} */
    this.firstFrameMs = null;
  }

  /**
   * @param {number} nowMs
   * @param {number} errorMs  pts minus what is heard at its paint
   * @param {number} lateMs  the limit
   * @returns {boolean}  whether it was late
   */
  frame(nowMs, errorMs, lateMs) {
    this.shown += 1;
    const isLate = errorMs < -lateMs;
    if (isLate) this.late += 1;
    this.errors.push(Math.abs(errorMs));
    if (this.errors.length > 1500) this.errors.shift();
    this.shownAt.push(nowMs);
    if (this.shownAt.length > 120) this.shownAt.shift();
    return isLate;
  }

  /** @param {number} nowMs */
  fps(nowMs) {
    const recent = this.shownAt.filter((at) => nowMs - at <= 2000);
    if (recent.length < 2) return 0;
    return ((recent.length - 1) * 1000) / (recent[recent.length - 1] - recent[0]);
  }
}
