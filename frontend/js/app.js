// @ts-check
/**
 * The page: connects the modules, the user's actions and the server's events.
 */

import { LATE_MS, livePrerollMs } from "./clock.js";
import { Connection } from "./connection.js";
import { Face } from "./face.js";
import { IdleCycle } from "./idle.js";
import { remember, remembered } from "./memory.js";
import { Microphone, MicrophoneError, listMicrophones } from "./microphone.js";
import { Numbers, percentile } from "./numbers.js";
import { Output } from "./output.js";
import { Player } from "./player.js";
import { events, pcm16FromBase64, pcm16FromBytes, TYPE_JPEG } from "./protocol.js";
import { Speech } from "./speech.js";
import { View } from "./view.js";

const RATE = 24_000;
const REPORT_MS = 500;

const query = new URLSearchParams(location.search);
const view = new View();
const face = new Face(view.canvas);
const numbers = new Numbers();
const connection = new Connection(realtimeUrl);
const output = new Output();
const player = new Player(output, RATE);

/** @type {Microphone | null} */
let microphone = null;
/** @type {Speech | null} the response that is being received or played */
let speech = null;
/** The user started a session. */
let live = false;
/** The server confirmed our session.update: audio may flow. */
let agreed = false;
/** The server lets the user's speech interrupt the avatar. */
let interruptible = true;
/** @type {string | null} text to speak once there is a session */
let unsaid = null;
/** @type {number | null} between frames of the last live response */
let longestPauseMs = null;
/** `avatar.speak` was sent and not yet answered. */
let speakPending = false;
/** When the user asked for what comes next, for the first-frame figure. */
let askedMs = 0;
let avatarId = "";
/** The avatar whose idle cycle the server counts. */
let serverAvatarId = "";
let serverReady = false;

function realtimeUrl() {
  const url = new URL("v1/realtime", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.hash = "";
  url.search = new URLSearchParams({ avatar: avatarId }).toString();
  return url.href;
}

/** @param {Uint8Array} jpeg */
function decode(jpeg) {
  return createImageBitmap(new Blob([/** @type {BlobPart} */ (jpeg)], { type: "image/jpeg" }));
}

// -- before a session: the server, the avatars ---------------------------------------------------

/** @param {number} ms */
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function untilServerIsReady() {
  for (;;) {
    try {
      const response = await fetch("readyz", { cache: "no-store" });
      if (response.ok) return;
      view.phase("loading", "The server is loading its model");
    } catch {
      view.phase("waiting", "No server yet");
    }
    await pause(1000);
  }
}

async function prepare() {
  view.phase("loading", "Getting ready");
  await untilServerIsReady();
  const listed = await (await fetch("api/avatars")).json();
  /** @type {import("./view.js").AvatarChoice[]} */
  const avatars = listed.avatars;
  if (!avatars.length) throw new Error("The server has no avatars. Add one to its avatars folder.");
  const wished = [query.get("avatar"), remembered("avatar"), listed.default];
  const found = wished.find((id) => avatars.some((avatar) => avatar.id === id));
  const chosen = found ?? avatars[0].id;
  view.listAvatars(avatars, chosen, (id) => void useAvatar(id).catch(fail));
  await useAvatar(chosen);
  serverReady = true;
  view.start.disabled = view.speakSend.disabled = false;
  showPhase();
}

/** Show an avatar; a session in progress changes with it. @param {string} id */
async function useAvatar(id) {
  avatarId = id;
  const idle = new IdleCycle(id, decode);
  cutOff();
  view.progress(0);
  const loaded = idle.load((share) => view.progress(share));
  face.setIdle(idle);
  try {
    await loaded;
  } catch (error) {
    if (idle.abort.signal.aborted) return; // another one was chosen meanwhile
    throw error;
  }
  view.progress(1);
  remember("avatar", id);
  face.restart(performance.now());
  if (agreed) updateSession();
}

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
  microphone.onBlock = (samples) => {
    if (agreed) connection.sendAudio(samples);
  };
  microphone.onLost = () => {
    view.notice("The microphone was disconnected. Choose another one.");
    microphone?.close();
    view.live(false);
  };
  try {
    await microphone.open(view.microphone.value);
    if (!live) return end(); // stopped while the browser was asking
    view.live(true);
    view.listMicrophones(await listMicrophones(), view.microphone.value);
  } catch (error) {
    if (!(error instanceof MicrophoneError)) throw error;
    view.notice(error.message);
  }
}

