// An output that the system stops, or that does not exist: the clock stands, and comes back in step.
import assert from "node:assert/strict";
import { test } from "node:test";
import { MotionMeter, OutputClock, SilentTimeline } from "../../frontend/js/clock.js";
import { Output } from "../../frontend/js/output.js";
import { Player } from "../../frontend/js/player.js";

const near = (actual, expected, tolerance = 1e-9) =>
  assert.ok(Math.abs(actual - expected) <= tolerance, `${actual} is not ${expected}`);

/** An AudioContext that renders as told, and is heard 20 ms later. */
class FakeContext extends EventTarget {
  sampleRate = 48_000;
  state = "suspended";
  currentTime = 0;
  pair = { contextTime: 0, performanceTime: 0 };
  allowed = true;
  resumed = 0;
  resume() {
    this.resumed += 1;
    if (!this.allowed) return new Promise(() => {});
    this.become("running");
    return Promise.resolve();
  }
  suspend() {
    this.become("suspended");
    return Promise.resolve();
  }
  become(state) {
    this.state = state;
    this.dispatchEvent(new Event("statechange"));
  }
  getOutputTimestamp() {
    return this.pair;
  }
}

/** A page with that context: `run` lets so many ms pass, in animation frames of 10 ms. */
function machine(context = new FakeContext()) {
  const clock = { ms: 1000 };
  const states = [];
  const output = new Output({ create: () => context, now: () => clock.ms });
  output.onState = (state) => states.push(state);
  const run = async (ms, { moves = context.state === "running" } = {}) => {
    for (const end = clock.ms + ms; clock.ms < end; ) {
      clock.ms += 10;
      if (moves) {
        context.currentTime += 0.01;
        context.pair = { contextTime: context.currentTime - 0.02, performanceTime: clock.ms };
      }
      output.tick();
    }
    await Promise.resolve(); // let promises of resume() settle
  };
  const start = async () => {
    output.start();
    await Promise.resolve();
    await run(100);
  };
  return { context, clock, output, states, run, start };
}

test("a clock that was reset knows nothing until a new pair comes", () => {
  const clock = new OutputClock();
  const pair = { contextTime: 2, performanceTime: 5000 };
  clock.update(pair);
  clock.reset();
  assert.equal(clock.contextTimeAt(5000), null);
  assert.equal(clock.update(pair), false, "browsers repeat the last pair while suspended");
  clock.update({ contextTime: 2.1, performanceTime: 9000 });
  near(clock.contextTimeAt(9000), 2.1);
});

test("a context moves as long as its time does, and is given half a second", () => {
  const meter = new MotionMeter();
  assert.equal(meter.update(0, 1), false, "nothing is known at first");
  assert.equal(meter.update(10, 1.01), true);
  assert.equal(meter.update(400, 1.01), true);
  assert.equal(meter.update(600, 1.01), true);
  assert.equal(meter.update(900, 1.01), false);
  assert.equal(meter.update(910, 1.02), true);
});

test("a page that slept does not take its own sleep for a standstill", () => {
  const meter = new MotionMeter();
  meter.update(0, 1);
  meter.update(10, 1.01);
  assert.equal(meter.update(3_600_000, 1.01), true);
});

test("in silence the position moves by the wall clock and waits for audio", () => {
  const silence = new SilentTimeline();
  assert.equal(silence.mediaTimeAt(1000, 5), null);
  silence.play(1000);
  near(silence.mediaTimeAt(1500, 1), 0.5);
  near(silence.mediaTimeAt(2600, 1), 1);
  near(silence.mediaTimeAt(2700, 2), 1.1, 1e-6);
  silence.clear();
  assert.equal(silence.mediaTimeAt(3000, 2), null);
});

test("sound that starts is running, and heard time follows it", async () => {
  const { clock, output, start, run, states } = machine();
  await start();
  await run(200);
  assert.deepEqual(states, ["starting", "running"]);
  near(output.contextTimeAt(clock.ms), 0.28, 0.001);
});

