// @ts-check
/**
 * One video at a time that the server makes of a text, over a connection of its own: a conversation
 * does not end it, and it does not hold one up. Knows nothing of the DOM.
 */

import { Connection } from "./connection.js";
import { sentence } from "./protocol.js";

/**
 * @typedef {object} Order
 * @property {string} text
 * @property {string} [avatar]  an id; empty: the default one
 * @property {string} [voice]  a name; empty: the avatar's
 * @property {string} [background]  empty: the server's
 * @property {string} [picture]  a file of the user's own behind it, in base64
 * @property {"mp4" | "webm"} [format]
 *
 * @typedef {object} Saved  a finished video
 * @property {string} url  relative to the page's
 * @property {number} bytes
 * @property {number} seconds
 */

/** The message is for the user; empty: the user did not want it any more. */
export class VideoError extends Error {}

export class VideoMaker {
  /**
   * @param {(query: Record<string, string>) => string} url  the WebSocket's address
   * @param {() => string | null} token
   * @param {Connection} [connection]
   */
  constructor(url, token, connection = new Connection(url)) {
    this.token = token;
    this.connection = connection;
    /** @type {Order | null} what is to be sent once there is a connection */
    this.order = null;
    this.id = "";
    this.busy = false;
    /** @type {(framesDone: number, framesTotal: number | null) => void} */
    this.onProgress = () => {};
    /** @type {(saved: Saved) => void} */
    this.resolve = () => {};
    /** @type {(error: VideoError) => void} */
    this.reject = () => {};
    connection.onEvent = (event) => this.#receive(event);
    connection.onAnew = () => this.#fail("The connection was away for too long. Try again.");
    connection.onState = (state, reason) => {
      if (state !== "lost") return;
      if (this.order && reason) this.#fail(`Not connected: ${reason}`);
      // The next session would know nothing of an order that was sent.
      else if (!this.order && !connection.resumption.token) this.#fail("The connection was lost. Try again.");
    };
  }

  /**
   * @param {Order} order
   * @returns {Promise<Saved>}
   * @throws {VideoError}
   */
  make(order) {
    if (this.busy) throw new VideoError("A video is being made already.");
    this.busy = true;
    this.order = order;
    this.id = "";
    this.connection.token = this.token();
    this.connection.open();
    return new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
  }

  /** Make it no longer. */
  cancel() {
    if (this.id) this.connection.send({ type: "avatar.render.cancel", render_id: this.id });
    this.#fail("");
  }

  /** @param {any} event */
  #receive(event) {
    if (event.type === "session.created" && this.order) {
      const { text, avatar = "", voice = "", background = "", format = "mp4", picture } = this.order;
      this.order = null;
      const behind = picture ? { picture } : { background };
      this.connection.send({ type: "avatar.render", text, avatar, voice, format, ...behind });
    } else if (event.type === "error") this.#fail(sentence(event.error));
    else if (event.type === "avatar.render.created") this.id = event.render_id;
    else if (event.render_id !== this.id) return;
    else if (event.type === "avatar.render.progress") {
      this.onProgress(event.frames_done, event.frames_total);
    } else if (event.type === "avatar.render.failed") this.#fail(sentence(event.error));
    else if (event.type === "avatar.render.done") {
      const { url, bytes, duration_ms } = event;
      this.resolve({ url, bytes, seconds: duration_ms / 1000 });
      this.#rest();
    }
  }

  /** @param {string} text */
  #fail(text) {
    if (!this.busy) return;
    this.reject(new VideoError(text));
    this.#rest();
  }

  #rest() {
    this.busy = false;
    this.order = null;
    this.connection.close(); // what was sent before still goes out
  }
}
