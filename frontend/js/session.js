// @ts-check
/**
 * The conversation with the server: what is asked of it, what it says, and the response that is
 * heard now. Knows the player and the wire; nothing of the DOM.
 */

import { Pacing } from "./pacing.js";
import { events, newId, pcm16FromBase64, pcm16FromBytes, sentence, TYPE_FRAME } from "./protocol.js";
import { Away } from "./resume.js";
import { Speech } from "./speech.js";
import { Transcript } from "./transcript.js";
import { Turns } from "./turns.js";

/** An answer that has not begun so long after the user's turn is not waited for any more. */
const THINKING_MS = 30_000;

/**
 * @typedef {import("./protocol.js").Wishes} Wishes
 * @typedef {import("./protocol.js").BinaryMessage} BinaryMessage
 */

export class Session {
  /**
   * @param {object} options
   * @param {import("./connection.js").Connection} options.connection
   * @param {import("./player.js").Player} options.player
   * @param {(picture: Uint8Array) => Promise<ImageBitmap>} options.decode
   * @param {() => import("./idle.js").IdleCycle} options.idle  of the avatar that is shown
   * @param {() => Wishes} options.wishes  asked whenever the session is configured
   * @param {() => number} [options.now]  performance ms
   */
  constructor({ connection, player, decode, idle, wishes, now = () => performance.now() }) {
    this.connection = connection;
    this.player = player;
    this.decode = decode;
    this.idle = idle;
    this.wishes = wishes;
    this.now = now;
    this.transcript = new Transcript();
    this.turns = new Turns();
    /** @type {Speech | null} the response that is being received or played */
    this.speech = null;
    /** The server has begun a response and not ended it, whatever is played here. */
    this.inProgress = false;
    /** The server confirmed our session.update: audio may flow. */
    this.agreed = false;
    /** The server lets the user's speech interrupt the avatar. */
    this.interruptible = true;
    /** The server hears the user speak. */
    this.userSpeaks = false;
    /** What the user says, as far as it is known. */
    this.heardText = "";
    /** @type {number | null} since when an answer is awaited */
    this.thinkingSinceMs = null;
    /** What the user said and did while there was no session, or no connection. */
    this.away = new Away(player.rate);
    /** What the user has chosen is not what was asked for. */
    this.stale = false;
    /** How long responses have to wait before they play: the mirror's, and all others. */
    this.pacing = { live: new Pacing(true), prompt: new Pacing(false) };
    /** `avatar.speak` was sent and not yet answered. */
    this.speakPending = false;
    /** When the user asked for what comes next, for the first-frame figure. */
    this.askedMs = 0;
    /** What the session's turn detection was before the page switched it off. */
    this.turnDetection = undefined;
    /** @type {(speech: Speech) => void} a response begins */
    this.onSpeech = () => {};
    /** @type {() => void} what `speech`, `agreed` or `heardText` are has changed */
    this.onChange = () => {};
    /**
     * Something went wrong, and what to do; an empty text: what was said about it no longer holds.
     * @type {(text: string, about?: import("./view.js").About) => void}
     */
    this.onNotice = () => {};
    /** @type {(over: boolean) => void} the server makes fewer pictures than it should */
    this.onCapacity = () => {};
    /** @type {(id: string) => void} the server counts the idle cycle of this avatar from now on */
    this.onAvatar = () => {};
    /** @type {(avatars: import("./upload.js").AvatarChoice[], fallback: string) => void} the list has changed */
    this.onAvatars = () => {};
    /** The avatar whose idle cycle the server counts. */
    this.avatarId = "";
    connection.onEvent = (event) => this.handlers[event.type]?.(event);
    connection.onBinary = (message) => this.#binary(message);
    connection.onResumed = () => this.#agree(true);
    connection.onAnew = () => {
      this.#reset();
      this.transcript.note("The connection was away for too long. A new conversation begins.");
    };
  }

  // -- what the user does ------------------------------------------------------------------------

  /** Ask for what the user has chosen. */
  configure() {
    const { hold, ...wishes } = /** @type {Wishes & {hold?: boolean}} */ (this.wishes());
    const detects = this.turnDetection !== null;
    const turnDetection = hold ? null : detects ? this.turnDetection : undefined;
    this.stale = !this.connection.send(events.sessionUpdate({ ...wishes, turnDetection }));
  }

  /** The connection is lost. What was received is still heard, if the session can go on. */
  lost() {
    this.agreed = false;
    if (!this.connection.resumption.token) this.#reset();
    this.onChange();
  }

  /** The user has ended it. */
  end() {
    this.#reset();
    this.away.take(false);
  }

