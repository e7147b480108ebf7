// @ts-check
/**
 * Which of the microphone's blocks are sent: all of them, or those said while a key is held.
 *
 * Pure. People begin to speak as they press and end as they let go, so what came shortly before
 * the press is sent as well, and so is what comes shortly after.
 */

/** Said before the press, in blocks. */
const BEFORE = 8;
/** Said after the release, in blocks. */
const AFTER = 4;
/** Blocks that are no turn: the key was touched. */
const SHORTEST = BEFORE + AFTER + 4;

export class Talk {
  /**
   * @param {object} does
   * @param {(block: Int16Array<ArrayBuffer>) => void} does.send
   * @param {() => void} does.commit  the turn is over
   * @param {() => void} does.drop  it was too short: forget it
   */
  constructor({ send, commit, drop }) {
    this.send = send;
    this.commit = commit;
    this.drop = drop;
    /** Only what is said while held is sent. */
    this.byHand = false;
    this.held = false;
    /** Blocks that the released turn still gets; 0: it has ended. */
    this.rest = 0;
    this.sent = 0;
    /** @type {Int16Array<ArrayBuffer>[]} */
    this.before = [];
  }

  /** @param {boolean} byHand */
  mode(byHand) {
    this.cancel();
    this.byHand = byHand;
  }

  press() {
    if (!this.byHand || this.held) return;
    this.#end();
    this.held = true;
    this.sent = this.before.length;
    for (const block of this.before) this.send(block);
    this.before = [];
  }

  release() {
    if (!this.held) return;
    this.held = false;
    this.rest = AFTER;
  }

  /** Without a microphone, or with another mode: what is held is over, and forgotten. */
  cancel() {
    if (this.held || this.rest) this.drop();
    this.held = false;
    this.rest = this.sent = 0;
    this.before = [];
  }

  /** @param {Int16Array<ArrayBuffer>} block */
  hear(block) {
    if (!this.byHand) return this.send(block);
    if (this.held || this.rest) {
      this.send(block);
      this.sent += 1;
      if (!this.held && (this.rest -= 1) === 0) this.#finish();
      return;
    }
    this.before.push(block);
    if (this.before.length > BEFORE) this.before.shift();
  }

  /** Pressed again before the last turn's rest had come. */
  #end() {
    if (this.rest) this.#finish();
  }

  #finish() {
    const enough = this.sent >= SHORTEST;
    this.rest = this.sent = 0;
    if (enough) this.commit();
    else this.drop();
  }
}
