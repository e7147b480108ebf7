// @ts-check
/**
 * The WebSocket: connect, reconnect with backoff, JSON and binary in, events and audio out.
 *
 * Knows nothing of what events mean. Outgoing audio is bounded: while more than MAX_UNSENT bytes
 * wait in the socket, microphone blocks are dropped and counted.
 */

import { ProtocolError, unpack } from "./protocol.js";

const MAX_UNSENT = 512 * 1024;
const FIRST_DELAY_MS = 500;
const MAX_DELAY_MS = 8000;

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
  /** @param {() => string} url  asked at each attempt */
  constructor(url) {
    this.url = url;
    /** @type {string | null} a bearer token, where the server wants one */
    this.token = null;
    /** @type {ConnectionState} */
    this.state = "closed";
    this.attempt = 0;
    this.unsentBlocks = 0;
    /** @type {WebSocket | null} */
    this.socket = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    /** @type {(event: any) => void} */
    this.onEvent = () => {};
    /** @type {(message: import("./protocol.js").BinaryMessage) => void} */
    this.onBinary = () => {};
    /** @type {(state: ConnectionState, reason: string) => void} */
    this.onState = () => {};
  }

  open() {
    this.close();
    this.attempt = 0;
    this.#connect();
  }

  close() {
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    socket?.close(1000);
    if (this.state !== "closed") this.#change("closed", "");
  }

  /** @param {object} event */
  send(event) {
    if (this.state !== "open") return false;
    this.socket?.send(JSON.stringify(event));
    return true;
  }

  /** @param {Int16Array} samples  PCM16 in the agreed input format */
  sendAudio(samples) {
    if (this.state !== "open" || !this.socket) return;
    if (this.socket.bufferedAmount > MAX_UNSENT) this.unsentBlocks += 1;
    else this.socket.send(littleEndian(samples));
  }

  #connect() {
    this.#change("connecting", "");
    const protocols = this.token ? ["realtime", `openai-insecure-api-key.${this.token}`] : [];
    const socket = new WebSocket(this.url(), protocols);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => {
      if (this.socket === socket) this.#change("open", "");
    };
    socket.onmessage = ({ data }) => {
      if (this.socket === socket) this.#receive(data);
    };
    socket.onclose = ({ reason }) => {
      if (this.socket === socket) this.#retry(reason);
    };
  }

  /** @param {string | ArrayBuffer} data */
  #receive(data) {
    try {
      if (typeof data === "string") {
        const event = JSON.parse(data);
        if (event.type === "session.created") this.attempt = 0;
        this.onEvent(event);
      } else this.onBinary(unpack(data));
    } catch (error) {
      if (!(error instanceof ProtocolError || error instanceof SyntaxError)) throw error;
      console.warn("a message was left out:", error);
    }
  }

  /** @param {string} reason */
  #retry(reason) {
    this.socket = null;
    this.#change("lost", reason);
    this.timer = setTimeout(() => this.#connect(), backoffMs(this.attempt++, Math.random()));
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

/** @param {Int16Array} samples */
function littleEndian(samples) {
  if (NATIVE_IS_LITTLE) return samples;
  const view = new DataView(new ArrayBuffer(samples.length * 2));
  samples.forEach((sample, i) => view.setInt16(2 * i, sample, true));
  return view.buffer;
}
