// @ts-check
/**
 * The avatars to choose from, and the place where new ones are made: a drop zone, the camera,
 * progress, what became of it; renaming and deleting. Knows the DOM; `making` talks to the server.
 */

import { CameraError, shoot } from "./camera.js";
import { Making } from "./making.js";
import { UploadError } from "./upload.js";
import { element, fill, Problem } from "./view.js";

const SURE_MS = 4000;
const MB = 1024 * 1024;

/**
 * @typedef {import("./upload.js").AvatarChoice} AvatarChoice
 * @typedef {{avatars: AvatarChoice[], fallback: string, maxBytes: number | null}} Listing  maxBytes
 *   null: this page may make none
 */

export class Avatars {
  /**
   * @param {object} options
   * @param {Making} options.making
   * @param {(avatar: AvatarChoice) => void} options.use  the user, or a new list, has chosen it
   */
  constructor({ making, use }) {
    this.making = making;
    this.use = use;
    /** @type {AvatarChoice[]} */
    this.list = [];
    this.fallback = "";
    this.chosen = "";
    /** @type {number | null} */
    this.maxBytes = null;
    /** @type {File[]} that wait for their turn */
    this.files = [];
    this.isBusy = false;
    this.problem = new Problem("job-problem");
    this.box = element("avatars");
    this.picker = /** @type {HTMLInputElement} */ (element("file"));
    this.newName = /** @type {HTMLInputElement} */ (element("new-name"));
    making.onList = (avatars, fallback) => this.update(avatars, fallback);
    making.onLost = (reason) => this.#say(reason ? `Not connected: ${reason}` : "Reconnecting");
    this.#listen();
  }

  /**
   * @param {Listing} listing
   * @param {string} chosen
   */
  begin({ avatars, fallback, maxBytes }, chosen) {
    this.chosen = chosen;
    this.maxBytes = maxBytes;
    element("maker").hidden = maxBytes === null;
    this.update(avatars, fallback);
  }

  /**
   * The list is another one, perhaps.
   * @param {AvatarChoice[]} avatars
   * @param {string} fallback
   */
  update(avatars, fallback) {
    const isNew = JSON.stringify(avatars) !== JSON.stringify(this.list);
    this.list = avatars;
    this.fallback = fallback;
    if (isNew) this.#show();
    if (!avatars.some(({ id }) => id === this.chosen)) this.choose(fallback);
    this.#showChosen();
  }

  /** Of the chosen one. */
  get name() {
    return this.#avatar?.name ?? "Avatar";
  }

  /** @param {string} id */
  choose(id) {
    const avatar = this.list.find((one) => one.id === id);
    if (!avatar) return;
    this.chosen = id;
    for (const input of this.box.querySelectorAll("input")) input.checked = input.value === id;
    this.#showChosen();
    this.use(avatar);
  }

  /** Make avatars of files, one after the other. @param {Iterable<File>} files */
  async make(files) {
    if (this.maxBytes === null) return;
    this.files.push(...files);
    if (this.isBusy) return; // they have their turn
    this.isBusy = true;
    this.#problem("");
    element("made").hidden = true;
    try {
      for (let file = this.files.shift(); file; file = this.files.shift()) {
        const unfit = this.#unfit(file, this.maxBytes);
        if (unfit) this.#problem(unfit);
        else await this.#makeOne(file);
      }
    } finally {
      this.isBusy = false;
    }
  }

