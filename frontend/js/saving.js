// @ts-check
/**
 * "Save as video": the button, how far it is, the link to the file. Knows the DOM; `video` talks to
 * the server.
 */

import { VideoError, VideoMaker } from "./video.js";
import { element, fill } from "./view.js";

/** Frames a second that a text is taken to be spoken at, for the bar before its length is known. */
const FRAMES_A_CHARACTER = 25 / 14;

export class Saving {
  /**
   * @param {object} options
   * @param {VideoMaker} options.maker
   * @param {() => import("./video.js").Order} options.order  what is to be made now
   */
  constructor({ maker, order }) {
    this.maker = maker;
    this.order = order;
    this.button = /** @type {HTMLButtonElement} */ (element("save-video"));
    this.link = /** @type {HTMLAnchorElement} */ (element("saved-link"));
    this.bar = element("saving-progress");
    this.button.addEventListener("click", () => void this.#save());
    element("saving-cancel").addEventListener("click", () => maker.cancel());
  }

  /** The server is ready. @param {boolean} makesVideos */
  offer(makesVideos) {
    element("saving").hidden = !makesVideos;
  }

  async #save() {
    const order = this.order();
    if (!order.text) return this.#say("Type what it is to say, then save it as a video.");
    const expected = order.text.length * FRAMES_A_CHARACTER;
    this.#working(true);
    this.#say("Making the video");
    this.maker.onProgress = (done, total) => {
      const share = total === null ? Math.min(0.95, done / expected) : done / total;
      fill(this.bar, share);
      this.#say(`Making the video: ${Math.round(100 * share)} %`);
    };
    try {
      const { url, bytes, seconds } = await this.maker.make(order);
      this.link.href = url;
      this.link.download = `avatar.${order.format ?? "mp4"}`;
      this.link.hidden = false;
      this.#say(`The video is ready: ${seconds.toFixed(1)} s, ${(bytes / 1e6).toFixed(1)} MB.`);
    } catch (error) {
      if (!(error instanceof VideoError)) throw error;
      this.#say(error.message);
    } finally {
      this.#working(false);
    }
  }

  /** @param {boolean} isWorking */
  #working(isWorking) {
    this.button.disabled = isWorking;
    element("saving-cancel").hidden = this.bar.hidden = !isWorking;
    if (isWorking) {
      this.link.hidden = true;
      fill(this.bar, 0);
    }
  }

  /** @param {string} text */
  #say(text) {
    element("saving-text").textContent = text;
  }
}
