// Push to talk, and what the server's engines allow.
import assert from "node:assert/strict";
import { test } from "node:test";
import { chatState, voicesIn } from "../../frontend/js/engines.js";
import { chosen, remember, remembered } from "../../frontend/js/settings.js";
import { Talk } from "../../frontend/js/talk.js";

/** A talk whose sent blocks are numbers; "commit" and "drop" stand where they happened. */
function talk() {
  const sent = [];
  const made = new Talk({
    send: (block) => sent.push(block),
    commit: () => sent.push("commit"),
    drop: () => sent.push("drop"),
  });
  let next = 0;
  const hear = (count) => {
    for (let i = 0; i < count; i++) made.hear(next++);
  };
  return { made, sent, hear };
}

test("without push to talk everything is sent", () => {
  const { made, sent, hear } = talk();
  hear(3);
  made.press();
  hear(1);
  made.release();
  assert.deepEqual(sent, [0, 1, 2, 3]);
});

test("what is said while held is sent, with a little before and after, and then committed", () => {
  const { made, sent, hear } = talk();
  made.mode(true);
  hear(20);
  assert.deepEqual(sent, []);
  made.press();
  hear(10);
  made.release();
  hear(20);
  assert.deepEqual(sent, [...Array.from({ length: 22 }, (_, i) => 12 + i), "commit"]);
});

test("a key that was only touched is no turn", () => {
  const { made, sent, hear } = talk();
  made.mode(true);
  hear(20);
  made.press();
  hear(1);
  made.release();
  hear(10);
  assert.equal(sent.at(-1), "drop");
});

test("pressed again at once, the turn before is complete and the next one begins", () => {
  const { made, sent, hear } = talk();
  made.mode(true);
  made.press();
  hear(30);
  made.release();
  hear(1);
  made.press();
  hear(30);
  made.release();
  hear(10);
  assert.deepEqual(
    sent.map((block, i) => (block === "commit" ? i : -1)).filter((i) => i >= 0),
    [31, 66],
  );
});

test("a microphone that goes away while held leaves nothing behind", () => {
  const { made, sent, hear } = talk();
  made.mode(true);
  made.press();
  hear(30);
  made.cancel();
  assert.equal(sent.at(-1), "drop");
  made.release();
  hear(3);
  assert.equal(sent.at(-1), "drop");
});

const ENGINES = [
  { kind: "asr", name: "an asr", problem: "", note: "", ready: true },
  { kind: "llm", name: "an llm", problem: "", note: "A small model.", ready: true },
  { kind: "tts", name: "a voice", problem: "", note: "", ready: true },
];
const without = (...kinds) =>
  ENGINES.map((one) => (kinds.includes(one.kind) ? { ...one, problem: `type install-${one.kind}` } : one));

test("with all engines there is a conversation, and their notes are shown", () => {
  assert.deepEqual(chatState(ENGINES), {
    known: true,
    ready: true,
    hears: true,
    problems: [],
    notes: ["A small model."],
    upstream: false,
    starting: false,
  });
  assert.deepEqual(chatState({ engines: ENGINES }), chatState(ENGINES));
});

test("an engine that is still being loaded is asked for again, one that failed is not", () => {
  const slow = ENGINES.map((one) => (one.kind === "llm" ? { ...one, ready: false } : one));
  assert.equal(chatState(slow).starting, true);
  assert.equal(chatState(without("llm").map((one) => ({ ...one, ready: !one.problem }))).starting, false);
});

test("what is missing is named, with what to type", () => {
  const state = chatState(without("llm"));
  assert.equal(state.ready, false);
  assert.deepEqual(state.problems, ["The language model: type install-llm"]);
  assert.deepEqual(state.notes, []);
});

test("a problem that names its engine itself is not named twice", () => {
  const problem = "The language model's endpoint (127.0.0.1) did not answer in time.";
  const down = { kind: "llm", name: "m", problem, note: "", ready: false };
  assert.deepEqual(chatState([down]).problems, [problem]);
});

test("without recognition messages can be typed", () => {
  const state = chatState(without("asr"));
  assert.deepEqual([state.ready, state.hears], [true, false]);
  assert.deepEqual(state.problems, ["Speech recognition: type install-asr"]);
});

test("a voice that is down is no problem while another one speaks", () => {
  const state = chatState([...without("tts"), ENGINES[2]]);
  assert.equal(state.ready, true);
  assert.deepEqual(state.problems, []);
});

test("a server that tells nothing of engines has no conversation", () => {
  for (const answer of [null, undefined, {}, [], "no", [null, 3, { kind: "other" }]]) {
    assert.deepEqual(chatState(answer), {
      known: false,
      ready: false,
      hears: false,
      problems: [],
      notes: [],
      upstream: false, starting: false,
    });
  }
});

test("another server that talks is a choice, whatever this one has", () => {
  const there = { kind: "upstream", name: "api.openai.com", problem: "", note: "", ready: true };
  assert.equal(chatState([...ENGINES, there]).upstream, true);
  const state = chatState([...without("llm"), there]);
  assert.deepEqual([state.upstream, state.ready, state.problems], [true, false, []]);
  const keyless = { ...there, problem: "api.openai.com needs a key." };
  assert.deepEqual(chatState([...ENGINES, keyless]).problems, ["The upstream: api.openai.com needs a key."]);
});

test("voices are a choice where there are two", () => {
  const joe = { id: "joe", name: "Joe", language: "en" };
  assert.deepEqual(voicesIn([joe]), []);
  assert.deepEqual(voicesIn([joe, joe]), []);
  assert.deepEqual(voicesIn({ voices: [joe, { name: "amy" }] }), [
    joe,
    { id: "amy", name: "amy", language: "" },
  ]);
  assert.deepEqual(voicesIn("none"), []);
});

test("a remembered choice counts only where it is one", () => {
  assert.equal(chosen(["a", "b"], [null, "c", "b"], "a"), "b");
  assert.equal(chosen(["a", "b"], ["__proto__"], "a"), "a");
});

test("where storage is forbidden, or full of nonsense, nothing is remembered", () => {
  assert.equal(remembered("mode"), "");
  remember("mode", "chat");
  const stored = new Map([["wsavatar.voice", "x".repeat(10_000)]]);
  globalThis.localStorage = {
    getItem: (key) => stored.get(key) ?? null,
    setItem: (key, value) => stored.set(key, value),
  };
  try {
    assert.equal(remembered("voice"), "");
    remember("mode", "chat");
    assert.equal(remembered("mode"), "chat");
  } finally {
    delete globalThis.localStorage;
  }
});
