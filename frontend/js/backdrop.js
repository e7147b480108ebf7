// @ts-check
/**
 * What is behind the avatar: the choice, a picture of the user's own, and the canvas' backdrop. The
 * server sends transparent pictures for all but the avatar's own background; colours and pictures
 * are drawn by the page, behind the canvas. Knows the DOM; nothing of sessions.
 */

import { remember, remembered } from "./settings.js";
import { element, Problem } from "./view.js";

/** Longest side of the user's picture, as it is kept. */
const MAX_SIDE = 1280;
const STORED = "wsavatar.backdrop";
const COLOUR = /^#[0-9a-f]{6}$/;
/** How the picture begins, as it is kept. */
const DATA_URL = "data:image/jpeg;base64,";
/** Squares, as editors show what is transparent. */
const SQUARES = "repeating-conic-gradient(#c9ccce 0 25%, #f3f4f5 0 50%) 0 0 / 24px 24px";
/** After so long an opaque picture has come over the canvas. */
const COVERED_MS = 600;

/**
 * @typedef {object} Offer  what the server has
 * @property {string} name  its default background
 * @property {string} codec  of the frames before that
 * @property {string[]} codecs
 * @property {boolean} choose  another one may be chosen
 */

export class Backdrop {
  /**
   * @param {object} options
   * @param {HTMLCanvasElement} options.canvas
   * @param {() => void} options.use  the server's pictures are to be others: `query` and `look`
   */
  constructor({ canvas, use }) {
    this.canvas = canvas;
    this.use = use;
    /** @type {Offer | null} */
    this.offer = null;
    /** "own", "none", "picture" or a colour. */
    this.choice = "own";
    this.codec = "";
    this.picture = storedPicture();
    this.box = element("backdrops");
    this.problem = new Problem("backdrop-problem");
    this.file = /** @type {HTMLInputElement} */ (element("backdrop-file"));
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.uncovering = undefined;
    this.box.addEventListener("change", ({ target }) => {
      this.#choose(/** @type {HTMLInputElement} */ (target).value);
    });
    element("backdrop-choose").addEventListener("click", () => this.file.click());
    this.file.addEventListener("change", () => void this.#take(this.file.files?.[0]));
  }

  /** @param {Offer} offer */
  begin(offer) {
    this.offer = offer;
    this.codec = ["webp", "png"].find((name) => offer.codecs.includes(name)) ?? "";
    const isOffered = offer.choose && this.codec !== "";
    element("backdrop-field").hidden = !isOffered;
    const wish = remembered("background");
    const choices = [...this.box.querySelectorAll("input")].map(({ value }) => value);
    const isThere = choices.includes(wish) && (wish !== "picture" || this.picture !== "");
    this.choice = isOffered && isThere ? wish : "own";
    this.#mark(); // nothing is on the canvas yet
  }

  get isOwn() {
    return this.choice === "own";
  }

  /** Of the address of the idle pictures. */
  get query() {
    return this.isOwn ? "" : `?background=transparent&codec=${this.codec}`;
  }

  /**
   * What a session's frames are to be, to fit idle pictures of that `query`; undefined before the
   * server was asked.
   * @param {string} query
   */
  look(query) {
    if (!this.offer) return undefined;
    return query
      ? { background: "transparent", codec: this.codec }
      : { background: this.offer.name, codec: this.offer.codec };
  }

  /**
   * What a video is to be. Only for one the user's picture is sent to the server.
   * @returns {{background?: string, picture?: string, format?: "webm"}}
   */
  get ofVideos() {
    if (COLOUR.test(this.choice)) return { background: this.choice };
    if (this.choice === "picture") return { picture: this.picture.slice(DATA_URL.length) };
    return this.choice === "none" ? { background: "transparent", format: "webm" } : {};
  }

  /** The server's pictures are on their way. */
  loading() {
    this.#say("");
    if (!this.isOwn) this.problem.say("");
  }

  /** They are being made. @param {string} progress */
  waiting(progress) {
    const sentence = progress.charAt(0).toUpperCase() + progress.slice(1);
    this.#say(`${sentence}. Once for each avatar this takes a while.`);
  }

  /** They are there. */
  loaded() {
    this.#say("");
    this.#show();
  }

  /** The background is not available. @param {string} why */
  refuse(why) {
    this.choice = "own";
    remember("background", "own");
    this.#say("");
    this.#show();
    this.problem.say(why);
  }

  /** @param {string} choice */
  #choose(choice) {
    if (choice === "picture" && !this.picture) {
      this.#show(); // until there is one
      this.file.click();
      return;
    }
    const before = this.query;
    this.choice = choice;
    remember("background", choice);
    this.problem.say("");
    if (this.query === before) this.#show();
    else this.use();
  }

  /** A picture of the user's own. It stays in this browser. @param {File | undefined} file */
  async #take(file) {
    this.file.value = "";
    if (!file) return;
    try {
      this.picture = await scaled(file);
    } catch {
      return this.problem.say(`${file.name} is no picture that this browser can read. Choose another one.`);
    }
    try {
      localStorage.setItem(STORED, this.picture);
    } catch {
      // shown all the same, until the page is left
    }
    this.#choose("picture");
    this.#show();
  }

  #mark() {
    for (const input of this.box.querySelectorAll("input")) input.checked = input.value === this.choice;
    element("backdrop-choose").hidden = this.choice !== "picture";
  }

  #show() {
    this.#mark();
    const { style } = this.canvas;
    clearTimeout(this.uncovering);
    if (this.isOwn) {
      // Not before pictures that are opaque cover it: what is behind the canvas would flash up.
      this.uncovering = setTimeout(() => (style.background = ""), COVERED_MS);
    } else if (this.choice === "none") style.background = SQUARES;
    else if (this.choice === "picture") style.background = `center / cover url("${this.picture}")`;
    else style.background = this.choice;
  }

  /** @param {string} text */
  #say(text) {
    element("backdrop-text").textContent = text;
  }
}

function storedPicture() {
  try {
    const stored = localStorage.getItem(STORED) ?? "";
    return stored.startsWith(DATA_URL) ? stored : "";
  } catch {
    return "";
  }
}

/**
 * A picture as the data of a JPEG, upright, no larger than it is shown.
 * @param {Blob} file
 */
async function scaled(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.fillStyle = "white"; // behind what is transparent, which would be black
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas.toDataURL("image/jpeg", 0.85);
}
