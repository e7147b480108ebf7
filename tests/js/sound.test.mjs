// Resampling without seams, backing off without crowding, and percentiles.
import assert from "node:assert/strict";
import { test } from "node:test";
import { backoffMs } from "../../frontend/js/connection.js";
import { Numbers, percentile } from "../../frontend/js/numbers.js";
import { Resampler } from "../../frontend/js/resampler.js";

const sine = (rate, seconds, hz) =>
  Float32Array.from({ length: rate * seconds }, (_, n) => Math.sin((2 * Math.PI * hz * n) / rate));

function resample(samples, from, to, block) {
  const resampler = new Resampler(from, to);
  const parts = [];
  for (let at = 0; at < samples.length; at += block) {
    parts.push(...resampler.push(samples.slice(at, at + block)));
  }
  return Float32Array.from([...parts, ...resampler.flush()]);
}

for (const [from, to] of [
  [24000, 48000],
  [48000, 24000],
  [24000, 44100],
  [44100, 24000],
  [24000, 24000],
]) {
  test(`${from} to ${to} Hz: same pitch, same time, same length`, () => {
    const output = resample(sine(from, 0.5, 440), from, to, 480);
    const wanted = sine(to, 0.5, 440);
    assert.equal(output.length, wanted.length);
    // The edges see the silence outside; between them sample n stands for time n / rate.
    const edge = Math.round(to * 0.005);
    let worst = 0;
    for (let n = edge; n < wanted.length - edge; n++) {
      worst = Math.max(worst, Math.abs(output[n] - wanted[n]));
    }
    assert.ok(worst < 1e-3, `off by ${worst}`);
  });
}

test("how the sound is cut into blocks changes nothing", () => {
  const input = sine(44100, 0.2, 1000);
  assert.deepEqual(resample(input, 44100, 24000, 128), resample(input, 44100, 24000, 5000));
});

test("what would alias is filtered out", () => {
  const output = resample(sine(48000, 0.5, 18000), 48000, 24000, 960).slice(200, -200);
  assert.ok(Math.max(...output.map(Math.abs)) < 1e-3);
});

test("reconnecting waits longer each time, up to a bound, never the same for all", () => {
  assert.equal(backoffMs(0, 0.5), 300);
  assert.equal(backoffMs(2, 0.5), 1200);
  assert.equal(backoffMs(50, 0.5), 8000);
  assert.ok(backoffMs(3, 0) < backoffMs(3, 0.99));
});

test("percentiles are nearest-rank, and nothing has none", () => {
  const values = Array.from({ length: 100 }, (_, i) => i + 1);
  assert.equal(percentile(values, 0.5), 50);
  assert.equal(percentile(values, 0.99), 99);
  assert.ok(Number.isNaN(percentile([], 0.5)));
});

test("the frame rate is of the last two seconds", () => {
  const numbers = new Numbers();
  for (let i = 0; i < 100; i++) numbers.frame(i * 40, 0, 40);
  assert.equal(Math.round(numbers.fps(3960)), 25);
  assert.equal(numbers.fps(9000), 0);
});

test("a frame counts as late beyond the limit, not at it", () => {
  const numbers = new Numbers();
  assert.ok(!numbers.frame(0, -40, 40));
  assert.ok(numbers.frame(1, -41, 40));
  assert.equal(numbers.late, 1);
});
