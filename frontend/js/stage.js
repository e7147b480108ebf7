// @ts-check
/**
 * Which avatar is shown, and before which background: its pictures are fetched, and take the place
 * of the old ones once they are there. Knows neither the DOM nor sessions.
 */

import { IdleCycle, IdleError } from "./idle.js";

export class Stage {
  /**
   * @param {object} options
   * @param {import("./face.js").Face} options.face
   * @param {import("./backdrop.js").Backdrop} options.backdrop
   * @param {(picture: Uint8Array) => Promise<ImageBitmap>} options.decode
   */
  constructor({ face, backdrop, decode }) {
    this.face = face;
    this.backdrop = backdrop;
    this.decode = decode;
    this.avatarId = "";
    /** @type {IdleCycle | null} the newest that was asked for */
    this.newest = null;
    /** @type {(() => void)[]} who wait until nothing is said */
    this.resting = [];
    /** @type {(share: number) => void} how far an avatar's pictures are, in [0, 1]; 1: it is over */
    this.onProgress = () => {};
    /** @type {(progress: string) => void} an avatar's pictures are being made */
    this.onWait = () => {};
    /** What is said is to end: other pictures come. */
    this.onLeave = () => {};
    /** The server is to send frames that fit. */
    this.onShown = () => {};
  }

  /**
   * Show an avatar. Where the chosen background takes time to be made ready, it is shown before
   * its own until then.
   * @param {string} id
   */
  async show(id) {
    const { face, backdrop } = this;
    this.avatarId = id;
    this.onLeave();
    this.onProgress(0);
    let cycle = this.#expect(new IdleCycle(id, this.decode, backdrop.query));
    const isAtHand = await this.#ask(cycle, () => cycle.open());
    if (isAtHand === undefined) return;
    if (!isAtHand) cycle = this.#expect(new IdleCycle(id, this.decode));
    cycle.onWait = (progress) => this.onWait(progress);
    const loaded = cycle.load((share) => this.onProgress(share));
    face.setIdle(cycle);
    if (!(await this.#ask(cycle, () => loaded))) return;
    this.onProgress(1);
    face.restart(performance.now());
    this.onShown();
    if (cycle.query !== backdrop.query) backdrop.use(); // nobody waits for it
  }

  /** Show the same avatar before what was chosen; the picture stays until that is there. */
  async changeBackground() {
    const { face, backdrop } = this;
    // An avatar that is on its way comes before what was chosen.
    if (face.idle?.id !== this.avatarId || !face.idle.ready) return this.show(this.avatarId);
    const cycle = this.#expect(new IdleCycle(this.avatarId, this.decode, backdrop.query));
    let waited = false;
    cycle.onWait = (progress) => {
      waited = true;
      backdrop.waiting(progress);
    };
    if (!(await this.#ask(cycle, () => cycle.load()))) return;
    // Who has just chosen it wants to see it; later it may wait until nothing is said.
    while (waited && face.speech) await new Promise((resolve) => this.resting.push(() => resolve(null)));
    if (this.newest !== cycle) return;
    this.onLeave();
    face.exchangeIdle(cycle);
    this.onShown();
  }

  /** Nothing is said any more. */
  rested() {
    for (const go of this.resting.splice(0)) go();
  }

  /** The only one that is on its way from now on. @param {IdleCycle} cycle */
  #expect(cycle) {
    if (this.newest !== this.face.idle) this.newest?.close();
    return (this.newest = cycle);
  }

  /**
   * What is asked of a cycle, or undefined where another one was chosen meanwhile. Where the
   * background is not available, the avatar's own is shown.
   * @template T
   * @param {IdleCycle} cycle
   * @param {() => Promise<T>} ask
   */
  async #ask(cycle, ask) {
    this.backdrop.loading();
    try {
      const answer = await ask();
      if (this.newest !== cycle) return undefined;
      this.backdrop.loaded();
      return answer ?? true;
    } catch (error) {
      if (this.newest !== cycle) return undefined;
      this.onProgress(1);
      if (!(error instanceof IdleError) || !cycle.query) throw error;
      this.backdrop.refuse(error.message);
      if (this.face.idle?.id !== cycle.id) await this.show(cycle.id);
      return undefined;
    }
  }
}
