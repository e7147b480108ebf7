// @ts-check
/**
 * The page's elements, and what they can show. Knows the DOM and nothing of sessions.
 */

/**
 * @template {Element} T
 * @param {string} id
 * @returns {T}
 */
function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return /** @type {T} */ (/** @type {unknown} */ (found));
}

/**
 * @typedef {"loading" | "ready" | "connecting" | "listening" | "speaking" | "waiting"} Phase
 * @typedef {{id: string, name: string, urls?: {poster?: string}}} AvatarChoice
 */

export class View {
  constructor() {
    this.canvas = /** @type {HTMLCanvasElement} */ (element("face"));
    this.start = /** @type {HTMLButtonElement} */ (element("start"));
    this.interrupt = /** @type {HTMLButtonElement} */ (element("interrupt"));
    this.speakForm = /** @type {HTMLFormElement} */ (element("speak"));
    this.speakText = /** @type {HTMLInputElement} */ (element("speak-text"));
    this.speakSend = /** @type {HTMLButtonElement} */ (element("speak-send"));
    this.microphone = /** @type {HTMLSelectElement} */ (element("microphone"));
    this.avatars = /** @type {HTMLElement} */ (element("avatars"));
    this.picture = /** @type {HTMLElement} */ (element("picture"));
    this.modes = /** @type {NodeListOf<HTMLInputElement>} */ (
      document.querySelectorAll("input[name=mode]")
    );
    this.level = /** @type {HTMLElement} */ (element("level"));
    this.levelShown = "";
    this.levelSaidMs = 0;
    /** @type {"" | "connection" | "other"} what the notice is about */
    this.noticeAbout = "";
    element("notice-close").addEventListener("click", () => this.notice(""));
  }

  /**
   * The sound's state, where the user should know of it.
   * @param {"ok" | "paused" | "missing"} state
   * @param {string} [text]  what is missing and what to do
   */
  sound(state, text = "") {
    this.picture.dataset.sound = state;
    /** @type {HTMLElement} */ (element("resume")).hidden = state !== "paused";
    const note = /** @type {HTMLElement} */ (element("sound-note"));
    note.hidden = state !== "missing";
    if (note.textContent !== text) note.textContent = text;
  }

  /** The server makes fewer pictures than its clients want. @param {boolean} over */
  overCapacity(over) {
    /** @type {HTMLElement} */ (element("capacity")).hidden = !over;
  }

  /**
   * @param {Phase} phase
   * @param {string} text
   */
  phase(phase, text) {
    if (this.picture.dataset.phase !== phase) this.picture.dataset.phase = phase;
    const status = element("status");
    if (status.textContent !== text) status.textContent = text;
  }

  /** @param {boolean} live */
  live(live) {
    this.start.dataset.live = String(live);
    element("start-label").textContent = live ? "Stop" : "Start";
  }

  /**
   * What went wrong and what to do; empty: nothing.
   * @param {string} text
   * @param {"connection" | "other"} [about]
   */
  notice(text, about = "other") {
    this.noticeAbout = text ? about : "";
    element("notice-text").textContent = text;
    /** @type {HTMLElement} */ (element("notice")).hidden = !text;
  }

  /** The connection is back: what was said of it no longer holds. */
  clearConnectionNotice() {
    if (this.noticeAbout === "connection") this.notice("");
  }

  /** @param {number} share  in [0, 1]; 1 hides it */
  progress(share) {
    const bar = /** @type {HTMLElement} */ (element("progress"));
    bar.style.setProperty("--share", String(share));
    bar.setAttribute("aria-valuenow", String(Math.round(share * 100)));
    bar.hidden = share >= 1;
  }

  /**
   * @param {"heard" | "said"} who
   * @param {string} text
   */
  caption(who, text) {
    const line = /** @type {HTMLElement} */ (element(who));
    line.textContent = text;
    line.hidden = !text;
  }

  /**
   * @param {number} rms  in [0, 1]
   * @param {number} nowMs
   */
  microphoneLevel(rms, nowMs) {
    // -60 dB to 0 dB fill the bar.
    const share = rms > 0.001 ? Math.min(1, 1 + Math.log10(rms) / 3) : 0;
    const shown = share.toFixed(2);
    if (shown !== this.levelShown) this.level.style.setProperty("--level", shown);
    this.levelShown = shown;
    if (nowMs - this.levelSaidMs < 500) return;
    this.levelSaidMs = nowMs;
    this.level.setAttribute("aria-valuenow", String(Math.round(share * 100)));
  }

  /**
   * @param {{id: string, label: string}[]} microphones
   * @param {string} chosen
   */
  listMicrophones(microphones, chosen) {
    const options = [new Option("System default", "")];
    for (const { id, label } of microphones) {
      if (id !== "default" && id !== "communications") options.push(new Option(label, id));
    }
    this.microphone.replaceChildren(...options);
    this.microphone.value = options.some(({ value }) => value === chosen) ? chosen : "";
  }

  /**
   * @param {AvatarChoice[]} avatars
   * @param {string} chosen
   * @param {(id: string) => void} onChoose
   */
  listAvatars(avatars, chosen, onChoose) {
    const choices = avatars.map(({ id, name, urls }) => {
      const label = document.createElement("label");
      const input = document.createElement("input");
      input.type = "radio";
      input.name = "avatar";
      input.value = id;
      input.checked = id === chosen;
      input.addEventListener("change", () => onChoose(id));
      const poster = document.createElement("img");
      if (urls?.poster) poster.src = urls.poster;
      poster.alt = "";
      const caption = document.createElement("span");
      caption.textContent = name;
      label.append(input, poster, caption);
      return label;
    });
    this.avatars.replaceChildren(...choices);
  }

  /** @param {Record<string, string>} numbers  by the end of their ids */
  numbers(numbers) {
    for (const [name, text] of Object.entries(numbers)) element(`n-${name}`).textContent = text;
  }

  get mode() {
    const chosen = [...this.modes].find(({ checked }) => checked);
    return /** @type {"mirror" | "parrot"} */ (chosen?.value ?? "mirror");
  }

  set mode(mode) {
    for (const input of this.modes) input.checked = input.value === mode;
  }
}
