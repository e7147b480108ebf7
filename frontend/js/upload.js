// @ts-check
/**
 * One file on its way to becoming an avatar: sent in pieces, no faster than it arrives, then made.
 *
 * It sends events and is given those of the server (`receive`); it knows neither sockets nor the
 * DOM. What is on its way at once is bounded by time, not only by bytes, so that a conversation on
 * the same slow line does not wait behind it.
 */

import { newId, sentence } from "./protocol.js";

const PIECE_BYTES = 32 * 1024;
/** The line is filled for so long at most. */
const AHEAD_MS = 150;

/** What a stage is called, and where in the whole it begins and ends. */
const STAGES = {
  connect: ["Connecting", 0, 0],
  send: ["Sending", 0, 0.15],
  wait: ["Waiting for its turn", 0.15, 0.15],
  look: ["Looking for the face", 0.15, 0.3],
  follow: ["Following the face", 0.3, 0.4],
  write: ["Making the pictures", 0.4, 0.65],
  prepare: ["Preparing the face", 0.65, 1],
};

/**
 * @typedef {keyof typeof STAGES} Stage
 * @typedef {{id: string, name: string, removable?: boolean, urls?: {poster?: string}}} AvatarChoice
 * @typedef {object} NewAvatar
 * @property {AvatarChoice} avatar
 * @property {string[]} notes  what its user should know
 * @property {string} preview  a JPEG of what the model sees, in base64
 */

/** How much of a file may be on its way: what the line takes in `AHEAD_MS`, by what arrived. */
export class Pace {
  /** @param {number} windowBytes  the server's limit */
  constructor(windowBytes) {
    this.windowBytes = windowBytes;
    this.bytesPerMs = 0;
    this.lastMs = 0;
  }

  /**
   * @param {number} bytes
   * @param {number} nowMs
   */
  arrived(bytes, nowMs) {
    const elapsedMs = Math.max(1, nowMs - this.lastMs);
    const rate = bytes / elapsedMs;
    if (this.lastMs) this.bytesPerMs = this.bytesPerMs ? 0.7 * this.bytesPerMs + 0.3 * rate : rate;
    this.lastMs = nowMs;
  }

  /** Bytes that may be on their way; one piece always may. */
  get limitBytes() {
    return Math.min(this.windowBytes, Math.max(PIECE_BYTES, this.bytesPerMs * AHEAD_MS));
  }
}

/** The server, or the user, has ended it. The message is for people. */
export class UploadError extends Error {}

export class Upload {
  /**
   * @param {File} file
   * @param {(event: object) => void} send
   * @param {() => number} now  ms
   */
  constructor(file, send, now) {
    this.file = file;
    this.send = send;
    this.now = now;
    this.id = "";
    this.eventId = newId("create");
    this.sent = 0;
    this.arrived = 0;
    this.pieceBytes = PIECE_BYTES;
    this.pace = new Pace(0);
    this.sending = false;
    this.over = false;
    /** @type {(text: string, share: number) => void} how far it is */
    this.onProgress = () => {};
    /** @type {Promise<NewAvatar>} */
    this.done = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
  }

  start() {
    this.#tell("connect", 0);
    const { name, size } = this.file;
    this.send({ type: "avatar.create", event_id: this.eventId, file_name: name.slice(-255), size });
  }

  cancel() {
    if (this.over) return;
    if (this.id) this.send({ type: "avatar.create.cancel", upload_id: this.id });
    this.fail("");
  }

  /** @param {string} text  empty: the user wanted it so */
  fail(text) {
    if (this.over) return;
    this.over = true;
    /** @type {(error: Error) => void} */ (this.reject)(new UploadError(text));
  }

  /** @param {any} event  of the server */
  receive(event) {
    if (this.over) return;
    if (event.type === "error" && event.error.event_id === this.eventId) {
      return this.fail(sentence(event.error));
    }
    if (event.type === "avatar.create.ready" && !this.id) {
      this.id = event.upload_id;
      this.pieceBytes = Math.min(PIECE_BYTES, event.max_piece_bytes);
      this.pace = new Pace(event.window_bytes);
      this.pace.arrived(0, this.now());
      return void this.#pump();
    }
    if (event.upload_id !== this.id) return;
    if (event.type === "avatar.create.received") this.#received(event.received_bytes);
    else if (event.type === "avatar.create.progress") {
      this.#tell(event.stage, event.total ? event.done / event.total : 0);
    } else if (event.type === "avatar.create.failed") this.fail(sentence(event.error));
    else if (event.type === "avatar.created") {
      this.over = true;
      /** @type {(made: NewAvatar) => void} */ (this.resolve)(event);
    }
  }

  /** @param {number} bytes */
  #received(bytes) {
    this.pace.arrived(bytes - this.arrived, this.now());
    this.arrived = bytes;
    this.#tell("send", bytes / this.file.size);
    void this.#pump();
  }

  /** Send pieces while they may go. */
  async #pump() {
    if (this.sending) return;
    this.sending = true;
    try {
      while (!this.over && this.sent < this.file.size) {
        const size = Math.min(this.pieceBytes, this.file.size - this.sent);
        if (this.sent > this.arrived && this.sent + size - this.arrived > this.pace.limitBytes) return;
        const offset = this.sent;
        this.sent += size;
        const bytes = await this.file.slice(offset, offset + size).arrayBuffer();
        if (this.over) return;
        this.send({ type: "avatar.create.append", upload_id: this.id, offset, data: base64(bytes) });
        if (this.sent === this.file.size) this.send({ type: "avatar.create.commit", upload_id: this.id });
      }
    } catch {
      this.cancel();
      this.fail("The file could not be read. Choose it again.");
    } finally {
      this.sending = false;
    }
  }

  /**
   * @param {Stage} stage
   * @param {number} share  of the stage
   */
  #tell(stage, share) {
    const [text, from, to] = STAGES[stage] ?? STAGES.wait;
    this.onProgress(/** @type {string} */ (text), Number(from) + share * (Number(to) - Number(from)));
  }
}

/** @param {ArrayBuffer} buffer */
function base64(buffer) {
  const bytes = new Uint8Array(buffer);
  let text = "";
  for (let i = 0; i < bytes.length; i += 0x2000) {
    text += String.fromCharCode(...bytes.subarray(i, i + 0x2000));
  }
  return btoa(text);
}
