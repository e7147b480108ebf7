// @ts-check
/**
 * The page: connects the modules, the user's actions and what is shown.
 */

import { Avatars } from "./avatars.js";
import { Backdrop } from "./backdrop.js";
import { Connection } from "./connection.js";
import { chatState } from "./engines.js";
import { Face } from "./face.js";
import { letGo, onHold } from "./hold.js";
import { Log } from "./log.js";
import { Making } from "./making.js";
import { Microphone, MicrophoneError, listMicrophones } from "./microphone.js";
import { Output } from "./output.js";
import { Panel } from "./panel.js";
import { Player } from "./player.js";
import { Saving } from "./saving.js";
import * as server from "./server.js";
import { Session } from "./session.js";
import { chosen, remember, remembered } from "./settings.js";
import { atEachGesture, whatIsMissing } from "./sound.js";
import { Stage } from "./stage.js";
import { Talk } from "./talk.js";
import { VideoMaker } from "./video.js";
import { View } from "./view.js";

const RATE = 24_000;
const REPORT_MS = 500;
/** How often a server whose engines do not all work yet is asked for them again. */
const ENGINES_MS = 10_000;
const VOICES_MS = 3000;
/** How often the list of avatars is asked for while no session tells of it. */
const AVATARS_MS = 5000;
/** A connection that is lost for longer is spoken of. */
const PATIENCE_MS = 1500;

/** @typedef {import("./protocol.js").Mode} Mode */

const query = new URLSearchParams(location.search);
const view = new View();
const face = new Face(view.canvas);
const panel = new Panel();
const connection = new Connection((resumption) => realtimeUrl({ avatar: stage.avatarId, ...resumption }));
const output = new Output();
const player = new Player(output, RATE);
const idle = () => /** @type {import("./idle.js").IdleCycle} */ (face.idle); // there is one before a session begins
const session = new Session({ connection, player, decode, idle, wishes });
const talk = new Talk({
  send: (block) => session.hear(block),
  commit: () => session.commit(),
  drop: () => session.drop(),
});

const avatars = new Avatars({
  making: new Making(realtimeUrl, () => connection.token),
  use: ({ id }) => void stage.show(id).catch(fail),
});
const log = new Log(session.transcript, () => avatars.name);
const backdrop = new Backdrop({ canvas: view.canvas, use: () => void stage.changeBackground().catch(fail) });
const stage = new Stage({ face, backdrop, decode });
const saving = new Saving({
  maker: new VideoMaker(realtimeUrl, () => connection.token),
  order: () => ({
    text: view.speakText.value.trim(),
    avatar: stage.avatarId,
    voice: view.voice.value,
    ...backdrop.ofVideos,
  }),
});

/** @type {Microphone | null} */
let microphone = null;
/** The user started a session. */
let live = false;
let serverReady = false;
let chat = chatState(null);
/** @type {number | null} since when the connection is lost */
let lostMs = null;
let lostBecause = "";

