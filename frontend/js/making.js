// @ts-check
/**
 * Changes of the list of avatars, over a connection of their own: a conversation does not end them,
 * and they do not hold it up. It is opened for a change, and closed after the last one. Knows
 * nothing of the DOM.
 */

import { Connection } from "./connection.js";
import { newId, sentence } from "./protocol.js";
import { Upload, UploadError } from "./upload.js";

/** @typedef {import("./upload.js").AvatarChoice} AvatarChoice */

export class Making {
  /**
   * @param {(query: Record<string, string>) => string} url  the WebSocket's address
   * @param {() => string | null} token
   */
  constructor(url, token) {
    this.token = token;
    /** @type {Upload | null} */
    this.upload = null;
    /** @type {object[]} what waits for the connection */
    this.waiting = [];
    /** Something was sent over the connection. */
    this.given = false;
    /** @type {Map<string, (error: string) => void>} by event id: requests without an answer yet */
    this.asked = new Map();
    /** @type {(avatars: AvatarChoice[], fallback: string) => void} the list has changed */
    this.onList = () => {};
    /** @type {(reason: string) => void} the connection is lost; it is tried again */
    this.onLost = () => {};
    this.connection = new Connection(url);
    this.connection.onEvent = (event) => this.#receive(event);
    this.connection.onResumed = () => this.#flush();
    this.connection.onAnew = () => this.#giveUp("The connection was away for too long. Try again.");
    this.connection.onState = (state, reason) => {
      if (state !== "lost") return;
      if (!this.given || this.connection.resumption.token) return this.onLost(reason);
      // The next session would know nothing of what was sent.
      this.#giveUp(`The connection was lost${reason ? ` (${reason})` : ""}. Try again.`);
    };
  }

  /**
   * Make an avatar of a file; one at a time.
   * @param {File} file
   * @returns {Upload}
   */
  begin(file) {
    const upload = new Upload(file, (event) => this.#send(event), () => performance.now());
    this.upload = upload;
    const over = () => {
      if (this.upload === upload) this.upload = null;
      this.#rest();
    };
    upload.done.then(over, over);
    upload.start();
    return upload;
  }

  /**
   * Rename or delete an avatar.
   * @param {object} event
   * @returns {Promise<void>}
   * @throws {UploadError} the server's reason
   */
  change(event) {
    const id = newId("change");
    return new Promise((resolve, reject) => {
      this.asked.set(id, (error) => {
        this.asked.delete(id);
        if (error) reject(new UploadError(error));
        else resolve();
        this.#rest();
      });
      this.#send({ ...event, event_id: id });
    });
  }

  /** @param {object} event */
  #send(event) {
    if (this.connection.send(event)) {
      this.given = true;
      return;
    }
    this.waiting.push(event);
    if (this.connection.state !== "closed") return;
    this.given = false;
    this.connection.token = this.token();
    this.connection.open();
  }

  #flush() {
    for (const event of this.waiting.splice(0)) this.#send(event);
  }

  /** @param {any} event */
  #receive(event) {
    if (event.type === "session.created") return this.#flush();
    if (event.type === "avatar.list.updated") {
      this.onList(event.avatars, event.default ?? "");
    } else if (event.type === "avatar.renamed" || event.type === "avatar.deleted") {
      // Requests are answered in order.
      const [answer] = this.asked.values();
      answer?.("");
    } else if (event.type === "error") this.asked.get(event.error.event_id)?.(sentence(event.error));
    this.upload?.receive(event);
  }

  /** @param {string} text */
  #giveUp(text) {
    this.waiting = [];
    this.upload?.fail(text);
    for (const answer of [...this.asked.values()]) answer(text);
  }

  /** Nothing more to do: the connection is not needed. */
  #rest() {
    if (this.upload || this.asked.size) return;
    this.waiting = [];
    // A cancel is still to be sent.
    setTimeout(() => {
      if (!this.upload && !this.asked.size) this.connection.close();
    }, 0);
  }
}
