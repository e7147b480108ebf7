// @ts-check
/**
 * Stateful resampling between any two rates, without seams between blocks. Pure.
 *
 * A Kaiser-windowed sinc, evaluated at the exact position of every output sample; its delay is
 * made up for, so output sample n is at n / outRate on the input's own timeline.
 */

const HALF_WIDTH = 16; // zero crossings on each side
const PHASES = 512; // table rows between two input samples, interpolated linearly
const BETA = 8.6; // about -85 dB

/** @param {number} x  modified Bessel function of the first kind, order 0 */
function bessel0(x) {
  let sum = 1;
  let term = 1;
  for (let k = 1; k < 32; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

/**
 * @param {number} cutoff  of the input's Nyquist rate, (0, 1]
 * @param {number} half  taps on each side
 */
function kernel(cutoff, half) {
  const table = new Float32Array((half + 1) * PHASES + 1);
  for (let i = 0; i < table.length; i++) {
    const x = i / PHASES;
    if (x >= half) continue;
    const window = bessel0(BETA * Math.sqrt(1 - (x / half) ** 2)) / bessel0(BETA);
    const phase = Math.PI * cutoff * x;
    table[i] = window * cutoff * (x === 0 ? 1 : Math.sin(phase) / phase);
  }
  return table;
}

export class Resampler {
  /** Input from sample number `start` on; zeros before the beginning. */
  pending = new Float32Array(0);
  start = 0;
  total = 0; // input samples so far
  produced = 0; // output samples so far

  /**
   * @param {number} inRate  Hz
   * @param {number} outRate  Hz
   */
  constructor(inRate, outRate) {
    this.inRate = inRate;
    this.outRate = outRate;
    const narrow = Math.min(1, outRate / inRate);
    this.half = Math.ceil(HALF_WIDTH / narrow);
    this.table = kernel(narrow * 0.96, this.half);
    this.reset();
  }

  reset() {
    this.pending = new Float32Array(this.half);
    this.start = -this.half;
    this.total = 0;
    this.produced = 0;
  }

  /**
   * @param {Float32Array} samples  at inRate
   * @returns {Float32Array}  at outRate: what can be computed for good
   */
  push(samples) {
    this.total += samples.length;
    if (this.inRate === this.outRate) return samples;
    this.#append(samples);
    return this.#produce(Math.floor(((this.total - this.half) * this.outRate) / this.inRate));
  }

  /**
   * The input has ended.
   * @returns {Float32Array}  the rest
   */
  flush() {
    const rest = this.inRate === this.outRate ? new Float32Array(0) : this.#tail();
    this.reset();
    return rest;
  }

  #tail() {
    this.#append(new Float32Array(this.half + 1));
    return this.#produce(Math.round((this.total * this.outRate) / this.inRate));
  }

  /** @param {Float32Array} samples */
  #append(samples) {
    const joined = new Float32Array(this.pending.length + samples.length);
    joined.set(this.pending);
    joined.set(samples, this.pending.length);
    this.pending = joined;
  }

  /** @param {number} end  produce output samples up to this number */
  #produce(end) {
    const count = Math.max(0, end - this.produced);
    const output = new Float32Array(count);
    for (let n = 0; n < count; n++) {
      output[n] = this.#at(((this.produced + n) * this.inRate) / this.outRate - this.start);
    }
    this.produced += count;
    const keepFrom = Math.floor((this.produced * this.inRate) / this.outRate) - this.half;
    const cut = Math.min(Math.max(0, keepFrom - this.start), this.pending.length);
    this.pending = this.pending.slice(cut);
    this.start += cut;
    return output;
  }

  /** @param {number} position  in `pending`, fractional */
  #at(position) {
    const middle = Math.floor(position);
    const first = Math.max(0, middle - this.half + 1);
    const last = Math.min(this.pending.length - 1, middle + this.half);
    let sum = 0;
    for (let i = first; i <= last; i++) {
      const x = Math.abs(position - i) * PHASES;
      const row = Math.floor(x);
      const a = this.table[row];
      sum += this.pending[i] * (a + (this.table[row + 1] - a) * (x - row));
    }
    return sum;
  }
}
