// The conversation as text, and the times of its turns.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Transcript } from "../../frontend/js/transcript.js";
import { Turns } from "../../frontend/js/turns.js";

const told = (transcript) => transcript.entries.map(({ who, text, state }) => [who, text, state]);

test("both sides are kept in order, also where the user's words come after the answer's", () => {
  const transcript = new Transcript();
  transcript.userBegan("item_1");
  transcript.userCommitted("item_1");
  transcript.avatarBegan("resp_1");
  transcript.avatarSaid("resp_1", "I am");
  transcript.userSaid("item_1", " How are you? ");
  transcript.avatarSaid("resp_1", "I am well.");
  transcript.avatarEnded("resp_1", "done");
  assert.deepEqual(told(transcript), [
    ["user", "How are you?", "done"],
    ["avatar", "I am well.", "done"],
  ]);
});

test("what the user says grows with the deltas, and the final text replaces it", () => {
  const transcript = new Transcript();
  assert.equal(transcript.userDelta("item_1", "how "), "how ");
  assert.equal(transcript.userDelta("item_1", "are"), "how are");
  transcript.userSaid("item_1", "How are you?");
  assert.equal(transcript.userDelta("item_1", " late"), "How are you?");
});

test("an answer that goes on after a cough is one entry", () => {
  const transcript = new Transcript();
  transcript.avatarBegan("resp_1");
  transcript.avatarSaid("resp_1", "The quick brown");
  transcript.avatarEnded("resp_1", "cut");
  transcript.userDelta("item_1", "mm-hmm");
  transcript.avatarBegan("resp_2");
  transcript.avatarSaid("resp_2", "fox jumps.");
  transcript.avatarEnded("resp_2", "done");
  assert.deepEqual(told(transcript), [["avatar", "The quick brown fox jumps.", "done"]]);
});

test("words that are said again as an answer goes on stand there once", () => {
  const transcript = new Transcript();
  transcript.avatarBegan("resp_1");
  transcript.avatarSaid("resp_1", "The quick brown fox");
  transcript.avatarEnded("resp_1", "cut");
  transcript.userBegan("item_1");
  transcript.userCommitted("item_1");
  transcript.userSaid("item_1", "");
  transcript.avatarBegan("resp_2");
  transcript.avatarSaid("resp_2", "brown");
  assert.deepEqual(told(transcript), [["avatar", "The quick brown fox", "live"]]);
  transcript.avatarSaid("resp_2", "brown fox jumps");
  transcript.avatarEnded("resp_2", "done");
  assert.deepEqual(told(transcript), [["avatar", "The quick brown fox jumps", "done"]]);
});

test("an answer after a turn of the user's is another entry", () => {
  const transcript = new Transcript();
  transcript.avatarBegan("resp_1");
  transcript.avatarSaid("resp_1", "The quick brown");
  transcript.avatarEnded("resp_1", "cut");
  transcript.userBegan("item_1");
  transcript.userCommitted("item_1");
  transcript.avatarBegan("resp_2");
  transcript.avatarSaid("resp_2", "Yes?");
  assert.deepEqual(
    told(transcript).map(([who, text]) => [who, text]),
    [
      ["avatar", "The quick brown"],
      ["user", ""],
      ["avatar", "Yes?"],
    ],
  );
});

test("a response that is over does not change, whatever still comes", () => {
  const transcript = new Transcript();
  transcript.avatarBegan("resp_1");
  transcript.avatarSaid("resp_1", "One");
  transcript.avatarEnded("resp_1", "cut");
  transcript.avatarSaid("resp_1", "One two three");
  transcript.avatarEnded("resp_1", "done");
  assert.deepEqual(told(transcript), [["avatar", "One", "cut"]]);
});

test("a conversation of any length keeps its last entries", () => {
  const transcript = new Transcript();
  let forgotten = 0;
  transcript.onForget = () => (forgotten += 1);
  for (let i = 0; i < 1000; i++) transcript.userSaid(`item_${i}`, `number ${i}`);
  assert.equal(transcript.entries.length, 400);
  assert.equal(forgotten, 600);
  assert.equal(transcript.entries[399].text, "number 999");
});

test("a turn's times begin at the end of speech: the server's, and what the page hears", () => {
  const turns = new Turns();
  assert.deepEqual(turns.times, {});
  turns.over(1000);
  turns.answered("resp_1");
  turns.told({ response_id: "resp_1", turn_end_ms: 300, transcript_ms: 340, first_token_ms: 420 });
  turns.told({ response_id: "resp_1", first_sound_ms: 500, first_frame_ms: 640, else_ms: 1 });
  turns.heard("resp_1", 1450);
  turns.heard("resp_1", 9000);
  assert.deepEqual(turns.times, {
    decided: 300,
    transcript: 340,
    token: 420,
    sound: 500,
    frame: 640,
    heard: 750,
  });
});

test("what is told of another response, or is no number, is left out", () => {
  const turns = new Turns();
  turns.over(0);
  turns.answered("resp_1");
  turns.told({ response_id: "resp_0", turn_end_ms: 300 });
  turns.told({ response_id: "resp_1", turn_end_ms: null, transcript_ms: "soon" });
  turns.heard("resp_2", 10);
  assert.deepEqual(turns.times, {});
  turns.heard("resp_1", 80);
  assert.deepEqual(turns.times, { heard: 80 });
});
