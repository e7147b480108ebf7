// @ts-check
/**
 * The voice: PCM16 in, sound out, and the moment of the response that is heard.
 *
 * Owns the playback worklet. Where there is no output, a turn plays in silence: its position moves
 * by the wall clock, so that the face and the captions go on. Knows nothing of frames or the
 * network.
 */

import { PlayedTimeline, SilentTimeline } from "./clock.js";
import { floatFromPcm16 } from "./protocol.js";
import { Resampler } from "./resampler.js";

export class Player {
  /**
   * @param {import("./output.js").Output} output
   * @param {number} rate  Hz of what will be pushed
   */
  constructor(output, rate) {
    this.output = output;
    this.rate = rate;
    this.timeline = new PlayedTimeline();
    this.silence = new SilentTimeline();
    this.resampler = new Resampler(rate, output.sampleRate);
    /** This turn plays without sound. */
    this.silent = false;
    /** @type {Promise<void> | undefined} */
    this.opening = undefined;
    this.turn = 0;
    this.received = 0; // samples of this turn, at `rate`
    this.ended = false;
    this.started = false;
    this.level = { buffered: 0, underruns: 0, overflows: 0 };
    /** The turn's sound has had a gap: it came too late. */
    this.hasRunDry = false;
  }

  /** Load the worklet, waiting `patienceMs` at most. Without it the output counts as missing. */
  async open(patienceMs = 3000) {
    this.opening ??= this.#load();
    const timer = new Promise((resolve) => setTimeout(resolve, patienceMs));
    await Promise.race([this.opening, timer]);
    if (!this.node) this.output.fail(true);
  }

  async #load() {
    const context = this.output.context;
    try {
      if (!context) return;
      await context.audioWorklet.addModule(new URL("../worklets/playback.js", import.meta.url));
      this.node = new AudioWorkletNode(context, "playback", {
        numberOfInputs: 0,
        outputChannelCount: [1],
      });
      this.node.port.onmessage = ({ data }) => this.#receive(data);
      this.node.connect(context.destination);
      this.output.fail(false);
    } catch (error) {
      console.warn("the playback worklet did not load:", error);
    } finally {
      if (!this.node) this.opening = undefined; // the next start tries again
    }
  }

  /** Begin a new turn; the one in progress stops. */
  begin() {
    this.stop();
    this.turn += 1;
    this.received = 0;
    this.ended = false;
    this.started = false;
    this.silent = this.output.state === "missing";
    if (this.resampler.outRate === this.output.sampleRate) this.resampler.reset();
    else this.resampler = new Resampler(this.rate, this.output.sampleRate);
    this.timeline.clear();
    this.silence.clear();
    this.level.buffered = 0;
    this.hasRunDry = false;
  }

  /** @param {Int16Array} samples */
  push(samples) {
    this.received += samples.length;
    if (!this.silent) this.#send(this.resampler.push(floatFromPcm16(samples)));
  }

  /** No more audio will come for this turn. */
  end() {
    if (this.ended) return;
    this.ended = true;
    if (this.silent) return;
    this.#send(this.resampler.flush());
    this.node?.port.postMessage({ type: "end", turn: this.turn });
  }

  play() {
    this.started = true;
    if (this.silent) this.silence.play(this.output.now());
    else this.node?.port.postMessage({ type: "play", turn: this.turn });
  }

  stop() {
    if (this.turn) this.node?.port.postMessage({ type: "stop", turn: this.turn });
  }

  /** There is no output: the rest of this turn plays in silence. */
  goSilent() {
    if (this.silent) return;
    const heardS = this.heardAt(this.output.now()) ?? 0;
    this.stop();
    this.silent = true;
    if (this.started) this.silence.play(this.output.now(), heardS);
  }

  /** The system stopped the output in the middle: nothing is heard, and the position is constant. */
  get paused() {
    return !this.silent && this.output.state !== "running";
  }

  /** Seconds of audio received this turn. */
  get receivedS() {
    return this.received / this.rate;
  }

  /** Seconds of audio that were received and not yet output. */
  get bufferedS() {
    if (!this.started) return this.receivedS;
    if (this.silent) return this.receivedS - (this.heardAt(this.output.now()) ?? 0);
    return this.level.buffered / this.output.sampleRate;
  }

  /**
   * Seconds of the response heard at a performance time; null while it is not playing.
   * @param {number} performanceMs
   * @param {number} [leadS]  how far ahead of its beginning to count, as negative time
   * @returns {number | null}
   */
  heardAt(performanceMs, leadS = 0) {
    if (this.silent) return this.silence.mediaTimeAt(performanceMs, this.receivedS);
    return this.timeline.mediaTimeNear(this.output.contextTimeAt(performanceMs), leadS);
  }

  /** @param {Float32Array} samples */
  #send(samples) {
    if (!samples.length) return;
    const message = { type: "audio", turn: this.turn, samples };
    this.node?.port.postMessage(message, [samples.buffer]);
  }

  /** @param {any} message */
  #receive(message) {
    if (message.turn !== this.turn) return;
    if (message.type === "anchor") {
      const rate = this.output.sampleRate;
      this.timeline.anchor(message.contextFrame / rate, message.sample / rate, message.running);
      this.hasRunDry ||= !message.running && !this.ended;
    } else if (message.type === "level") this.level = message;
  }
}
