// @ts-check
/**
 * The voice: PCM16 in, sound out, and the moment of the response that is heard.
 *
 * Owns the AudioContext's output and the playback worklet. Knows nothing of frames or the network.
 */

import { OutputClock, PlayedTimeline } from "./clock.js";
import { floatFromPcm16 } from "./protocol.js";
import { Resampler } from "./resampler.js";

export class Player {
  /**
   * @param {AudioContext} context
   * @param {number} rate  Hz of what will be pushed
   */
  constructor(context, rate) {
    this.context = context;
    this.rate = rate;
    this.clock = new OutputClock();
    this.timeline = new PlayedTimeline();
    this.resampler = new Resampler(rate, context.sampleRate);
    this.turn = 0;
    this.received = 0; // samples of this turn, at `rate`
    this.level = { buffered: 0, underruns: 0, overflows: 0 };
    /** Called when the turn's last sample was output. */
    this.onEnded = () => {};
  }

  async open() {
    await this.context.audioWorklet.addModule(new URL("../worklets/playback.js", import.meta.url));
    this.node = new AudioWorkletNode(this.context, "playback", {
      numberOfInputs: 0,
      outputChannelCount: [1],
    });
    this.node.port.onmessage = ({ data }) => this.#receive(data);
    this.node.connect(this.context.destination);
  }

  /** Begin a new turn; the one in progress stops. */
  begin() {
    this.stop();
    this.turn += 1;
    this.received = 0;
    this.ended = false;
    this.started = false;
    this.resampler.reset();
    this.timeline.clear();
    this.level.buffered = 0;
  }

  /** @param {Int16Array} samples */
  push(samples) {
    this.received += samples.length;
    this.#send(this.resampler.push(floatFromPcm16(samples)));
  }

  /** No more audio will come for this turn. */
  end() {
    if (this.ended) return;
    this.ended = true;
    this.#send(this.resampler.flush());
    this.node?.port.postMessage({ type: "end", turn: this.turn });
  }

  play() {
    this.started = true;
    this.node?.port.postMessage({ type: "play", turn: this.turn });
  }

  stop() {
    if (this.turn) this.node?.port.postMessage({ type: "stop", turn: this.turn });
  }

  /** Seconds of audio received this turn. */
  get receivedS() {
    return this.received / this.rate;
  }

  /** Seconds of audio in hand, not yet output. */
  get bufferedS() {
    return this.started ? this.level.buffered / this.context.sampleRate : this.receivedS;
  }

  /** Read the output clock; once per animation frame. */
  tick() {
    this.clock.update(this.context.getOutputTimestamp());
  }

  /**
   * Seconds of the response heard at a performance time; null while it is not playing.
   * @param {number} performanceMs
   * @param {number} [leadS]  how far ahead of its beginning to count, as negative time
   * @returns {number | null}
   */
  heardAt(performanceMs, leadS = 0) {
    return this.timeline.mediaTimeNear(this.clock.contextTimeAt(performanceMs), leadS);
  }

  async close() {
    this.stop();
    this.node?.disconnect();
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
      const rate = this.context.sampleRate;
      this.timeline.anchor(message.contextFrame / rate, message.sample / rate, message.running);
    } else if (message.type === "level") this.level = message;
    else if (message.type === "ended") this.onEnded();
  }
}
