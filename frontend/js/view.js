// @ts-check
/**
 * The page's elements, and what they can show. Knows the DOM and nothing of sessions.
 */

/**
 * @param {string} id
 * @returns {HTMLElement}
 */
export function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/**
 * Show on a progress bar how far something is.
 * @param {HTMLElement} bar
 * @param {number} share  in [0, 1]
 */
export function fill(bar, share) {
  bar.style.setProperty("--share", share.toFixed(3));
  bar.setAttribute("aria-valuenow", String(Math.round(share * 100)));
}

/** What went wrong and what to do, until it no longer holds or is dismissed. */
export class Problem {
  /** @param {string} id  of a box with a line of text and a button */
  constructor(id) {
    this.box = element(id);
    this.line = /** @type {HTMLElement} */ (this.box.querySelector("p"));
    this.box.querySelector("button")?.addEventListener("click", () => this.say(""));
  }

  get text() {
    return this.line.textContent ?? "";
  }

  /** @param {string} text  empty: nothing */
  say(text) {
    this.line.textContent = text;
    this.box.hidden = !text;
  }
}

/** @type {Record<Mode, [string, string, string, string]>} about it; the text box's label, hint, button */
const MODES = {
  chat: ["Talk with the avatar: it listens and answers.", "Message", "Type a message", "Send"],
  mirror: [
    "It says your words as you speak.",
    "Text for the avatar to say",
    "Type something for it to say",
    "Say it",
  ],
  upstream: [
    "Another server listens and answers; the avatar is its face.",
    "Message",
    "Type a message",
    "Send",
  ],
  parrot: [
    "It listens, then says your words back.",
    "Text for the avatar to say",
    "Type something for it to say",
    "Say it",
  ],
};

/**
 * @typedef {import("./protocol.js").Mode} Mode
 * @typedef {"loading" | "ready" | "connecting" | "listening" | "hearing" | "thinking" | "speaking"
 *   | "waiting"} Phase
 * @typedef {"connection" | "answer" | "hearing" | "other"} About  what a notice is about
 */

export class View {
  constructor() {
    this.canvas = /** @type {HTMLCanvasElement} */ (element("face"));
    this.start = /** @type {HTMLButtonElement} */ (element("start"));
    this.interrupt = /** @type {HTMLButtonElement} */ (element("interrupt"));
    this.speakForm = /** @type {HTMLFormElement} */ (element("speak"));
    this.speakText = /** @type {HTMLInputElement} */ (element("speak-text"));
    this.speakSend = /** @type {HTMLButtonElement} */ (element("speak-send"));
    this.talk = /** @type {HTMLButtonElement} */ (element("talk"));
    this.hold = /** @type {HTMLInputElement} */ (element("hold"));
    this.microphone = /** @type {HTMLSelectElement} */ (element("microphone"));
    this.voice = /** @type {HTMLSelectElement} */ (element("voice"));
    this.picture = element("picture");
    this.modes = /** @type {NodeListOf<HTMLInputElement>} */ (
      document.querySelectorAll("input[name=mode]")
    );
    this.level = element("level");
    this.levelShown = "";
    this.rimShown = "0";
    this.levelSaidMs = 0;
    this.problem = new Problem("notice");
    /** @type {About} what the notice is about */
    this.noticeAbout = "other";
  }

  /**
   * The sound's state, where the user should know of it.
   * @param {"ok" | "paused" | "missing"} state
   * @param {string} [text]  what is missing and what to do
   */
  sound(state, text = "") {
    this.picture.dataset.sound = state;
    element("resume").hidden = state !== "paused";
    const note = element("sound-note");
    note.hidden = state !== "missing";
    if (note.textContent !== text) note.textContent = text;
  }

  /** The server makes fewer pictures than its clients want. @param {boolean} over */
  overCapacity(over) {
    element("capacity").hidden = !over;
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
   * @param {About} [about]
   */
  notice(text, about = "other") {
    this.noticeAbout = about;
    this.problem.say(text);
  }

  /** What was said about this no longer holds. @param {About} about */
  clearNotice(about) {
    if (this.noticeAbout === about) this.notice("");
  }

  /** @param {number} share  in [0, 1]; 1 hides it */
  progress(share) {
    const bar = element("progress");
    fill(bar, share);
    bar.hidden = share >= 1;
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
    // Coarsely: each step paints the rim of the picture anew.
    const rim = this.picture.dataset.phase === "hearing" ? share.toFixed(1) : "0";
    if (rim !== this.rimShown) this.picture.style.setProperty("--level", rim);
    this.rimShown = rim;
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
   * Voices to choose from; fewer than two: there is no choice.
   * @param {import("./engines.js").VoiceChoice[]} voices
   * @param {string} chosen
   */
  listVoices(voices, chosen) {
    const languages = [...new Set(voices.map(({ language }) => language))];
    languages.sort((a, b) => Number(isSpokenHere(b)) - Number(isSpokenHere(a)));
    const groups = languages.map((language) => {
      const group = document.createElement("optgroup");
      group.label = nameOf(language);
      const own = voices.filter((voice) => voice.language === language);
      group.append(...own.map(({ id, name }) => new Option(name, id)));
      return group;
    });
    this.voice.replaceChildren(new Option("Default", ""), ...groups);
    this.voice.value = chosen;
    element("voice-field").hidden = !voices.length;
  }

  /**
   * Is a conversation possible, and what is to be known of it?
   * @param {import("./engines.js").ChatState} state
   */
  chat({ known, ready, problems, notes, upstream }) {
    element("mode-chat").hidden = !known;
    element("mode-upstream").hidden = !upstream;
    for (const input of this.modes) if (input.value === "chat") input.disabled = !ready;
    list("missing", problems);
    list("notes", notes);
    this.showMode();
  }

  /** @param {boolean} byHand */
  talkByHand(byHand) {
    this.talk.hidden = !byHand;
    this.hold.checked = byHand;
  }

  /** @returns {Mode} */
  get mode() {
    const chosen = [...this.modes].find(({ checked }) => checked);
    return /** @type {Mode} */ (chosen?.value ?? "mirror");
  }

  set mode(mode) {
    for (const input of this.modes) input.checked = input.value === mode;
    this.showMode();
  }

  /** What the chosen mode does, and what the text box is for. */
  showMode() {
    const [about, label, hint, button] = MODES[this.mode];
    element("mode-about").textContent = about;
    element("speak-label").textContent = label;
    this.speakText.placeholder = hint;
    this.speakSend.textContent = button;
    element("notes").hidden = this.mode !== "chat" || !element("notes").childElementCount;
  }
}

/** One of the user's languages? @param {string} language */
function isSpokenHere(language) {
  const [primary] = language.split("-");
  return navigator.languages.some((own) => own.split("-")[0] === primary);
}

/** @param {string} language  as "en-US" */
function nameOf(language) {
  try {
    return new Intl.DisplayNames("en", { type: "language" }).of(language) ?? language;
  } catch {
    return language || "Any language"; // what an engine calls a language may be no code
  }
}

/**
 * @param {string} id
 * @param {string[]} lines
 */
function list(id, lines) {
  const items = lines.map((line) => {
    const item = document.createElement("li");
    item.textContent = line;
    return item;
  });
  element(id).replaceChildren(...items);
  element(id).hidden = !lines.length;
}
