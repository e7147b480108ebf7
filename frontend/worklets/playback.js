// @ts-check
/// <reference types="audioworklet" />
/**
 * One response's audio, played without gaps, and which sample is output when.
 *
 * Messages in:
 *   {type: "audio", turn, samples: Float32Array}  more samples, at the context's rate
 *   {type: "end", turn}                           no more will come
 *   {type: "play", turn}                          begin
 *   {type: "stop", turn}                          forget it all, with a short fade
 * Messages out:
 *   {type: "anchor", turn, contextFrame, sample, running}
 *       from `contextFrame` on, sample number `sample` of the turn is output, and the following
 *       ones after it (`running`) or silence. Sent when that changes, not periodically.
 *   {type: "level", turn, buffered, underruns, overflows}   about eight times a second
 *
 * The queue holds at most MAX_SECONDS. Full: the newest samples are dropped and counted, which a
 * server that paces itself never provokes. Dry: silence, until RESUME_SECONDS are there again.
 */

const MAX_SECONDS = 330;
const RESUME_SECONDS = 0.06;
const FADE_SAMPLES = 480;
const QUANTUM = 128;

class Playback extends AudioWorkletProcessor {
  turn = 0;
  frame = 0; // context frame of the quantum being rendered
  quanta = 0;
  underruns = 0;
  overflows = 0;
  tail = new Float32Array(0); // of what was stopped, fading out
  // -- this turn's
  /** @type {Float32Array[]} */
  queue = [];
  offset = 0; // into queue[0]
  buffered = 0; // samples in the queue
  played = 0; // samples output so far
  wanted = false; // "play" was received
  running = false; // samples are being output
  ended = false; // "end" was received

  constructor() {
    super();
    this.port.onmessage = ({ data }) => this.receive(data);
  }

  reset() {
    this.queue = [];
    this.offset = this.buffered = this.played = 0;
    this.wanted = this.running = this.ended = false;
  }

  /** @param {any} message */
  receive(message) {
    if (message.type === "stop") return this.stop(message.turn);
    if (message.turn !== this.turn) {
      if (message.turn < this.turn) return; // of a response already stopped
      this.reset();
      this.turn = message.turn;
    }
    if (message.type === "audio") this.push(message.samples);
    else if (message.type === "end") this.ended = true;
    else if (message.type === "play") this.wanted = true;
  }

  /** @param {Float32Array} samples */
  push(samples) {
    if (this.buffered + samples.length > MAX_SECONDS * sampleRate) {
      this.overflows += 1;
      return;
    }
    this.queue.push(samples);
    this.buffered += samples.length;
  }

  /** @param {number} turn */
  stop(turn) {
    if (turn < this.turn) return;
    if (this.running) {
      this.tail = new Float32Array(Math.min(FADE_SAMPLES, this.buffered));
      this.read(this.tail);
      this.tail.forEach((sample, i, tail) => (tail[i] = sample * (1 - i / tail.length)));
      this.anchor(this.frame + QUANTUM + this.tail.length, false);
    }
    this.finish();
  }

  /** The turn is over: whatever still comes for it is stale. */
  finish() {
    const turn = this.turn;
    this.reset();
    this.turn = turn + 0.5;
  }

  /**
   * @param {Float32Array[][]} _inputs
   * @param {Float32Array[][]} outputs
   */
  process(_inputs, [[output]]) {
    // Chromium leaves currentFrame as it was for some quanta while the page changes the graph;
    // an anchor made then would be 10 ms off. Quanta follow each other, so they are counted.
    this.frame = Math.max(currentFrame, this.frame + QUANTUM);
    this.transition();
    if (this.running) this.render(output);
    if (this.tail.length) this.mixTail(output);
    if (++this.quanta % 48 === 0) this.report();
    return true;
  }

  /** Start, or go on after running dry. */
  transition() {
    if (this.running || !this.wanted) return;
    if (!this.buffered) {
      if (this.ended) this.finish(); // the end came while it was dry
      return;
    }
    const resumes = this.played > 0 && !this.ended;
    if (resumes && this.buffered < RESUME_SECONDS * sampleRate) return;
    this.running = true;
    this.anchor(this.frame, true);
  }

  /** @param {Float32Array} output */
  render(output) {
    const count = this.read(output);
    if (count === output.length) return;
    this.running = false;
    this.anchor(this.frame + count, false);
    if (this.ended) this.finish();
    else this.underruns += 1;
  }

  /**
   * Take samples from the queue.
   * @param {Float32Array} output
   * @returns {number}  how many there were
   */
  read(output) {
    let at = 0;
    while (at < output.length && this.buffered) {
      const head = this.queue[0];
      const count = Math.min(output.length - at, head.length - this.offset);
      output.set(head.subarray(this.offset, this.offset + count), at);
      this.offset += count;
      this.buffered -= count;
      at += count;
      if (this.offset === head.length) {
        this.queue.shift();
        this.offset = 0;
      }
    }
    this.played += at;
    return at;
  }

  /** What was stopped fades out, under whatever comes next. @param {Float32Array} output */
  mixTail(output) {
    const count = Math.min(output.length, this.tail.length);
    for (let i = 0; i < count; i++) output[i] += this.tail[i];
    this.tail = this.tail.subarray(count);
  }

  /**
   * @param {number} contextFrame
   * @param {boolean} running
   */
  anchor(contextFrame, running) {
    const { turn, played } = this;
    this.port.postMessage({ type: "anchor", turn, contextFrame, sample: played, running });
  }

  report() {
    const { turn, buffered, underruns, overflows } = this;
    this.port.postMessage({ type: "level", turn, buffered, underruns, overflows });
  }
}

registerProcessor("playback", Playback);
