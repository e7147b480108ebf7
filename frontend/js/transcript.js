// @ts-check
/**
 * The conversation as text: who said what, in order. Pure.
 *
 * A turn of the user has its place from the moment its speech begins, although its words may come
 * later than the answer. What the avatar says is as long as what was heard of it. An answer that was
 * interrupted and goes on, without a turn of the user between, is one entry.
 */

const MAX_ENTRIES = 400;

/**
 * @typedef {"user" | "avatar" | "note"} Who
 * @typedef {object} Entry
 * @property {number} number  counts entries; unique
 * @property {Who} who
 * @property {string} id  the item's, or the response's
 * @property {string} text
 * @property {string} before  what an answer that goes on had said before
 * @property {"live" | "done" | "cut" | "failed"} state
 * @property {boolean} committed  of the user's: the server made it part of the conversation
 */

export class Transcript {
  constructor() {
    /** @type {Entry[]} */
    this.entries = [];
    this.count = 0;
    /** @type {(entry: Entry) => void} an entry is new or has changed */
    this.onChange = () => {};
    /** @type {(entry: Entry) => void} an entry is gone */
    this.onForget = () => {};
  }

  /** The user begins to speak: the place of what will be said. @param {string} id */
  userBegan(id) {
    if (!this.#find("user", id)) this.#add("user", id, "", "live");
  }

  /**
   * More of what the user says.
   * @param {string} id
   * @param {string} delta
   * @returns {string}  all of it so far
   */
  userDelta(id, delta) {
    this.userBegan(id);
    const entry = /** @type {Entry} */ (this.#find("user", id));
    if (entry.state === "live") this.#change(entry, entry.text + delta, "live");
    return entry.text;
  }

  /**
   * All that the user said or typed.
   * @param {string} id
   * @param {string} text
   */
  userSaid(id, text) {
    this.userCommitted(id);
    this.#change(/** @type {Entry} */ (this.#find("user", id)), text.trim(), "done");
  }

  /** What the user said is not known. @param {string} id */
  userFailed(id) {
    this.userBegan(id);
    this.#change(/** @type {Entry} */ (this.#find("user", id)), "", "failed");
  }

  /** The user's turn is over, and part of the conversation. @param {string} id */
  userCommitted(id) {
    this.userBegan(id);
    /** @type {Entry} */ (this.#find("user", id)).committed = true;
  }

  /** @param {string} id  the response's */
  avatarBegan(id) {
    // Speech that did not become a turn, or had no words, was a cough.
    const isCough = (/** @type {Entry} */ { who, committed, state, text }) =>
      who === "user" && (!committed || (state === "done" && !text));
    for (const cough of this.entries.filter(isCough)) this.#forget(cough);
    const last = this.entries[this.entries.length - 1];
    if (last?.who === "avatar" && last.state === "cut") {
      last.id = id;
      last.before = last.text;
      last.state = "live";
    } else this.#add("avatar", id, "", "live");
  }

  /**
   * What was heard of a response so far.
   * @param {string} id
   * @param {string} text
   */
  avatarSaid(id, text) {
    const entry = this.#find("avatar", id);
    if (!entry || entry.state !== "live") return;
    const joined = goingOn(entry.before, text);
    if (joined !== entry.text) this.#change(entry, joined, "live");
  }

  /**
   * @param {string} id
   * @param {"done" | "cut" | "failed"} state
   */
  avatarEnded(id, state) {
    const entry = this.#find("avatar", id);
    if (entry?.state === "live") this.#change(entry, entry.text.trim(), state);
  }

  /** A remark of the page's. @param {string} text */
  note(text) {
    this.#add("note", "", text, "done");
  }

  /**
   * @param {Who} who
   * @param {string} id
   */
  #find(who, id) {
    for (let i = this.entries.length - 1; i >= 0; i--) {
      const entry = this.entries[i];
      if (entry.who === who && entry.id === id) return entry;
    }
    return undefined;
  }

  /**
   * @param {Who} who
   * @param {string} id
   * @param {string} text
   * @param {Entry["state"]} state
   */
  #add(who, id, text, state) {
    const number = (this.count += 1);
    /** @type {Entry} */
    const entry = { number, who, id, text, before: "", state, committed: false };
    this.entries.push(entry);
    if (this.entries.length > MAX_ENTRIES) this.#forget(this.entries[0]);
    this.onChange(entry);
  }

  /** @param {Entry} entry */
  #forget(entry) {
    this.entries.splice(this.entries.indexOf(entry), 1);
    this.onForget(entry);
  }

  /**
   * @param {Entry} entry
   * @param {string} text
   * @param {Entry["state"]} state
   */
  #change(entry, text, state) {
    entry.text = text;
    entry.state = state;
    this.onChange(entry);
  }
}

/** An answer may go on a few words before where it stopped. */
const MOST_REPEATED = 8;

/**
 * @param {string} before  what was heard before it was interrupted
 * @param {string} text  what was heard since
 */
function goingOn(before, text) {
  if (!before || !text) return before || text;
  const said = before.split(/\s+/);
  const words = text.split(/\s+/);
  for (let count = Math.min(MOST_REPEATED, said.length); count > 0; count--) {
    const end = said.slice(-count);
    if (end.slice(0, words.length).join(" ") === words.slice(0, count).join(" ")) {
      return [...said, ...words.slice(count)].join(" ");
    }
  }
  return `${before} ${text}`;
}