function end() {
  live = agreed = false;
  cutOff();
  connection.close();
  microphone?.close();
  view.live(false);
  view.caption("heard", "");
  view.overCapacity(false);
  output.stop();
  showPhase();
}

function updateSession() {
  connection.send(
    events.sessionUpdate({
      avatar: avatarId,
      mode: view.mode,
      region: query.get("region") === "mouth" ? "mouth" : "full",
      inputRate: RATE,
      outputRate: RATE,
    }),
  );
}

/** Stop the response here; what was shown of it is still reported. */
function cutOff() {
  reportPlayback();
  speech?.interrupt();
  speech = null;
  view.interrupt.disabled = true;
}

/** Stop the response here and on the server, and report how much of it was heard. */
function interrupt() {
  if (!speech) return;
  const { complete, itemId } = speech;
  const heardS = speech.positionS(performance.now());
  cutOff();
  if (!complete) connection.send(events.cancel());
  if (itemId) connection.send(events.truncate(itemId, heardS * 1000));
  showPhase();
}

/** @param {string} text */
function speak(text) {
  askedMs = performance.now();
  if (agreed) speakPending = connection.send(events.speak(text));
  else {
    unsaid = text;
    if (!live) void begin(false).catch(fail);
  }
}

// -- what the server says ------------------------------------------------------------------------

/** @type {Record<string, (event: any) => void>} */
const handlers = {
  "session.created": ({ session }) => {
    takeAvatar(session.avatar.id);
    updateSession();
  },
  "session.updated": ({ session }) => {
    if (session.avatar.id !== serverAvatarId) takeAvatar(session.avatar.id);
    agreed = true;
    interruptible = session.audio?.input?.turn_detection?.interrupt_response !== false;
    view.clearConnectionNotice();
    showPhase();
    if (unsaid !== null) speak(unsaid);
    unsaid = null;
  },
  "input_audio_buffer.speech_started": () => {
    // Barge-in. The server may have sent everything long ago: what is left plays here.
    if (view.mode === "mirror") return;
    if (speech && interruptible) interrupt();
    view.caption("heard", "…");
  },
  "input_audio_buffer.speech_stopped": () => {
    askedMs = performance.now();
    view.caption("heard", "");
  },
  "conversation.item.input_audio_transcription.completed": ({ transcript }) => {
    view.caption("heard", transcript);
  },
  "response.created": ({ response }) => beginSpeech(response),
  "response.output_item.added": ({ response_id, item }) => {
    const current = speaking(response_id);
    if (current) current.itemId = item.id;
  },
  "response.output_audio.delta": ({ response_id, delta }) => {
    speaking(response_id)?.audio(pcm16FromBase64(delta), performance.now());
  },
  "response.output_audio.done": ({ response_id }) => speaking(response_id)?.endAudio(),
  "response.output_audio_transcript.delta": ({ response_id, delta }) => {
    const current = speaking(response_id);
    if (current) view.caption("said", (current.transcript += delta));
  },
  "response.done": ({ response }) => {
    if (response.status === "failed") sayWhyItFailed(response.status_details?.error);
    const current = speaking(response.id);
    if (!current) return;
    current.complete = true;
    // What was received of a response that ended early is still to be heard; not of one cut off.
    if (response.status === "cancelled") cutOff();
    else current.endAudio();
  },
  "session.avatar.switch_to_speaking": ({ turn_id, cycle_index }) => {
    const current = speaking(turn_id);
    if (current) current.cycleIndex = cycle_index;
  },
  "session.avatar.switch_to_idle": ({ turn_id, frame_index }) => {
    const current = speaking(turn_id);
    if (current) current.endFrame = frame_index;
  },
  "avatar.capacity": ({ over }) => view.overCapacity(Boolean(over)),
  error: ({ error }) => {
    speakPending = false;
    if (error.code === "response_cancel_not_active") return; // it ended as we interrupted it
    view.notice(error.message);
  },
};