/** @param {Record<string, string>} query */
function realtimeUrl(query) {
  const url = new URL("v1/realtime", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.hash = "";
  url.search = new URLSearchParams(query).toString();
  return url.href;
}

/**
 * What the user has chosen, for the server.
 * @returns {import("./protocol.js").Wishes & {hold: boolean}}
 */
function wishes() {
  const foreign = view.mode === "upstream"; // the voices are this server's, not the upstream's
  const voice = view.voice.options.length ? { voice: foreign ? "" : view.voice.value } : {};
  return {
    avatar: stage.avatarId,
    mode: view.mode,
    ...voice,
    region: query.get("region") === "full" ? "full" : "mouth",
    look: backdrop.look(face.idle?.query ?? ""),
    hold: view.hold.checked,
    inputRate: RATE,
    outputRate: RATE,
  };
}

/** @param {Uint8Array} picture */
function decode(picture) {
  const type = picture[0] === 0xff ? "image/jpeg" : picture[0] === 0x89 ? "image/png" : "image/webp";
  return createImageBitmap(new Blob([/** @type {BlobPart} */ (picture)], { type }));
}

// -- before a session: the server, its engines, the avatars ----------------------------------------

async function askForEngines() {
  chat = await server.engines();
  view.chat(chat);
}

/** Some voices are known only after a while. */
async function askForVoices() {
  const { voices, complete } = await server.voices();
  const wish = view.voice.options.length ? view.voice.value : remembered("voice");
  view.listVoices(voices, chosen(["", ...voices.map(({ id }) => id)], [wish, remembered("voice")], ""));
  // By then it is known whether a service can be reached: what the engines' notes say may change.
  if (!complete) setTimeout(() => void askForVoices().then(askForEngines), VOICES_MS);
}

async function prepare() {
  view.phase("loading", "Getting ready");
  await server.ready((phase, text) => view.phase(phase, text));
  await Promise.all([askForVoices(), askForEngines()]);
  /** @type {Mode[]} */
  const modes = ["mirror", "parrot"];
  if (chat.ready) modes.unshift("chat");
  if (chat.upstream) modes.unshift("upstream");
  view.mode = chosen(modes, [query.get("mode"), remembered("mode")], modes[0]);
  const listing = await server.avatars();
  const ids = listing.avatars.map(({ id }) => id);
  const id = chosen(ids, [query.get("avatar"), remembered("avatar"), listing.fallback], ids[0]);
  avatars.begin(listing, id);
  saving.offer(listing.makesVideos);
  backdrop.begin(listing.background);
  await stage.show(id);
  view.listMicrophones(await listMicrophones(), remembered("microphone"));
  serverReady = true;
  view.start.disabled = view.speakSend.disabled = false;
  showPhase();
}

/** Others may add avatars, or remove them. */
async function askForAvatars() {
  if (!serverReady || document.hidden || session.agreed) return;
  const { avatars: list, fallback } = await server.avatars();
  avatars.update(list, fallback);
}

stage.onProgress = (share) => view.progress(share);
stage.onWait = (progress) => {
  if (!serverReady) view.phase("loading", progress);
};
stage.onLeave = () => session.interrupt();
stage.onShown = () => {
  remember("avatar", stage.avatarId);
  if (live) session.configure();
};

// -- a session -----------------------------------------------------------------------------------

/** Call it in a user's gesture: browsers allow sound in one only. @param {boolean} withMicrophone */
async function begin(withMicrophone) {
  live = true;
  view.notice("");
  output.start();
  showPhase();
  await player.open();
  if (!live) return; // stopped while it loaded
  if (connection.state === "closed") connection.open();
  if (withMicrophone) await listen();
}

async function listen() {
  if (!output.context) return view.notice("Without sound there is no microphone here. Type below.");
  microphone ??= new Microphone(output.context, RATE);
  microphone.onBlock = (block) => talk.hear(block);
  microphone.onLost = () => {
    view.notice("The microphone was disconnected. Choose another one.");
    closeMicrophone();
  };
  try {
    await openMicrophone(microphone, remembered("microphone"));
    if (!live) return end(); // stopped while the browser was asking
    view.live(true);
    view.listMicrophones(await listMicrophones(), remembered("microphone"));
  } catch (error) {
    if (!(error instanceof MicrophoneError)) throw error;
    view.notice(error.message);
  }
}

/**
 * The wished one, or the system's where that is gone.
 * @param {Microphone} microphone
 * @param {string} deviceId
 */
async function openMicrophone(microphone, deviceId) {
  try {
    await microphone.open(deviceId);
  } catch (error) {
    if (!(error instanceof MicrophoneError && error.code === "gone" && deviceId)) throw error;
    await microphone.open();
  }
}

function closeMicrophone() {
  talk.cancel();
  microphone?.close();
  view.live(false);
  showTalk();
}

function end() {
  live = false;
  closeMicrophone();
  connection.close();
  session.end();
  log.userSays("");
  view.overCapacity(false);
  output.stop();
  showPhase();
}

function interrupt() {
  session.interrupt();
  showPhase();
}

/** @param {string} text */
function say(text) {
  session.say(text);
  if (!live) void begin(false).catch(fail);
}

// -- what the server says ------------------------------------------------------------------------

session.onNotice = (text, about = "other") => (text ? view.notice(text, about) : view.clearNotice(about));
session.onCapacity = (/** @type {boolean} */ over) => view.overCapacity(over);
session.onAvatar = () => face.restart(performance.now());
/**
 * @param {import("./upload.js").AvatarChoice[]} list
 * @param {string} fallback
 */
session.onAvatars = (list, fallback) => avatars.update(list, fallback);
session.onSpeech = (/** @type {import("./speech.js").Speech} */ speech) => {
  panel.begin();
  log.clearSaid();
  face.play(speech);
};
session.onChange = () => {
  if (session.agreed) view.clearNotice("connection");
  if (!session.speech) log.cut();
  if (session.userSpeaks && session.heardText) log.clearSaid();
  log.userSays(session.heardText || (session.userSpeaks && view.mode !== "mirror" ? "…" : ""));
  showPhase();
};

/**
 * @param {import("./connection.js").ConnectionState} state
 * @param {string} reason
 */
connection.onState = (state, reason) => {
  if (state === "open" || state === "closed") return showPhase();
  session.lost();
  view.overCapacity(false);
  if (state === "lost") {
    const because = reason ? ` (${reason})` : "";
    lostBecause = `The connection to the server was lost${because}. Reconnecting…`;
    lostMs ??= performance.now();
  }
  showPhase();
};

/** A connection that is back at once was never missed. @param {number} nowMs */
function sayIfLost(nowMs) {
  if (!live || session.agreed) lostMs = null;
  if (lostMs !== null && nowMs - lostMs > PATIENCE_MS) view.notice(lostBecause, "connection");
}

window.addEventListener("online", () => connection.hurry());

// -- the sound -----------------------------------------------------------------------------------

/** @param {import("./output.js").OutputState} state */
output.onState = (state) => {
  if (state === "missing") player.goSilent();
  if (state === "paused") view.sound("paused");
  else if (state === "missing") view.sound("missing", whatIsMissing());
  else if (state !== "starting") view.sound("ok");
  log.readAloud(state === "missing");
  report();
};

atEachGesture(() => {
  output.resume();
  if (live && output.broken) void player.open();
});

// -- what the user sees --------------------------------------------------------------------------

function showPhase() {
  if (!serverReady) return;
  const { speech } = session;
  view.interrupt.disabled = !speech && !session.thinking;
  if (!live) view.phase("ready", "Ready");
  else if (!session.agreed && connection.attempt) view.phase("waiting", "Reconnecting");
  else if (!session.agreed) view.phase("connecting", "Connecting");
  else if (output.state === "paused") view.phase("waiting", "Sound paused");
  else if (speech?.silent) view.phase("speaking", "Speaking, no sound");
  else if (speech?.started && output.state === "starting") view.phase("connecting", "Starting sound");
  else if (speech?.started) view.phase("speaking", "Speaking");
  else if (session.thinking) view.phase("thinking", "Thinking");
  else if (session.userSpeaks || talk.held) view.phase("hearing", "Listening");
  else if (microphone?.isOpen) view.phase("listening", talk.byHand ? "Hold to talk" : "Listening");
  else view.phase("listening", "Connected");
}

function showTalk() {
  view.talkByHand(talk.byHand);
  view.talk.disabled = !microphone?.isOpen;
  view.talk.ariaPressed = String(talk.held);
}

/**
 * @param {import("./frames.js").Frame} _frame
 * @param {number} errorMs
 * @param {number} paintMs
 */
face.onFrame = (_frame, errorMs, paintMs) => {
  const isLate = panel.frame(errorMs, paintMs, session.askedMs);
  if (isLate && session.speech) session.speech.late += 1;
};

face.onRest = (/** @type {import("./speech.js").Speech} */ speech) => {
  panel.end(speech);
  session.finished(speech);
  stage.rested();
};

/** @param {number} timestampMs */
function paint(timestampMs) {
  output.tick();
  session.tick(timestampMs);
  face.draw(timestampMs);
  showSaid(timestampMs);
  showPhase();
  view.microphoneLevel(microphone?.level ?? 0, timestampMs);
  requestAnimationFrame(paint);
}

/** @param {number} nowMs */
function showSaid(nowMs) {
  const { speech } = session;
  if (!speech?.started) return log.quiet(nowMs);
  log.said(speech.spoken.text, speech.saidAt(nowMs), nowMs);
}

/** Twice a second, also where the page is hidden and paints nothing. */
function report() {
  const nowMs = performance.now();
  output.tick();
  session.tick(nowMs);
  if (document.hidden) face.draw(nowMs); // no animation frames: responses end here
  session.reportPlayback();
  sayIfLost(nowMs);
  panel.show(session.speech, player, nowMs);
  panel.turn(session.turns.times);
  showPhase();
}

/** @param {unknown} error */
function fail(error) {
  console.error(error);
  view.notice(error instanceof Error ? error.message : String(error));
}

// -- what the user does --------------------------------------------------------------------------

view.start.addEventListener("click", () => {
  if (microphone?.isOpen) end();
  else void begin(true).then(showTalk).catch(fail);
});
view.interrupt.addEventListener("click", interrupt);
view.speakForm.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = view.speakText.value.trim();
  if (!text || !serverReady) return;
  view.speakText.value = "";
  say(text);
});
document.addEventListener("keydown", ({ key }) => {
  if (key === "Escape") interrupt();
});
for (const input of view.modes) {
  input.addEventListener("change", () => {
    remember("mode", view.mode);
    view.showMode();
    session.cutOff();
    if (live) session.configure();
  });
}
view.voice.addEventListener("change", () => {
  remember("voice", view.voice.value);
  if (live) session.configure();
});
view.microphone.addEventListener("change", () => {
  remember("microphone", view.microphone.value);
  if (microphone?.isOpen) void listen().catch(fail);
});
navigator.mediaDevices?.addEventListener?.("devicechange", async () => {
  view.listMicrophones(await listMicrophones(), remembered("microphone"));
});

// -- push to talk --------------------------------------------------------------------------------

view.hold.addEventListener("change", () => {
  remember("hold", String(view.hold.checked));
  talk.mode(view.hold.checked);
  letGo();
  showTalk();
  if (live) session.configure();
});
onHold(view.talk, {
  wanted: () => talk.byHand,
  press: () => {
    if (!microphone?.isOpen) return;
    session.interrupt();
    talk.press();
    showTalk();
  },
  release: () => {
    talk.release();
    showTalk();
  },
});

talk.mode(remembered("hold") === "true");
view.hold.checked = talk.byHand;
showTalk();
connection.token = new URLSearchParams(location.hash.slice(1)).get("token");
setInterval(report, REPORT_MS);
setInterval(() => {
  if (serverReady && !document.hidden && chat.known && (chat.starting || !chat.ready || !chat.hears)) void askForEngines();
}, ENGINES_MS);
setInterval(() => void askForAvatars().catch(() => {}), AVATARS_MS);
requestAnimationFrame(paint);
prepare().catch(fail);
