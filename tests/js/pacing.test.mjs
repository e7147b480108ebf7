// When a response starts to play: with the first ones by what is in hand, then by what was needed.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Pacing } from "../../frontend/js/pacing.js";

const inHand = { audioMs: 0, videoMs: 0, audioEnded: false, videoEnded: false };

/** Frames as a server makes them of live speech: in chunks, `behindMs` after the chunk is complete. */
function live(wait, chunkMs, { prefixMs = 0, behindMs = 100, chunks = 10, frameMs = 12 } = {}) {
  for (let chunk = 0; chunk < chunks; chunk++) {
    const completeMs = Math.max(0, (chunk + 1) * chunkMs - prefixMs);
    for (let i = 0; i < chunkMs / 40; i++) {
      wait.frame(completeMs + behindMs + i * frameMs, chunk * chunkMs + i * 40);
    }
  }
}

/** When it starts, if audio is there and frames are, from the first one on. */
function start(wait, firstFrameMs) {
  for (let ms = 0; ms < 10_000; ms++) {
    if (wait.isOver(ms, { ...inHand, audioMs: 5000, videoMs: ms >= firstFrameMs ? 500 : 0 })) return ms;
  }
  return Infinity;
}

test("the first prompt response starts once sound and frames reach a little", () => {
  const wait = new Pacing(false).begin();
  assert.ok(!wait.isOver(10, { ...inHand, audioMs: 500, videoMs: 160 }));
  assert.ok(!wait.isOver(10, { ...inHand, audioMs: 100, videoMs: 400 }));
  assert.ok(wait.isOver(10, { ...inHand, audioMs: 500, videoMs: 240 }));
});

test("missing frames hold the sound back only for so long", () => {
  const wait = new Pacing(false).begin();
  assert.ok(!wait.isOver(1500, { ...inHand, audioMs: 500 }));
  assert.ok(wait.isOver(1600, { ...inHand, audioMs: 500 }));
  assert.ok(!wait.isOver(9000, inHand), "but without sound nothing starts");
});

test("a response shorter than that starts when it is whole", () => {
  const wait = new Pacing(false).begin();
  const short = { ...inHand, audioMs: 120, audioEnded: true };
  assert.ok(!wait.isOver(10, { ...short, videoMs: 80 }));
  assert.ok(wait.isOver(10, { ...short, videoMs: 120 }));
  assert.ok(wait.isOver(10, { ...short, videoEnded: true }));
});

test("the first live response starts a while after its first frame", () => {
  const wait = new Pacing(true).begin();
  wait.frame(150, 0);
  assert.equal(start(wait, 150), 450);
});

test("live responses then start as early as their chunks allow", () => {
  for (const [chunkMs, prefixMs] of [
    [500, 300],
    [500, 0],
    [200, 300],
    [2000, 300],
  ]) {
    const pacing = new Pacing(true);
    const first = pacing.begin();
    live(first, chunkMs, { prefixMs });
    pacing.learn(first);
    const neededMs = Math.max(0, chunkMs - prefixMs) + 100;
    const planned = pacing.waitMs;
    assert.ok(planned >= neededMs && planned <= neededMs + 60, `${planned} for ${chunkMs}`);
    assert.equal(start(pacing.begin(), 150), Math.ceil(Math.max(150, planned)));
  }
});

test("a first chunk that is shorter than the others is not taken for all", () => {
  const pacing = new Pacing(true);
  const wait = pacing.begin();
  for (let i = 0; i < 5; i++) wait.frame(100 + 12 * i, 40 * i);
  for (let chunk = 0; chunk < 8; chunk++) {
    const completeMs = 200 + 500 * (chunk + 1) - 300;
    for (let i = 0; i < 12; i++) wait.frame(completeMs + 100 + 12 * i, 200 + 500 * chunk + 40 * i);
  }
  pacing.learn(wait);
  assert.ok(pacing.waitMs >= 300, `${pacing.waitMs}`);
});

test("a stall of a few frames is no reason to wait, a slow machine is", () => {
  const pacing = new Pacing(true);
  const wait = pacing.begin();
  live(wait, 500, { prefixMs: 300, chunks: 40 });
  for (let i = 0; i < 5; i++) wait.frame(25_000, 20_040 + 40 * i);
  pacing.learn(wait);
  assert.ok(pacing.waitMs < 400, `${pacing.waitMs}`);
  const slow = pacing.begin();
  live(slow, 500, { prefixMs: 300, behindMs: 700 });
  pacing.learn(slow);
  assert.ok(pacing.waitMs > 880, `${pacing.waitMs}`);
  for (let i = 0; i < 4; i++) {
    const fast = pacing.begin();
    live(fast, 500, { prefixMs: 300 });
    pacing.learn(fast);
  }
  assert.ok(pacing.waitMs < 400, "and is forgotten");
});

test("of what is not live only the beginning counts, and too few frames tell nothing", () => {
  const pacing = new Pacing(false);
  const wait = pacing.begin();
  for (let i = 0; i < 500; i++) wait.frame(90 + 15 * i, 40 * i);
  pacing.learn(wait);
  assert.ok(pacing.waitMs >= 90 && pacing.waitMs <= 130, `${pacing.waitMs}`);
  const few = new Pacing(false);
  const short = few.begin();
  short.frame(90, 0);
  few.learn(short);
  assert.equal(few.waitMs, null);
});
