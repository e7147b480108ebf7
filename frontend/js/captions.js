// @ts-check
/**
 * Captions: which words of a response have been heard, and how a long text is shown in parts.
 *
 * Pure. Where the server tells when words are said (`response.audio_timestamp.delta`), that is
 * used. Elsewhere the times are estimated: a piece of the transcript is sent before its audio, so it
 * begins where the audio received so far ends.
 */

/** Characters per second of speech whose end is not known yet. */
const USUAL_RATE = 15;
/** How many words of the transcript a timed word may skip: the voice may say some otherwise. */
const REACH_WORDS = 8;
/** Longest part of a text that is shown at once. */
export const CUE_LENGTH = 96;
/** A sentence or clause that ends before this share of a part does not end the part. */
const EARLIEST_END = 0.4;

const segmenter = new Intl.Segmenter(undefined, { granularity: "word" });

/**
 * @typedef {object} TextWord
 * @property {string} key  for comparing
 * @property {number} start  in characters of the text
 * @property {number} end  exclusive
 *
 * @typedef {object} TimedWord
 * @property {string} key
 * @property {number} startS  on the response's timeline
 * @property {number} end  in characters of the text; -1: its place was not found yet
 */

/**
 * The words of a text, without what stands between them.
 * @param {string} text
 * @param {number} [from]  in characters
 * @returns {TextWord[]}
 */
export function wordsOf(text, from = 0) {
  const words = [];
  for (const { segment, index, isWordLike } of segmenter.segment(text.slice(from))) {
    if (!isWordLike) continue;
    const start = from + index;
    words.push({ key: segment.toLocaleLowerCase(), start, end: start + segment.length });
  }
  return words;
}

/** What a response says, and how much of it was said at a moment. */
export class SpokenText {
  constructor() {
    this.text = "";
    /** @type {TextWord[]} */
    this.words = [];
    /** @type {TimedWord[]} */
    this.timed = [];
    /** So many of `timed` have their final place. */
    this.placed = 0;
    /** The next word of the text that a timed word may be. */
    this.nextWord = 0;
    /** @type {{at: number, seconds: number}[]} where in the text which moment is; both grow */
    this.marks = [];
    /** @type {number | null} */
    this.endS = null;
  }

  /**
   * More of the transcript: the words of the audio that follows.
   * @param {string} delta
   * @param {number} receivedS  seconds of audio received before it
   */
  add(delta, receivedS) {
    const last = this.marks[this.marks.length - 1];
    if (!last || receivedS > last.seconds) {
      this.marks.push({ at: this.text.length, seconds: receivedS });
    }
    // The last word may go on in this delta.
    const unsure = this.words.pop();
    const from = unsure ? unsure.start : 0;
    this.text += delta;
    this.words.push(...wordsOf(this.text, from));
    this.#place();
  }

  /**
   * When words are said.
   * @param {string} text
   * @param {number} startS
   * @param {number} durationS
   */
  time(text, startS, durationS) {
    const parts = wordsOf(text);
    for (const { key, start } of parts) {
      const share = start / Math.max(1, text.length);
      this.timed.push({ key, startS: startS + share * durationS, end: -1 });
    }
    this.#place();
  }

  /** No more audio will come. @param {number} receivedS */
  finish(receivedS) {
    this.endS = receivedS;
  }

  /**
   * How many characters have been said, to the end of the word that is being said.
   * @param {number | null} heardS  null: nothing yet
   * @returns {number}
   */
  saidAt(heardS) {
    if (heardS === null || !this.text) return 0;
    if (this.endS !== null && heardS >= this.endS - 0.02) return this.text.length;
    if (this.timed.length) return this.#timedAt(heardS);
    return this.#wordEnd(this.#estimateAt(heardS));
  }

  /** Find the places of timed words in the text; words that the text lacks are passed over. */
  #place() {
    for (let i = this.placed; i < this.timed.length; i++) {
      const limit = Math.min(this.words.length, this.nextWord + REACH_WORDS);
      for (let k = this.nextWord; k < limit; k++) {
        if (this.words[k].key !== this.timed[i].key) continue;
        this.timed[i].end = this.words[k].end;
        this.nextWord = k + 1;
        this.placed = i + 1;
        break;
      }
    }
  }

  /** @param {number} heardS */
  #timedAt(heardS) {
    let said = 0;
    for (const { startS, end } of this.timed) {
      if (startS > heardS) break;
      said = Math.max(said, end);
    }
    return said;
  }

  /** @param {number} heardS */
  #estimateAt(heardS) {
    const next = this.marks.findIndex(({ seconds }) => seconds > heardS);
    const last = this.marks.length - 1;
    const from = this.marks[next < 0 ? last : next - 1];
    if (!from) return 0;
    const length = (next < 0 ? this.text.length : this.marks[next].at) - from.at;
    const untilS = next < 0 ? (this.endS ?? from.seconds + length / this.#rate()) : this.marks[next].seconds;
    const share = (heardS - from.seconds) / Math.max(0.001, untilS - from.seconds);
    return from.at + Math.min(1, Math.max(0, share)) * length;
  }

  /** Characters per second so far. */
  #rate() {
    const last = this.marks[this.marks.length - 1];
    return last.seconds > 1 ? last.at / last.seconds : USUAL_RATE;
  }

  /** The end of the word at a place of the text. @param {number} at */
  #wordEnd(at) {
    let end = 0;
    for (const word of this.words) {
      if (word.start > at) break;
      end = word.end;
    }
    return end;
  }
}

/**
 * The part of a text that is shown while a place of it is said: whole sentences where they fit. How
 * the parts are cut does not depend on what follows them, so a part that is shown stays.
 * @param {string} text
 * @param {number} at  in characters
 * @param {number} [limit]
 * @returns {[number, number]}  start and end, in characters
 */
export function cueAt(text, at, limit = CUE_LENGTH) {
  let start = 0;
  for (;;) {
    const end = cueEnd(text, start, limit);
    if (end >= text.length || at < end) return [start, Math.min(end, text.length)];
    start = end;
  }
}

const SENTENCE = /[.!?…]["'”’)\]]*\s+|[。！？]["'”’）]*/g;
const CLAUSE = /[,;:–—]\s+|[，、；：]/g;
const SPACE = /\s+/g;

/**
 * @param {string} text
 * @param {number} start
 * @param {number} limit
 */
function cueEnd(text, start, limit) {
  if (text.length - start <= limit) return text.length;
  const part = text.slice(start, start + limit);
  for (const pattern of [SENTENCE, CLAUSE, SPACE]) {
    let end = 0;
    for (const match of part.matchAll(pattern)) end = match.index + match[0].length;
    if (end >= EARLIEST_END * limit) return start + end;
  }
  return start + limit;
}