  /** Why a file need not be sent; empty: it may be. @param {File} file @param {number} maxBytes */
  #unfit({ name, type, size }, maxBytes) {
    if (type && !/^(image|video)\//.test(type)) {
      return `${name} is neither a photo nor a video. Choose another file.`;
    }
    if (size <= maxBytes) return "";
    const [has, takes] = [Math.ceil(size / MB), Math.floor(maxBytes / MB)];
    return `${name} has ${has} MB; the server takes ${takes}. Cut the video shorter or write it smaller.`;
  }

  /** @param {File} file */
  async #makeOne(file) {
    const upload = this.making.begin(file);
    upload.onProgress = (text, share) => this.#progress(text, share);
    this.#progress("Connecting", 0);
    element("job").hidden = false;
    element("drop").hidden = element("camera").hidden = true;
    try {
      this.#made(await upload.done);
    } catch (error) {
      if (!(error instanceof UploadError)) throw error;
      this.#problem(error.message);
    } finally {
      element("job").hidden = true;
      element("drop").hidden = element("camera").hidden = false;
    }
  }

  /** @param {import("./upload.js").NewAvatar} made */
  #made({ avatar, notes, preview }) {
    if (!this.list.some(({ id }) => id === avatar.id)) this.update([...this.list, avatar], this.fallback);
    const picture = /** @type {HTMLImageElement} */ (element("made-preview"));
    picture.src = `data:image/jpeg;base64,${preview}`;
    element("made-name").textContent = `${avatar.name} is ready.`;
    element("made-notes").textContent = notes.join(" ");
    element("made").hidden = false;
    this.choose(avatar.id);
  }

  // -- what is shown -----------------------------------------------------------------------------

  #show() {
    const choices = this.list.map(({ id, name, urls }) => {
      const label = document.createElement("label");
      const input = document.createElement("input");
      input.type = "radio";
      input.name = "avatar";
      input.value = id;
      input.checked = id === this.chosen;
      input.addEventListener("change", () => this.choose(id));
      const poster = document.createElement("img");
      if (urls?.poster) poster.src = urls.poster;
      poster.alt = "";
      const caption = document.createElement("span");
      caption.textContent = caption.title = name;
      label.append(input, poster, caption);
      return label;
    });
    const hadFocus = this.box.contains(document.activeElement);
    this.box.replaceChildren(...choices);
    if (hadFocus) this.#focusChoice();
  }

  #focusChoice() {
    /** @type {HTMLElement | null} */ (this.box.querySelector(":checked"))?.focus();
  }

  /** What can be done with the chosen one. */
  #showChosen() {
    const chosen = element("chosen");
    const isHidden = this.maxBytes === null || !this.#avatar?.removable;
    if (isHidden && chosen.contains(document.activeElement)) this.#focusChoice();
    chosen.hidden = isHidden;
    if (this.newName.form?.dataset.id !== this.chosen) this.#rename(false);
    this.#sure(false);
  }

  /**
   * @param {string} text
   * @param {number} share  in [0, 1]
   */
  #progress(text, share) {
    const others = this.files.length;
    this.#say(others ? `${text} · ${others} more` : text);
    fill(element("job-progress"), share);
  }

  /** @param {string} text */
  #say(text) {
    const status = element("job-text");
    if (status.textContent !== text) status.textContent = text;
  }

  /** @param {string} text  what else went wrong and what to do; empty: nothing */
  #problem(text) {
    const { problem } = this;
    problem.say(text && problem.text ? `${problem.text}\n${text}` : text);
  }

  // -- what the user does ------------------------------------------------------------------------

  #listen() {
    this.picker.addEventListener("change", () => {
      void this.make([...(this.picker.files ?? [])]);
      this.picker.value = ""; // the same file may be chosen again
    });
    element("job-cancel").addEventListener("click", () => {
      this.files = [];
      this.making.upload?.cancel();
    });
    element("camera").addEventListener("click", () => void this.#shoot());
    element("rename").addEventListener("click", () => this.#rename(this.#form.hidden));
    element("delete").addEventListener("click", () => void this.#delete());
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#change({ type: "avatar.rename", avatar_id: this.chosen, name: this.newName.value.trim() });
      this.#rename(false);
      element("rename").focus();
    });
    this.newName.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        this.#rename(false);
        element("rename").focus();
      }
      event.stopPropagation(); // the page has keys of its own
    });
    // Anywhere on the page: a file that misses the zone would replace the page.
    for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
      window.addEventListener(kind, (event) => this.#drag(/** @type {DragEvent} */ (event)));
    }
  }

  /** @param {DragEvent} event */
  #drag(event) {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    if (this.maxBytes === null) {
      event.dataTransfer.dropEffect = "none";
      return;
    }
    const left = event.type === "dragleave" && !event.relatedTarget;
    element("drop").dataset.over = String(event.type !== "drop" && !left);
    if (event.type === "drop") void this.make([...event.dataTransfer.files]);
  }

  async #shoot() {
    this.#problem("");
    try {
      const file = await shoot();
      if (file) await this.make([file]);
    } catch (error) {
      if (!(error instanceof CameraError)) throw error;
      this.#problem(error.message);
    }
  }

  get #avatar() {
    return this.list.find(({ id }) => id === this.chosen);
  }

  get #form() {
    return /** @type {HTMLFormElement} */ (element("rename-form"));
  }

  /** @param {boolean} open */
  #rename(open) {
    this.#form.hidden = !open;
    element("rename").setAttribute("aria-expanded", String(open));
    this.#form.dataset.id = this.chosen;
    if (!open) return;
    this.newName.value = this.name;
    this.newName.focus();
    this.newName.select();
  }

  /** The first press asks, the second one deletes. */
  async #delete() {
    if (element("delete").dataset.sure !== "true") return this.#sure(true);
    this.#sure(false);
    await this.#change({ type: "avatar.delete", avatar_id: this.chosen });
  }

  /** @param {boolean} sure  the next press deletes */
  #sure(sure) {
    const button = element("delete");
    button.dataset.sure = String(sure);
    button.textContent = sure ? "Delete for good" : "Delete";
    clearTimeout(this.sureTimer);
    if (sure) this.sureTimer = setTimeout(() => this.#sure(false), SURE_MS);
  }

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  sureTimer = undefined;

  /** @param {object} event */
  async #change(event) {
    this.#problem("");
    element("made").hidden = true;
    try {
      await this.making.change(event);
    } catch (error) {
      if (!(error instanceof UploadError)) throw error;
      this.#problem(error.message);
    }
  }
}