for (const state of ["suspended", "interrupted"]) {
  test(`${state} by the system: heard time stands, and goes on where it stopped`, async () => {
    const { context, clock, output, start, run, states } = machine();
    await start();
    await run(900);
    context.become(state);
    assert.equal(output.state, "paused");
    const heardS = output.contextTimeAt(clock.ms);
    near(heardS, 0.98, 0.001);
    await run(60_000);
    assert.equal(output.contextTimeAt(clock.ms), heardS);
    output.resume();
    assert.equal(output.contextTimeAt(clock.ms), heardS, "not before sound flows");
    await run(300);
    assert.deepEqual(states, ["starting", "running", "paused", "running"]);
    near(output.contextTimeAt(clock.ms), 1.28, 0.001);
  });
}

test("a context that says it runs and stands still is paused, and started anew", async () => {
  const { context, clock, output, start, run } = machine();
  await start();
  await run(900);
  await run(1000, { moves: false });
  assert.equal(output.state, "paused");
  assert.ok(output.contextTimeAt(clock.ms) <= context.currentTime + 1e-9);
  const before = context.resumed;
  output.resume();
  await run(10);
  assert.equal(context.resumed, before + 1);
  await run(200);
  assert.equal(output.state, "running");
});

test("heard time never runs far ahead of what was rendered, said or unsaid", async () => {
  const { context, clock, output, start, run } = machine();
  await start();
  await run(900);
  clock.ms += 5000; // the page hears of nothing
  assert.ok(output.contextTimeAt(clock.ms) <= context.currentTime + 0.1);
});

test("a context that never starts is missing after three seconds, and may come later", async () => {
  const { context, output, start, run, states } = machine();
  context.allowed = false;
  await start();
  await run(2800);
  assert.equal(output.state, "starting");
  await run(200);
  assert.equal(output.state, "missing");
  context.allowed = true;
  output.resume();
  await run(100);
  assert.deepEqual(states, ["starting", "missing", "running"]);
});

test("a browser without AudioContext has no sound, and says so at once", () => {
  const output = new Output({
    create: () => {
      throw new DOMException("no device", "NotSupportedError");
    },
    now: () => 0,
  });
  const warn = console.warn;
  console.warn = () => {};
  output.start();
  console.warn = warn;
  assert.equal(output.state, "missing");
  assert.equal(output.contextTimeAt(0), null);
});

test("without its worklet the output is missing, and the context is left to the microphone", async () => {
  const { context, output, start, run, states } = machine();
  await start();
  output.fail(true);
  const before = context.resumed;
  output.resume();
  await run(100);
  assert.equal(context.resumed, before);
  output.fail(false);
  await run(100);
  assert.deepEqual(states, ["starting", "running", "missing", "starting", "running"]);
});

test("a stop of our own is no pause", async () => {
  const { output, start, run, states, context } = machine();
  await start();
  output.stop();
  await run(1000);
  assert.equal(context.state, "suspended");
  assert.deepEqual(states, ["starting", "running", "off"]);
  await start();
  assert.deepEqual(states.slice(3), ["starting", "running"]);
});

test("without an output a turn plays in silence, from where it was heard", async () => {
  const { context, clock, output, run } = machine();
  context.allowed = false;
  output.start();
  const player = new Player(output, 24_000);
  output.onState = (state) => state === "missing" && player.goSilent();
  player.begin();
  player.push(new Int16Array(24_000));
  player.play();
  assert.equal(player.heardAt(clock.ms), null);
  assert.equal(player.paused, true);
  await run(3500);
  assert.equal(player.paused, false);
  near(player.heardAt(clock.ms), 0.5, 0.011);
  near(player.bufferedS, 0.5, 0.011);
  player.end();
  await run(2000);
  near(player.heardAt(clock.ms), 1);
});

test("sound that comes back is used from the next turn on", async () => {
  const { context, output, run } = machine();
  context.allowed = false;
  output.start();
  const player = new Player(output, 24_000);
  await run(3100);
  player.begin();
  assert.equal(player.silent, true);
  context.allowed = true;
  output.resume();
  await run(100);
  assert.equal(player.silent, true);
  player.begin();
  assert.equal(player.silent, false);
});
