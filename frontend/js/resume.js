// @ts-check
/**
 * What makes a lost connection go on where it broke: how many of the server's messages have come,
 * which of ours may not have arrived, and what was said meanwhile. Pure.
 *
 * The server offers a token (`avatar.resumable`). The next connection brings it with the number of
 * messages received; the server says how many of ours it has (`avatar.resumed`) and sends what was
 * missed. What we sent after those is sent again.
 */

/** A message older than this has arrived, or the connection would have been given up. */
const KEPT_MS = 30_000;
/** Bytes of sent messages that are kept. Full: the oldest are forgotten. */
const KEPT_BYTES = 4 * 1024 * 1024;
/** Most of what the user says while there is no connection; then the oldest is forgotten. */
export const AWAY_S = 10;
/** Events while there is no connection: typed texts, interruptions. */
const AWAY_EVENTS = 64;

/** @typedef {string | ArrayBufferView<ArrayBuffer>} Message */

/** @param {Message} message */
const sizeOf = (message) => (typeof message === "string" ? message.length : message.byteLength);

export class Resumption {
  token = "";
  /** Messages of the server, and ours, in this session. */
  received = 0;
  sent = 0;
  bytes = 0;
  /** @type {{number: number, message: Message, atMs: number}[]} */
  kept = [];

  /** A new session. */
  reset() {
    this.token = "";
    this.received = this.sent = this.bytes = 0;
    this.kept = [];
  }

  /** @param {string} token */
  offer(token) {
    this.token = token;
  }

  /** @returns {Record<string, string>}  for the address of the next connection; empty: a new session */
  get query() {
    return this.token ? { resume: this.token, received: String(this.received) } : {};
  }

  /**
   * A message is given to the socket.
   * @param {Message} message
   * @param {number} nowMs
   */
  keep(message, nowMs) {
    this.sent += 1;
    if (!this.token) return; // this server offers nothing, or not yet: all of that arrived
    this.kept.push({ number: this.sent, message, atMs: nowMs });
    this.bytes += sizeOf(message);
    while (this.kept.length && (this.bytes > KEPT_BYTES || nowMs - this.kept[0].atMs > KEPT_MS)) {
      this.bytes -= sizeOf(/** @type {{message: Message}} */ (this.kept.shift()).message);
    }
  }

  /**
   * The connection is back.
   * @param {number} arrived  how many of our messages the server has
   * @returns {Message[]}  what is to be sent again; `keep` each of them as it is sent
   */
  again(arrived) {
    const missing = this.kept.filter(({ number }) => number > arrived);
    this.kept = [];
    this.bytes = 0;
    this.sent = arrived;
    return missing.map(({ message }) => message);
  }
}

/**
 * @typedef {{audio: Int16Array<ArrayBuffer>} | {text: string} | {event: object}} Said  the user's speech; a typed
 *   text; or an event about this session, which another one would not understand
 */

/** What the user says and does while there is no connection, in order. */
export class Away {
  /** @param {number} rate  Hz of the audio */
  constructor(rate) {
    this.rate = rate;
    this.samples = 0;
    /** @type {Said[]} */
    this.said = [];
  }

  /** @param {Int16Array<ArrayBuffer>} audio */
  hear(audio) {
    this.said.push({ audio });
    this.samples += audio.length;
    while (this.samples > AWAY_S * this.rate) this.#forget((said) => "audio" in said);
  }

  /** @param {{text: string} | {event: object}} said */
  note(said) {
    this.said.push(said);
    const events = this.said.filter((one) => !("audio" in one)).length;
    if (events > AWAY_EVENTS) this.#forget((one) => !("audio" in one));
  }

  /**
   * Everything, which is then forgotten here.
   * @param {boolean} isSameSession
   * @returns {Said[]}
   */
  take(isSameSession) {
    const said = this.said;
    this.said = [];
    this.samples = 0;
    return isSameSession ? said : said.filter((one) => !("event" in one));
  }

  /** The oldest of these. @param {(said: Said) => boolean} which */
  #forget(which) {
    const [gone] = this.said.splice(this.said.findIndex(which), 1);
    if ("audio" in gone) this.samples -= gone.audio.length;
  }
}
