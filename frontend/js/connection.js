// @ts-check
/**
 * The WebSocket: connect, reconnect with backoff, go on where it broke; JSON and binary in, events
 * and audio out. Knows nothing of what events mean, but for those about the connection itself.
 */

import { ProtocolError, unpack } from "./protocol.js";
import { Resumption } from "./resume.js";

const FIRST_DELAY_MS = 300;
const MAX_DELAY_MS = 8000;
const CHECK_MS = 500;
/** A socket that sends nothing for so long, although something waits, is dead: nobody says so. */
const STALLED_MS = 4000;
/** Close code: the session has ended, or too much was missed. */
const CANNOT_RESUME = 4004;

/**
 * How long to wait before attempt n: doubling, bounded, with jitter so that a server that comes
 * back is not met by all its clients at once.
 * @param {number} attempt  from 0
 * @param {number} random  in [0, 1)
 */
export function backoffMs(attempt, random) {
  const full = Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** attempt);
  return full * (0.75 + 0.5 * random);
}

/** @typedef {"connecting" | "open" | "lost" | "closed"} ConnectionState */

export class Connection {
  /**
   * @param {(query: Record<string, string>) => string} url  asked at each attempt
   * @param {() => number} [now]  performance ms
   */
  constructor(url, now = () => performance.now()) {
    this.url = url;
    this.now = now;
    /** @type {string | null} a bearer token, where the server wants one */
    this.token = null;
    /** @type {ConnectionState} */
    this.state = "closed";
    this.attempt = 0;
    this.resumption = new Resumption();
    /** @type {WebSocket | null} */
    this.socket = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    /** @type {ReturnType<typeof setInterval> | undefined} */
    this.checking = undefined;
    /** When the socket was last seen to send, and how much it had sent by then. */
    this.flowingMs = 0;
    this.flowedBytes = 0;
    this.givenBytes = 0;
    /** @type {(event: any) => void} */
    this.onEvent = () => {};
    /** @type {(message: import("./protocol.js").BinaryMessage) => void} */
    this.onBinary = () => {};
    /** @type {(state: ConnectionState, reason: string) => void} */
    this.onState = () => {};
    /** Goes on with the same session, as if nothing had happened. */
    this.onResumed = () => {};
    /** @type {(reason: string) => void} the session is gone: a new one begins */
    this.onAnew = () => {};
  }

  open() {
    this.close();
    this.attempt = 0;
    this.checking = setInterval(() => this.#check(), CHECK_MS);
    this.#connect();
  }

  close() {
    clearInterval(this.checking);
    this.resumption.reset();
    this.#drop(1000);
    if (this.state !== "closed") this.#change("closed", "");
  }

  /** The network is said to be back: try at once. */
  hurry() {
    if (this.state !== "lost") return;
    clearTimeout(this.timer);
    this.#connect();
  }

  /** @param {object} event */
  send(event) {
    return this.#send(JSON.stringify(event));
  }

  /** @param {Int16Array<ArrayBuffer>} samples  PCM16 in the agreed input format */
  sendAudio(samples) {
    return this.#send(littleEndian(samples));
  }

  /** Is the socket alive? Also where the page is hidden. */
  #check() {
    const socket = this.socket;
    if (this.state !== "open" || !socket) return;
    const flowed = this.givenBytes - socket.bufferedAmount;
    if (socket.bufferedAmount === 0 || flowed > this.flowedBytes) this.flowingMs = this.now();
    this.flowedBytes = flowed;
    if (this.now() - this.flowingMs < STALLED_MS) return;
    this.#drop(4001);
    this.#retry("it does not respond");
  }

  /** @param {import("./resume.js").Message} message */
  #send(message) {
    if (this.state !== "open" || !this.socket) return false;
    this.resumption.keep(message, this.now());
    this.socket.send(message);
    this.givenBytes += typeof message === "string" ? message.length : message.byteLength;
    return true;
  }

  #connect() {
    this.#change("connecting", "");
    const protocols = this.token ? ["realtime", `openai-insecure-api-key.${this.token}`] : [];
    const socket = new WebSocket(this.url(this.resumption.query), protocols);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => {
      if (this.socket !== socket) return;
      this.flowingMs = this.now();
      this.flowedBytes = this.givenBytes = 0;
      this.#change("open", "");
    };
    socket.onmessage = ({ data }) => {
      if (this.socket === socket) this.#receive(data);
    };
    socket.onclose = ({ code, reason }) => {
      if (this.socket !== socket) return;
      this.socket = null;
      if (code === CANNOT_RESUME && this.resumption.token) this.#anew(reason);
      else this.#retry(reason);
    };
  }

  /** @param {string | ArrayBuffer} data */
  #receive(data) {
    this.resumption.received += 1;
    try {
      if (typeof data === "string") this.#take(JSON.parse(data));
      else this.onBinary(unpack(data));
    } catch (error) {
      if (!(error instanceof ProtocolError || error instanceof SyntaxError)) throw error;
      console.warn("a message was left out:", error);
    }
  }

  /** @param {any} event */
  #take(event) {
    if (event.type === "session.created") this.attempt = 0;
    else if (event.type === "avatar.resumable") return this.resumption.offer(event.token);
    else if (event.type === "avatar.resumed") return this.#resumed(event.received);
    this.onEvent(event);
  }

  /** @param {number} arrived  of our messages */
  #resumed(arrived) {
    this.attempt = 0;
    for (const message of this.resumption.again(arrived)) this.#send(message);
    this.onResumed();
  }

  /** @param {string} reason */
  #anew(reason) {
    this.resumption.reset();
    this.onAnew(reason);
    if (this.state !== "closed") this.#connect(); // else nobody wants another session
  }

  /** @param {string} reason */
  #retry(reason) {
    if (!this.resumption.token) this.resumption.reset();
    this.timer = setTimeout(() => this.#connect(), backoffMs(this.attempt++, Math.random()));
    this.#change("lost", reason); // may close it
  }

  /** @param {number} code */
  #drop(code) {
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    socket?.close(code);
  }

  /**
   * @param {ConnectionState} state
   * @param {string} reason
   */
  #change(state, reason) {
    this.state = state;
    this.onState(state, reason);
  }
}

const NATIVE_IS_LITTLE = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** @param {Int16Array<ArrayBuffer>} samples */
function littleEndian(samples) {
  if (NATIVE_IS_LITTLE) return samples;
  const view = new DataView(new ArrayBuffer(samples.length * 2));
  samples.forEach((sample, i) => view.setInt16(2 * i, sample, true));
  return view;
}
