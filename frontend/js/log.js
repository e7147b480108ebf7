// @ts-check
/**
 * The captions on the picture, and the conversation below or beside it. Knows the DOM; what is said
 * when, it is told.
 */

import { cueAt } from "./captions.js";
import { element } from "./view.js";

/** A caption stays so long after its last word. */
const LINGER_MS = 6000;
/** What the user said is shown at its end, where it is long. */
const HEARD_LENGTH = 120;

export class Log {
  /**
   * @param {import("./transcript.js").Transcript} transcript
   * @param {() => string} name  the avatar's
   */
  constructor(transcript, name) {
    this.name = name;
    this.list = element("log");
    this.empty = element("log-empty");
    this.heard = element("heard");
    this.saidLine = element("said");
    this.spoken = document.createElement("span");
    this.coming = document.createElement("span");
    this.coming.className = "coming";
    this.saidLine.append(this.spoken, this.coming);
    this.lastSaidMs = 0;
    /** @type {Map<number, HTMLElement>} by entry */
    this.rows = new Map();
    transcript.onChange = (entry) => this.#show(entry);
    transcript.onForget = ({ number }) => this.#forget(number);
  }

  /**
   * The avatar's caption: the part of its text that is being said, the words to come paler.
   * @param {string} text
   * @param {number} at  how many characters were said
   * @param {number} nowMs
   */
  said(text, at, nowMs) {
    const [start, end] = cueAt(text, at);
    this.#set(this.spoken, text.slice(start, at));
    this.#set(this.coming, text.slice(Math.max(start, at), end).trimEnd());
    this.saidLine.hidden = end <= start;
    this.lastSaidMs = nowMs;
  }

  /** It was interrupted: the words to come will not be said. */
  cut() {
    this.#set(this.coming, "");
  }

  /** Nothing is said any more: the caption stays for a while. @param {number} nowMs */
  quiet(nowMs) {
    if (!this.saidLine.hidden && nowMs - this.lastSaidMs > LINGER_MS) this.clearSaid();
  }

  clearSaid() {
    this.saidLine.hidden = true;
    this.#set(this.spoken, "");
    this.#set(this.coming, "");
  }

  /** What the user says; its end, where it is long. @param {string} text */
  userSays(text) {
    const shown = text.length > HEARD_LENGTH ? `… ${text.slice(-HEARD_LENGTH).replace(/^\S*\s/, "")}` : text;
    this.#set(this.heard, shown);
    this.heard.hidden = !shown;
  }

  /**
   * A screen reader reads the conversation where it cannot be heard; else two would speak at once.
   * @param {boolean} isSilent
   */
  readAloud(isSilent) {
    const live = isSilent ? "polite" : "off";
    if (this.list.ariaLive !== live) this.list.ariaLive = live;
  }

  /** @param {import("./transcript.js").Entry} entry */
  #show({ number, who, text, state }) {
    if (!text) return this.#forget(number);
    const isAtEnd = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < 40;
    const row = this.rows.get(number) ?? this.#add(number, who);
    row.dataset.state = state;
    this.#set(/** @type {HTMLElement} */ (row.lastElementChild), text);
    this.empty.hidden = true;
    if (isAtEnd) this.list.scrollTop = this.list.scrollHeight;
  }

  /**
   * In the order of the entries: a turn's words may come after the answer's.
   * @param {number} number
   * @param {import("./transcript.js").Who} who
   */
  #add(number, who) {
    const row = document.createElement("li");
    row.className = who;
    row.dataset.number = String(number);
    const name = document.createElement("b");
    name.textContent = { user: "You", avatar: this.name(), note: "" }[who];
    const said = document.createElement("span");
    said.dir = "auto"; // Hebrew and Arabic read from the right
    row.append(name, said);
    const later = [...this.list.children].find(
      (other) => Number(/** @type {HTMLElement} */ (other).dataset.number) > number,
    );
    this.list.insertBefore(row, later ?? null);
    this.rows.set(number, row);
    return row;
  }

  /** @param {number} number */
  #forget(number) {
    this.rows.get(number)?.remove();
    this.rows.delete(number);
  }

  /**
   * @param {HTMLElement} line
   * @param {string} text
   */
  #set(line, text) {
    if (line.textContent !== text) line.textContent = text;
  }
}
