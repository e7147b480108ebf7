// @ts-check
/**
 * The times of a turn: from the end of the user's speech to the first sample heard. Pure.
 *
 * The server tells its part (`avatar.turn`); the page adds when the first sample was heard, measured
 * from the event that says that the turn is over. Any part may be absent.
 */

/**
 * @typedef {"decided" | "transcript" | "token" | "sound" | "frame" | "heard"} Step
 * @typedef {Partial<Record<Step, number>>} TurnTimes  ms from the end of speech
 */

/** Fields of `avatar.turn`, in the order of a turn. @type {[Step, string][]} */
const FIELDS = [
  ["decided", "turn_end_ms"],
  ["transcript", "transcript_ms"],
  ["token", "first_token_ms"],
  ["sound", "first_sound_ms"],
  ["frame", "first_frame_ms"],
];

export class Turns {
  constructor() {
    /** When the turn in progress was over, ms. @type {number | null} */
    this.overMs = null;
    /** The response that answers it. */
    this.responseId = "";
    /** @type {number | null} after it was over */
    this.heardAfterMs = null;
    /** @type {TurnTimes} */
    this.server = {};
  }

  /** The server decided that the user has finished, or the user said so. @param {number} nowMs */
  over(nowMs) {
    this.overMs = nowMs;
    this.responseId = "";
  }

  /** @param {string} responseId */
  answered(responseId) {
    if (this.overMs === null || this.responseId) return;
    this.responseId = responseId;
    this.heardAfterMs = null;
    this.server = {};
  }

  /**
   * The response's first sample is heard.
   * @param {string} responseId
   * @param {number} nowMs
   */
  heard(responseId, nowMs) {
    if (this.overMs === null || responseId !== this.responseId) return;
    this.heardAfterMs = nowMs - this.overMs;
    this.overMs = null;
  }

  /** @param {Record<string, unknown>} event  `avatar.turn` */
  told(event) {
    if (event.response_id !== this.responseId) return;
    for (const [step, field] of FIELDS) {
      const value = event[field];
      if (typeof value === "number" && Number.isFinite(value)) this.server[step] = value;
    }
  }

  /** Of the last turn that was answered. @returns {TurnTimes} */
  get times() {
    if (this.heardAfterMs === null) return this.server;
    // Without the server's part the page knows the time from the decision on only.
    return { ...this.server, heard: (this.server.decided ?? 0) + this.heardAfterMs };
  }
}
