// One response's frames: in order, bounded, and never one that is not due.
import assert from "node:assert/strict";
import { test } from "node:test";
import { FrameQueue, cycleIndex, cyclePosition } from "../../frontend/js/frames.js";

const INTERVAL_MS = 1000 / 60;

/** A queue whose bitmaps remember whether they were closed. */
function queue(options = {}) {
  const bitmaps = [];
  const decode = async (data) => {
    if (data[0] === 0xbad) throw new Error("not a picture");
    const bitmap = { index: data[0], closed: false, close: () => (bitmap.closed = true) };
    bitmaps.push(bitmap);
    return bitmap;
  };
  return { frames: new FrameQueue({ decode, ...options }), bitmaps };
}

const message = (index, payload = [index]) => ({
  index,
  ptsUs: index * 40_000,
  region: [0, 0, 8, 8],
  payload,
});
const settle = () => new Promise((resolve) => setImmediate(resolve));

async function filled(count, options) {
  const made = queue(options);
  for (let i = 0; i < count; i++) made.frames.push(message(i));
  await settle();
  return made;
}

test("each frame is shown once, at its own pts", async () => {
  const { frames } = await filled(5);
  const shown = [];
  for (let ms = 0; ms < 200; ms += 10) {
    const { frame, isNew } = frames.take(ms / 1000, 10);
    if (isNew) shown.push([frame.index, ms]);
    await settle();
  }
  assert.deepEqual(shown, [
    [0, 0],
    [1, 40],
    [2, 80],
    [3, 120],
    [4, 160],
  ]);
  assert.equal(frames.counts.dropped, 0);
});

test("what was shown is closed when the next one comes, never while it is on show", async () => {
  const { frames, bitmaps } = await filled(2);
  frames.take(0, INTERVAL_MS);
  assert.ok(!bitmaps[0].closed);
  frames.take(0.04, INTERVAL_MS);
  assert.ok(bitmaps[0].closed);
  assert.ok(!bitmaps[1].closed);
});

test("after a stall the due frame is shown, the ones it missed are dropped and counted", async () => {
  const { frames, bitmaps } = await filled(8);
  frames.take(0, INTERVAL_MS);
  const { frame } = frames.take(0.2, INTERVAL_MS);
  assert.equal(frame.index, 5);
  assert.equal(frames.counts.dropped, 4);
  assert.ok(bitmaps.slice(0, 5).every(({ closed }) => closed));
});

test("frames that come out of order are put in order, doubles are dropped", async () => {
  const { frames } = queue();
  for (const index of [1, 0, 2, 1]) frames.push(message(index));
  await settle();
  assert.deepEqual(
    frames.frames.map(({ index }) => index),
    [0, 1, 2],
  );
  assert.equal(frames.counts.dropped, 1);
});

test("a frame that comes after its successor was shown is dropped", async () => {
  const { frames } = queue();
  frames.push(message(3));
  await settle();
  frames.take(0.12, INTERVAL_MS);
  frames.push(message(2));
  assert.equal(frames.counts.dropped, 1);
  assert.equal(frames.waiting, 0);
});

test("no more are decoded ahead than allowed", async () => {
  const { frames, bitmaps } = await filled(40, { ahead: 6 });
  await settle();
  assert.equal(bitmaps.length, 6);
  frames.take(0, INTERVAL_MS);
  await settle();
  assert.equal(bitmaps.length, 7);
});

test("a full queue drops its oldest", async () => {
  const { frames } = await filled(12, { maxWaiting: 10 });
  assert.equal(frames.waiting, 10);
  assert.equal(frames.frames[0].index, 2);
  assert.equal(frames.counts.dropped, 2);
});

test("a broken picture costs its own frame only", async () => {
  const { frames } = queue();
  frames.push(message(0));
  frames.push(message(1, [0xbad]));
  frames.push(message(2));
  await settle();
  frames.take(0, INTERVAL_MS);
  assert.equal(frames.take(0.04, INTERVAL_MS).isNew, false);
  assert.equal(frames.take(0.08, INTERVAL_MS).frame.index, 2);
  assert.equal(frames.counts.failed, 1);
});

test("a frame that is dropped while it is decoded is counted once, whatever becomes of it", async () => {
  const waiting = [];
  const decode = () => new Promise((done, failed) => waiting.push({ done, failed }));
  const frames = new FrameQueue({ decode });
  for (let i = 0; i < 3; i++) frames.push(message(i));
  frames.take(0.08, INTERVAL_MS);
  assert.equal(frames.counts.dropped, 2);
  waiting[0].failed(new Error("not a picture"));
  await settle();
  assert.equal(frames.counts.failed, 0);
});

test("what an interruption leaves unshown was not dropped", async () => {
  const { frames } = queue();
  for (let i = 0; i < 20; i++) frames.push(message(i));
  await settle();
  frames.take(0, INTERVAL_MS);
  frames.close();
  assert.deepEqual(frames.counts, { received: 20, shown: 1, dropped: 0, failed: 0 });
});

test("nothing is primed before all of the first frames are decoded, or cannot be", async () => {
  const waiting = [];
  const decode = () => new Promise((done, failed) => waiting.push({ done, failed }));
  const frames = new FrameQueue({ decode, parallel: 3 });
  assert.ok(!frames.primed);
  for (let i = 0; i < 5; i++) frames.push(message(i));
  waiting[0].done({ close() {} });
  waiting[1].failed(new Error("not a picture"));
  await settle();
  assert.ok(!frames.primed);
  waiting[2].done({ close() {} });
  await settle();
  assert.ok(frames.primed);
});

test("frames reach as far as the last one, though the server dropped some before it", async () => {
  const { frames } = queue();
  assert.equal(frames.reachMs(), 0);
  for (const index of [0, 1, 2, 5]) frames.push(message(index));
  assert.equal(frames.reachMs(), 240);
});

test("closing closes every bitmap, also one still being decoded", async () => {
  const { frames, bitmaps } = await filled(3);
  frames.take(0, INTERVAL_MS);
  frames.push(message(3));
  frames.close();
  await settle();
  assert.ok(bitmaps.every(({ closed }) => closed));
  assert.equal(bitmaps.length, 4);
});

test("the cycle runs forward, then backward, without showing an end twice", () => {
  assert.deepEqual(
    Array.from({ length: 9 }, (_, i) => cycleIndex(i, 4)),
    [0, 1, 2, 3, 2, 1, 0, 1, 2],
  );
  assert.equal(cycleIndex(-1, 4), 1);
  assert.equal(cycleIndex(7, 1), 0);
});

test("a frame knows the idle frame it was drawn on, at any two rates", () => {
  // The server's rule: first + floor(index * idle rate / speech rate).
  for (const [fps, idleFps] of [
    [25, 25],
    [25, 30],
    [25, 50],
    [30, 25],
    [50, 24000 / 1001],
  ]) {
    for (let index = 0; index < 3000; index++) {
      const ptsUs = Math.round((index * 1e6) / fps);
      const wanted = 7 + Math.floor((index * idleFps) / fps + 1e-9);
      assert.equal(cyclePosition(7, ptsUs, idleFps), wanted, `frame ${index} at ${fps} fps`);
    }
  }
});