/** @param {{message?: string} | undefined} error */
function sayWhyItFailed(error) {
  speakPending = false;
  view.notice(error?.message ?? "The server could not answer. Try again.");
}

/** The current response, if it is this one: what comes for another is stale. @param {string} id */
function speaking(id) {
  return speech?.id === id ? speech : null;
}

/** The server counts its idle cycle from the moment it took an avatar. @param {string} id */
function takeAvatar(id) {
  serverAvatarId = id;
  face.restart(performance.now());
}

/** @param {{id: string, generation?: number}} response */
function beginSpeech(response) {
  cutOff();
  // The next response after `avatar.speak` is its answer; any other in this mode is the mirror.
  const isMirror = view.mode === "mirror" && !speakPending;
  speakPending = false;
  if (isMirror) askedMs = performance.now();
  speech = new Speech({
    id: response.id,
    generation: (response.generation ?? 0) & 0xffff,
    livePrerollMs: isMirror ? livePrerollMs(longestPauseMs) : null,
    player,
    decode,
  });
  numbers.firstFrameMs = null;
  face.play(speech);
  view.caption("said", "");
  view.interrupt.disabled = false;
}

connection.onEvent = (/** @type {any} */ event) => handlers[event.type]?.(event);

connection.onBinary = (/** @type {import("./protocol.js").BinaryMessage} */ message) => {
  if (!speech || message.generation !== speech.generation) return;
  if (message.type === TYPE_JPEG) speech.frame(message, performance.now());
  else speech.audio(pcm16FromBytes(message.payload), performance.now());
};

/**
 * @param {import("./connection.js").ConnectionState} state
 * @param {string} reason
 */
connection.onState = (state, reason) => {
  if (state === "open") return;
  agreed = false;
  view.overCapacity(false);
  if (state === "lost") {
    cutOff();
    const because = reason ? ` (${reason})` : "";
    view.notice(`The connection to the server was lost${because}. Reconnecting…`, "connection");
  }
  showPhase();
};

// -- the sound -----------------------------------------------------------------------------------

/** @param {import("./output.js").OutputState} state */
output.onState = (state) => {
  if (state === "missing") player.goSilent();
  if (state === "paused") view.sound("paused");
  else if (state === "missing") view.sound("missing", whatIsMissing());
  else if (state !== "starting") view.sound("ok");
  report();
};

function whatIsMissing() {
  const face = "Until then you see the avatar speak without its voice.";
  const policy = /** @type {any} */ (navigator).getAutoplayPolicy?.("audiocontext");
  if (policy === "disallowed") {
    return `The browser blocks sound on this page. Allow it in the address bar’s site settings, then tap anywhere. ${face}`;
  }
  return `Sound does not start. Connect a loudspeaker or headphones, then tap anywhere. ${face}`;
}

function tryAgain() {
  output.resume();
  if (live && output.broken) void player.open();
}

// Browsers let a page start sound again only in some of these, each in others.
for (const gesture of ["pointerup", "touchend", "click", "keydown"]) {
  window.addEventListener(gesture, tryAgain, { capture: true, passive: true });
}
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) tryAgain();
});

// -- what the user sees --------------------------------------------------------------------------

function showPhase() {
  if (!serverReady) return;
  if (!live) view.phase("ready", "Ready");
  else if (!agreed && connection.attempt) view.phase("waiting", "Reconnecting");
  else if (!agreed) view.phase("connecting", "Connecting");
  else if (output.state === "paused") view.phase("waiting", "Sound paused");
  else if (speech?.silent) view.phase("speaking", "Speaking, no sound");
  else if (speech?.started && output.state === "starting") view.phase("connecting", "Starting sound");
  else if (speech?.started) view.phase("speaking", "Speaking");
  else if (microphone?.level) view.phase("listening", "Listening");
  else view.phase("listening", "Connected");
}