  #reset() {
    this.cutOff();
    this.agreed = this.userSpeaks = this.speakPending = this.inProgress = false;
    this.thinkingSinceMs = null;
    this.heardText = "";
  }

  /** Stop the response here; what was shown of it is still reported. */
  cutOff() {
    this.reportPlayback();
    const speech = this.speech;
    this.speech = null;
    if (!speech) return;
    this.#hasSaid(speech);
    this.transcript.avatarEnded(speech.id, speech.over ? "done" : "cut");
    speech.interrupt();
    this.onChange();
  }

  /**
   * Stop the response here and on the server, and report how much of it was heard. One that was
   * asked for and has not begun is revoked.
   */
  interrupt() {
    this.#stopHere();
    if (this.inProgress || this.thinkingSinceMs !== null) this.#tell(events.cancel());
    this.thinkingSinceMs = null;
  }

  /** A message in chat; elsewhere what the avatar is to say. @param {string} text */
  say(text) {
    this.askedMs = this.now();
    if (!this.agreed) return this.away.note({ text });
    if (!["chat", "upstream"].includes(this.wishes().mode)) {
      this.speakPending = this.connection.send(events.speak(text));
      return;
    }
    this.interrupt();
    const itemId = newId("item");
    this.transcript.userSaid(itemId, text);
    this.heardText = text;
    this.connection.send(events.message(itemId, text));
    this.connection.send(events.answer());
    this.#turnIsOver();
  }

  /** The user says that the turn is over. */
  commit() {
    this.#tell(events.commit());
    this.#turnIsOver();
    if (this.wishes().mode !== "mirror") this.#tell(events.answer());
  }

  /** What was said since the last turn is none. */
  drop() {
    this.#tell(events.clearInput());
  }

  /** The user speaks. @param {Int16Array<ArrayBuffer>} block */
  hear(block) {
    if (!this.agreed || !this.connection.sendAudio(block)) this.away.hear(block);
  }

  /** At once, or when the connection is back. @param {object} event */
  #tell(event) {
    if (!this.connection.send(event)) this.away.note({ event });
  }

  /** The server and the page are at one. @param {boolean} isSameSession */
  #agree(isSameSession) {
    this.agreed = true;
    if (this.stale) this.configure();
    for (const said of this.away.take(isSameSession)) {
      if ("audio" in said) this.connection.sendAudio(said.audio);
      else if ("text" in said) this.say(said.text);
      else this.connection.send(said.event);
    }
    this.onChange();
  }

  // -- what is heard -----------------------------------------------------------------------------

  /** At each animation frame, and on a timer where the page is hidden. @param {number} nowMs */
  tick(nowMs) {
    const speech = this.speech;
    if (!speech) return;
    speech.tick(nowMs);
    if (!speech.started) return;
    this.thinkingSinceMs = null;
    if (!speech.isHeard && (speech.heardAt(nowMs) ?? 0) > 0) {
      speech.isHeard = true;
      this.turns.heard(speech.id, nowMs);
      this.reportPlayback(); // the server's times of the turn end here
    }
    this.#hasSaid(speech);
  }

  /** A response was heard and seen to its end. @param {Speech} speech */
  finished(speech) {
    if (this.speech !== speech) return;
    this.reportPlayback();
    this.#hasSaid(speech);
    this.transcript.avatarEnded(speech.id, "done");
    this.speech = null;
    this.onChange();
  }

  reportPlayback() {
    const speech = this.speech;
    if (!speech?.started) return;
    const positionMs = speech.positionS(this.now()) * 1000;
    const { shown } = speech.frames.counts;
    this.connection.send(events.playback(speech.id, positionMs, shown, speech.late));
  }

  /** An answer is awaited: the user's turn is over, and nothing of it is heard yet. */
  get thinking() {
    if (this.speech && !this.speech.started) return !this.speech.live;
    const sinceMs = this.thinkingSinceMs;
    return sinceMs !== null && this.now() - sinceMs < THINKING_MS;
  }

  // -- what the server says ----------------------------------------------------------------------

  /** @type {Record<string, (event: any) => void>} */
  handlers = {
    "session.created": ({ session }) => {
      this.turnDetection = session.audio?.input?.turn_detection ?? undefined;
      this.#takeAvatar(session.avatar.id);
      this.configure();
    },
    "session.updated": ({ session }) => {
      if (session.avatar.id !== this.avatarId) this.#takeAvatar(session.avatar.id);
      this.interruptible = session.audio?.input?.turn_detection?.interrupt_response !== false;
      if (this.agreed) this.onChange();
      else this.#agree(false);
    },
    "input_audio_buffer.speech_started": ({ item_id }) => {
      this.userSpeaks = true;
      this.thinkingSinceMs = null;
      this.heardText = "";
      // Barge-in. The server stops the response itself; it may have sent all of it long ago, and
      // what is left plays here. A mirror's own speech goes on.
      if (this.interruptible && !this.speech?.live) this.#stopHere();
      this.transcript.userBegan(item_id);
      this.onChange();
    },
    "input_audio_buffer.speech_stopped": () => {
      this.askedMs = this.now();
      this.userSpeaks = false;
      this.#turnIsOver();
    },
    "input_audio_buffer.committed": ({ item_id }) => this.transcript.userCommitted(item_id),
    "conversation.item.input_audio_transcription.delta": ({ item_id, delta }) => {
      this.heardText = this.transcript.userDelta(item_id, delta);
      this.onChange();
    },
    "conversation.item.input_audio_transcription.completed": ({ item_id, transcript }) => {
      this.transcript.userSaid(item_id, transcript);
      this.heardText = transcript.trim();
      this.onNotice("", "hearing");
      this.onChange();
    },
    "conversation.item.input_audio_transcription.failed": ({ item_id, error }) => {
      this.transcript.userFailed(item_id);
      this.thinkingSinceMs = null;
      const why = error?.message ?? "Say it again, or type it.";
      this.onNotice(`What you said was not understood. ${why}`, "hearing");
    },
    "response.created": ({ response }) => this.#begin(response),
    "response.output_item.added": ({ response_id, item }) => {
      const current = this.#current(response_id);
      if (current && item.type === "message") current.itemId = item.id;
    },
    "response.output_audio.delta": ({ response_id, delta }) => {
      this.#current(response_id)?.audio(pcm16FromBase64(delta), this.now());
    },
    "response.output_audio.done": ({ response_id }) => this.#current(response_id)?.endAudio(),
    "response.output_audio_transcript.delta": ({ response_id, delta }) => {
      this.#current(response_id)?.spoken.add(delta, this.player.receivedS);
    },
    "response.audio_timestamp.delta": (event) => {
      const { response_id, text, audio_offset_ms, audio_duration_ms } = event;
      const spoken = this.#current(response_id)?.spoken;
      spoken?.time(text, audio_offset_ms / 1000, audio_duration_ms / 1000);
    },
    "response.done": ({ response }) => this.#done(response),
    "session.avatar.switch_to_speaking": ({ turn_id, cycle_index }) => {
      const current = this.#current(turn_id);
      if (current) current.cycleIndex = cycle_index;
    },
    "session.avatar.switch_to_idle": ({ turn_id, frame_index }) => {
      const current = this.#current(turn_id);
      if (current) current.endFrame = frame_index;
    },
    "avatar.turn": (event) => this.turns.told(event),
    "avatar.capacity": ({ over }) => this.onCapacity(Boolean(over)),
    "avatar.list.updated": (event) => this.onAvatars(event.avatars, event.default ?? ""),
    error: ({ error }) => {
      this.speakPending = false;
      if (error.code === "response_cancel_not_active") return; // it ended as we interrupted it
      this.thinkingSinceMs = null;
      this.onNotice(sentence(error));
    },
  };

  /** @param {{id: string, generation?: number}} response */
  #begin(response) {
    this.cutOff();
    this.inProgress = true;
    this.onNotice("", "answer");
    // The next response after `avatar.speak` is its answer; any other in this mode is the mirror.
    const isMirror = this.wishes().mode === "mirror" && !this.speakPending;
    this.speakPending = false;
    if (isMirror) this.askedMs = this.now();
    else this.turns.answered(response.id);
    this.speech = new Speech({
      id: response.id,
      generation: (response.generation ?? 0) & 0xffff,
      pacing: isMirror ? this.pacing.live : this.pacing.prompt,
      player: this.player,
      decode: this.decode,
      idle: this.idle(),
    });
    this.transcript.avatarBegan(response.id);
    this.onSpeech(this.speech);
    this.onChange();
  }

  /** @param {any} response */
  #done({ id, status, status_details }) {
    this.inProgress = false;
    this.thinkingSinceMs = null;
    if (status === "failed") {
      this.speakPending = false;
      const why = status_details?.error?.message;
      this.onNotice(why ?? "The server could not answer. Try again.", "answer");
    }
    const current = this.#current(id);
    if (!current) return;
    current.complete = true;
    // What was received of a response that ended early is still to be heard; not of one cut off.
    if (status === "cancelled") this.cutOff();
    else current.endAudio();
  }

  /** @param {BinaryMessage} message */
  #binary(message) {
    const speech = this.speech;
    if (!speech || message.generation !== speech.generation) return;
    if (message.type === TYPE_FRAME) speech.frame(message, this.now());
    else speech.audio(pcm16FromBytes(message.payload), this.now());
    if (!speech.started) speech.tick(this.now()); // a hidden page has no animation frames
  }

  /** The current response, if it is this one: what comes for another is stale. @param {string} id */
  #current(id) {
    return this.speech?.id === id ? this.speech : null;
  }

  /** Silence, and the server is told to what place the response was heard. */
  #stopHere() {
    const speech = this.speech;
    if (!speech) return;
    const heardS = speech.positionS(this.now());
    this.cutOff();
    if (speech.itemId) this.#tell(events.truncate(speech.itemId, heardS * 1000));
  }

  #turnIsOver() {
    const { mode } = this.wishes();
    if (mode === "mirror") return;
    this.thinkingSinceMs = this.now();
    this.turns.over(this.now());
    this.onChange();
  }

  /** @param {Speech} speech */
  #hasSaid(speech) {
    const said = speech.started ? speech.saidAt(this.now()) : 0;
    this.transcript.avatarSaid(speech.id, speech.spoken.text.slice(0, said));
  }

  /** @param {string} id */
  #takeAvatar(id) {
    this.avatarId = id;
    this.onAvatar(id);
  }
}
