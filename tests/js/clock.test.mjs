// What is heard when a paint reaches the screen, and which frame belongs there.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  OutputClock,
  PlayedTimeline,
  RefreshMeter,
  isDue,
  paintTime,
} from "../../frontend/js/clock.js";

const near = (actual, expected, tolerance = 1e-9) =>
  assert.ok(Math.abs(actual - expected) <= tolerance, `${actual} is not ${expected}`);

test("before any sound nothing is heard", () => {
  const clock = new OutputClock();
  clock.update({ contextTime: 0, performanceTime: 0 });
  assert.equal(clock.contextTimeAt(1000), null);
});

test("one pair is enough to know any moment", () => {
  const clock = new OutputClock();
  clock.update({ contextTime: 2, performanceTime: 5000 });
  near(clock.contextTimeAt(5000), 2);
  near(clock.contextTimeAt(5016), 2.016);
});

test("jitter of the audio thread is smoothed away", () => {
  const clock = new OutputClock();
  for (let i = 1; i <= 400; i++) {
    const jitter = (i % 2 ? 1 : -1) * 0.008;
    clock.update({ contextTime: i * 0.01 + jitter, performanceTime: 1000 + i * 10 });
  }
  near(clock.contextTimeAt(5000), 4, 0.001);
});

test("a pair read twice counts once", () => {
  const clock = new OutputClock();
  assert.ok(clock.update({ contextTime: 1, performanceTime: 100 }));
  assert.ok(!clock.update({ contextTime: 1, performanceTime: 100 }));
});

test("a true jump is taken over, a single stray reading is not", () => {
  const clock = new OutputClock();
  clock.update({ contextTime: 1, performanceTime: 1000 });
  clock.update({ contextTime: 9, performanceTime: 1010 });
  near(clock.contextTimeAt(1000), 1);
  clock.update({ contextTime: 1.02, performanceTime: 1020 });
  for (let i = 0; i < 3; i++) {
    clock.update({ contextTime: 5 + i * 0.01, performanceTime: 1100 + i * 10 });
  }
  near(clock.contextTimeAt(1100), 5);
});

test("output that stalled for a buffer or three is followed within three readings", () => {
  for (const stalledMs of [10, 30]) {
    const clock = new OutputClock();
    for (let i = 1; i <= 100; i++) {
      clock.update({ contextTime: i * 0.01, performanceTime: 1000 + i * 10 });
    }
    for (let i = 101; i <= 103; i++) {
      clock.update({ contextTime: i * 0.01, performanceTime: 1000 + i * 10 + stalledMs });
    }
    near(clock.contextTimeAt(3000 + stalledMs), 2, 1e-3);
  }
});

test("one late callback moves nothing", () => {
  const clock = new OutputClock();
  for (let i = 1; i <= 100; i++) {
    clock.update({ contextTime: i * 0.01, performanceTime: 1000 + i * 10 + (i % 9 ? 0 : 6.5) });
  }
  near(clock.contextTimeAt(2000), 1, 0.002);
});

test("media time runs from the first anchor, stands where the sound ran dry, and goes on", () => {
  const timeline = new PlayedTimeline();
  assert.equal(timeline.mediaTimeAt(10), null);
  timeline.anchor(10, 0, true);
  timeline.anchor(12, 2, false);
  timeline.anchor(12.5, 2, true);
  assert.equal(timeline.mediaTimeAt(9.99), null);
  near(timeline.mediaTimeAt(11), 1);
  near(timeline.mediaTimeAt(12.3), 2);
  near(timeline.mediaTimeAt(13), 2.5);
});

test("the moment before the first sample counts as negative time, within the lead", () => {
  const timeline = new PlayedTimeline();
  timeline.anchor(10, 0, true);
  near(timeline.mediaTimeNear(9.99, 0.016), -0.01);
  assert.equal(timeline.mediaTimeNear(9.9, 0.016), null);
});

test("at 60 Hz every 25 fps frame is first painted within half a refresh of its own pts", () => {
  const interval = 1000 / 60;
  for (const phase of [0, 3.1, 8.2, 16.6]) {
    let next = 0;
    const errors = [];
    for (let paint = -interval + phase; paint < 4000; paint += interval) {
      while (isDue(next * 40_000, paint / 1000, interval)) {
        errors.push(Math.abs(next * 40 - paint));
        next += 1;
      }
    }
    assert.ok(errors.length >= 100);
    assert.ok(Math.max(...errors) <= interval / 2 + 1e-6, `${Math.max(...errors)} ms`);
  }
});

test("a paint reaches the screen one refresh after its animation frame began", () => {
  near(paintTime(1000, 16), 1016);
});

test("the refresh interval is measured through skipped frames", () => {
  const meter = new RefreshMeter();
  let now = 0;
  for (let i = 0; i < 60; i++) now = (meter.tick(now), now + (i % 3 ? 8.33 : 16.67));
  near(meter.intervalMs, 8.33, 0.1);
});