/**
 * @param {import("./frames.js").Frame} _frame
 * @param {number} errorMs
 * @param {number} paintMs
 */
face.onFrame = (_frame, errorMs, paintMs) => {
  const isLate = numbers.frame(paintMs, errorMs, LATE_MS);
  if (isLate && speech) speech.late += 1;
  numbers.firstFrameMs ??= paintMs - askedMs;
};

face.onRest = (/** @type {Speech} */ done) => {
  if (done.live && done.frames.counts.received > 25) longestPauseMs = done.longestPauseMs;
  numbers.dropped += done.frames.counts.dropped + done.frames.counts.failed;
  if (speech !== done) return;
  report();
  speech = null;
  view.interrupt.disabled = true;
  showPhase();
};

/** @param {number} timestampMs */
function paint(timestampMs) {
  output.tick();
  speech?.tick(timestampMs);
  face.draw(timestampMs);
  showPhase();
  view.microphoneLevel(microphone?.level ?? 0, timestampMs);
  requestAnimationFrame(paint);
}

/** Twice a second, also where the page is hidden and paints nothing. */
function report() {
  output.tick();
  speech?.tick(performance.now());
  reportPlayback();
  showNumbers();
  showPhase();
}

function reportPlayback() {
  if (!speech?.started) return;
  const positionMs = speech.positionS(performance.now()) * 1000;
  connection.send(events.playback(speech.id, positionMs, speech.frames.counts.shown, speech.late));
}

/**
 * @param {number | null} value
 * @param {string} unit
 * @param {number} [digits]
 */
function written(value, unit, digits = 0) {
  return value === null || !Number.isFinite(value) ? "–" : `${value.toFixed(digits)} ${unit}`;
}

function showNumbers() {
  const counts = speech?.frames.counts;
  const dropped = numbers.dropped + (counts ? counts.dropped + counts.failed : 0);
  view.numbers({
    first: written(numbers.firstFrameMs, "ms"),
    fps: speech?.started ? written(numbers.fps(performance.now()), "fps", 1) : "–",
    p50: written(percentile(numbers.errors, 0.5), "ms", 1),
    p99: written(percentile(numbers.errors, 0.99), "ms", 1),
    shown: String(numbers.shown),
    dropped: `${dropped} / ${numbers.late}`,
    audio: speech ? written(player.bufferedS * 1000, "ms") : "–",
    video: speech ? String(speech.frames.waiting) : "–",
  });
}

/** @param {unknown} error */
function fail(error) {
  console.error(error);
  view.notice(error instanceof Error ? error.message : String(error));
}

// -- what the user does --------------------------------------------------------------------------

view.start.addEventListener("click", () => {
  if (microphone?.isOpen) end();
  else void begin(true).catch(fail);
});
view.interrupt.addEventListener("click", interrupt);
document.addEventListener("keydown", ({ key }) => {
  if (key === "Escape") interrupt();
});
view.speakForm.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = view.speakText.value.trim();
  if (!text || !serverReady) return;
  view.speakText.value = "";
  speak(text);
});
for (const input of view.modes) {
  input.addEventListener("change", () => {
    remember("mode", view.mode);
    cutOff();
    if (agreed) updateSession();
  });
}
view.microphone.addEventListener("change", () => {
  if (microphone?.isOpen) void listen().catch(fail);
});
navigator.mediaDevices?.addEventListener?.("devicechange", async () => {
  view.listMicrophones(await listMicrophones(), view.microphone.value);
});

const mode = query.get("mode") ?? remembered("mode");
view.mode = mode === "parrot" ? "parrot" : "mirror";
connection.token = new URLSearchParams(location.hash.slice(1)).get("token");
setInterval(report, REPORT_MS);
requestAnimationFrame(paint);
prepare().catch(fail);
