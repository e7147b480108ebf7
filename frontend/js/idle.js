// @ts-check
/**
 * An avatar at rest: its source frames, fetched once, decoded around the moment they are needed.
 *
 * `/avatars/<id>/idle.bin` is a sequence of length-prefixed frame messages. Pictures stay in memory
 * compressed; at most `WINDOW` bitmaps are decoded, and those that frames of speech lie on, because
 * a hundred decoded pictures are a hundred megabytes.
 */

import { cycleIndex } from "./frames.js";
import { MessageReader, sentence } from "./protocol.js";

const AHEAD = 6;
const WINDOW = 16;
/** A neighbour this close may stand in for a frame not decoded yet. */
const NEAR = 3;
const AGAIN_MS = 1000;
/** The server makes these pictures, or others, or is restarted behind its proxy. */
const LATER = [502, 503, 504];

/** The pictures are not available; the message is for the user. */
export class IdleError extends Error {}

export class IdleCycle {
  /**
   * @param {string} id
   * @param {(picture: Uint8Array) => Promise<ImageBitmap>} decode
   * @param {string} [query]  which background and format; empty: the server's
   */
  constructor(id, decode, query = "") {
    this.id = id;
    this.decode = decode;
    this.query = query;
    this.width = 0;
    this.height = 0;
    this.fps = 25;
    this.count = 0;
    /** @type {Uint8Array[]} */
    this.pictures = [];
    /** @type {Map<number, ImageBitmap | null>} by source frame; null: being decoded, or cannot be */
    this.bitmaps = new Map();
    /** @type {Map<number, Promise<void>>} what is being decoded, by source frame */
    this.decoding = new Map();
    /** @type {Map<number, number>} how many frames of speech lie on a source frame */
    this.held = new Map();
    this.abort = new AbortController();
    /** @type {Response | null} the pictures, on their way */
    this.response = null;
    /** @type {(progress: string) => void} the pictures are being made; how far they are */
    this.onWait = () => {};
  }

