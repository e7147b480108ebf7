// @ts-check
/// <reference types="audioworklet" />
/**
 * Microphone samples, in blocks that are worth a message.
 *
 * Messages out: Float32Array of `blockSamples` mono samples at the context's rate (transferred).
 * Messages in: none. Never allocates per quantum, only per block.
 */
class Capture extends AudioWorkletProcessor {
  /** @param {{processorOptions?: {blockSamples?: number}}} options */
  constructor({ processorOptions }) {
    super();
    this.size = processorOptions?.blockSamples ?? 960;
    this.block = new Float32Array(this.size);
    this.filled = 0;
  }

  /** @param {Float32Array[][]} inputs */
  process([channels]) {
    if (!channels.length) return true;
    const length = channels[0].length;
    for (let i = 0; i < length; i++) {
      let sample = 0;
      for (const channel of channels) sample += channel[i];
      this.block[this.filled++] = sample / channels.length;
      if (this.filled === this.size) {
        this.port.postMessage(this.block, [this.block.buffer]);
        this.block = new Float32Array(this.size);
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