  get #url() {
    return `avatars/${encodeURIComponent(this.id)}/idle.bin${this.query}`;
  }

  /** Whether the server has the pictures now; else `load` waits until they are made. */
  async open() {
    const response = await this.#unlessLost(fetch(this.#url, { signal: this.abort.signal }));
    if (response?.ok) this.response = response;
    else if (response && !LATER.includes(response.status)) throw new IdleError(await reasonOf(response));
    return response?.status !== 503;
  }

  /**
   * Resolves once every frame is there. The first can be shown long before.
   * @param {(share: number) => void} [onProgress]
   */
  async load(onProgress = () => {}) {
    const file = `avatars/${encodeURIComponent(this.id)}/avatar.json`;
    const about = await this.#get(file).then((response) => response.json());
    this.width = about.width;
    this.height = about.height;
    this.fps = about.fps;
    const tell = () => onProgress(this.pictures.length / about.frame_count);
    while (!(await this.#read(tell))) await pause();
    this.count = this.pictures.length;
    if (!this.count) throw new IdleError(`${this.id} has no pictures.`);
  }

  /**
   * Read all pictures.
   * @param {() => void} tell  more are there
   * @returns {Promise<boolean>}  false: the connection broke
   */
  async #read(tell) {
    const reader = new MessageReader();
    const response = this.response ?? (await this.#get(this.#url));
    this.response = null;
    const stream = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
    this.pictures = [];
    for (;;) {
      const part = await this.#unlessLost(stream.read());
      if (!part) return false;
      if (part.done) return true;
      for (const message of reader.push(part.value)) this.pictures.push(message.payload);
      tell();
    }
  }

  /** The server's answer, once it has one. @param {string} url */
  async #get(url) {
    for (;;) {
      const response = await this.#unlessLost(fetch(url, { signal: this.abort.signal }));
      if (response?.ok) return response;
      if (response && !LATER.includes(response.status)) throw new IdleError(await reasonOf(response));
      if (response?.status === 503) this.onWait(await progressOf(response));
      await pause();
    }
  }

  /**
   * What the network gives; null where it is away, or the server.
   * @template T
   * @param {Promise<T>} asked
   * @returns {Promise<T | null>}
   */
  #unlessLost(asked) {
    return asked.catch((error) => {
      if (this.abort.signal.aborted) throw error;
      return null;
    });
  }

  /** Until every frame is there, the cycle is not known: the first frame is shown. */
  get ready() {
    return this.count > 0;
  }

  /** JPEGs have no transparent pixels. */
  get isOpaque() {
    const first = this.pictures[0];
    return first?.[0] === 0xff && first[1] === 0xd8;
  }

  /**
   * The picture of a cycle index, or a decoded neighbour; starts decoding what comes next.
   * @param {number} index  counts on without end
   * @returns {ImageBitmap | null}
   */
  bitmap(index) {
    const wanted = this.ready ? cycleIndex(index, this.count) : 0;
    for (let i = 0; i < (this.ready ? AHEAD : 1); i++) {
      this.#want(this.ready ? cycleIndex(index + i, this.count) : 0);
    }
    this.#forget(wanted);
    const exact = this.bitmaps.get(wanted);
    if (exact) return exact;
    return this.#nearest(wanted);
  }

  /**
   * The very picture of a cycle index, kept until `release`.
   * @param {number} index
   * @returns {Promise<ImageBitmap | null>}  null where it cannot be decoded
   */
  async hold(index) {
    const source = cycleIndex(index, this.count);
    this.held.set(source, (this.held.get(source) ?? 0) + 1);
    this.#want(source);
    await this.decoding.get(source);
    return this.bitmaps.get(source) ?? null;
  }

  /** @param {number} index  as it was held */
  release(index) {
    const source = cycleIndex(index, this.count);
    const count = (this.held.get(source) ?? 0) - 1;
    if (count > 0) this.held.set(source, count);
    else this.held.delete(source);
  }

  /** @param {number} source */
  #nearest(source) {
    let best = null;
    let distance = NEAR + 1;
    for (const [key, bitmap] of this.bitmaps) {
      if (bitmap && Math.abs(key - source) < distance) {
        best = bitmap;
        distance = Math.abs(key - source);
      }
    }
    return best;
  }

  /** @param {number} source */
  #want(source) {
    const picture = this.pictures[source];
    if (!picture || this.bitmaps.has(source)) return;
    this.bitmaps.set(source, null);
    const decoded = this.decode(picture).then(
      (bitmap) => {
        if (this.abort.signal.aborted) bitmap.close();
        else this.bitmaps.set(source, bitmap);
      },
      () => {}, // a frame that cannot be decoded stays null: its neighbour is shown
    );
    this.decoding.set(source, decoded.finally(() => this.decoding.delete(source)));
  }

  /** Close the bitmaps farthest from the head. @param {number} source */
  #forget(source) {
    const decoded = [...this.bitmaps].filter(([key, bitmap]) => bitmap && !this.held.has(key));
    if (decoded.length <= WINDOW) return;
    decoded.sort(([a], [b]) => Math.abs(b - source) - Math.abs(a - source));
    for (const [key, bitmap] of decoded.slice(0, decoded.length - WINDOW)) {
      bitmap?.close();
      this.bitmaps.delete(key);
    }
  }

  close() {
    this.abort.abort();
    for (const bitmap of this.bitmaps.values()) bitmap?.close();
    this.bitmaps.clear();
    this.pictures = [];
  }
}

const pause = () => new Promise((resolve) => setTimeout(resolve, AGAIN_MS));

/** How far what is being made is; empty where that is not said. @param {Response} response */
async function progressOf(response) {
  const body = await response.json().catch(() => ({}));
  return String(body.progress ?? "");
}

/** @param {Response} response */
async function reasonOf(response) {
  const isSentence = response.headers.get("content-type")?.startsWith("text/plain");
  const said = isSentence ? (await response.text()).trim() : "";
  return sentence({ message: said || `${response.url}: ${response.status}` });
}
