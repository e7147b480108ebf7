// Captions follow the voice: word by word, from the server's times or estimated, in readable parts.
import assert from "node:assert/strict";
import { test } from "node:test";
import { SpokenText, cueAt, wordsOf } from "../../frontend/js/captions.js";

const TEXT = "Good morning. The quick brown fox jumps.";
const saidAt = (spoken, seconds) => spoken.text.slice(0, spoken.saidAt(seconds));

test("before anything is heard no word is said", () => {
  const spoken = new SpokenText();
  assert.equal(spoken.saidAt(null), 0);
  spoken.add(TEXT, 0);
  assert.equal(spoken.saidAt(null), 0);
});

test("words light up at the times that the server gives", () => {
  const spoken = new SpokenText();
  spoken.add(TEXT, 0);
  ["Good", "morning", "The", "quick", "brown", "fox", "jumps"].forEach((word, i) =>
    spoken.time(word, 0.3 * i, 0.25),
  );
  assert.equal(saidAt(spoken, 0.1), "Good");
  assert.equal(saidAt(spoken, 0.31), "Good morning");
  assert.equal(saidAt(spoken, 1.6), "Good morning. The quick brown fox");
  assert.equal(saidAt(spoken, 9), "Good morning. The quick brown fox jumps");
  spoken.finish(2);
  assert.equal(saidAt(spoken, 2), TEXT);
});

test("times may come before their words, and a word may come in pieces", () => {
  const spoken = new SpokenText();
  spoken.time("Good", 0, 0.2);
  spoken.time("morning", 0.3, 0.3);
  spoken.add("Good mor", 0);
  spoken.add("ning.", 0);
  assert.equal(saidAt(spoken, 0.4), "Good morning");
});

test("a word that the voice says otherwise is passed over", () => {
  const spoken = new SpokenText();
  spoken.add("It costs $3 today, I think.", 0);
  ["It", "costs", "three", "dollars", "today", "I", "think"].forEach((word, i) =>
    spoken.time(word, i, 0.5),
  );
  assert.equal(saidAt(spoken, 3.2), "It costs");
  assert.equal(saidAt(spoken, 4), "It costs $3 today");
});

test("a word that comes twice is lit in its own turn", () => {
  const spoken = new SpokenText();
  spoken.add("the cat and the dog", 0);
  ["the", "cat", "and", "the", "dog"].forEach((word, i) => spoken.time(word, i, 0.5));
  assert.equal(saidAt(spoken, 0.9), "the");
  assert.equal(saidAt(spoken, 3.1), "the cat and the");
});

test("without times they are estimated from where each piece of the text began", () => {
  const spoken = new SpokenText();
  spoken.add("One two three four. ", 0);
  spoken.add("Five six seven eight.", 2);
  assert.equal(saidAt(spoken, 0.05), "One");
  assert.equal(saidAt(spoken, 1.9), "One two three four");
  assert.equal(saidAt(spoken, 2.05), "One two three four. Five");
  spoken.finish(4);
  assert.equal(saidAt(spoken, 3.0), "One two three four. Five six seven");
  assert.equal(saidAt(spoken, 4), spoken.text);
});

test("what is said never shrinks as time goes on", () => {
  const spoken = new SpokenText();
  let before = 0;
  for (let tenth = 0; tenth < 60; tenth++) {
    if (tenth % 10 === 0 && tenth < 50) spoken.add(`Some more words come now ${tenth}. `, tenth / 5);
    const said = spoken.saidAt(tenth / 10);
    assert.ok(said >= before, `${said} after ${before}`);
    before = said;
  }
});

test("scripts without spaces have words too", () => {
  assert.ok(wordsOf("你好，今天天气很好").length > 2);
  const spoken = new SpokenText();
  spoken.add("你好，今天天气很好。", 0);
  spoken.time("你好", 0, 0.4);
  spoken.time("今天", 0.5, 0.4);
  assert.equal(saidAt(spoken, 0.6), "你好，今天");
});

test("a short text is one part", () => {
  assert.deepEqual(cueAt(TEXT, 0), [0, TEXT.length]);
  assert.deepEqual(cueAt("", 0), [0, 0]);
});

test("a long text is shown in parts that end where sentences or clauses end", () => {
  const text =
    "The first sentence is about nothing at all. The second, which is longer, goes on for some time, " +
    "and then it ends. And a third one follows, so that there are more parts than two.";
  const parts = [];
  for (let at = 0; at < text.length; at = cueAt(text, at)[1]) parts.push(text.slice(...cueAt(text, at)));
  assert.equal(parts.join(""), text);
  assert.ok(parts.length >= 2);
  assert.ok(parts.every((part) => part.length <= 96));
  assert.match(parts[0], /all\. $/);
});

test("a part that is shown stays as it is while the text grows", () => {
  const text = "One two three four five six seven. ".repeat(12);
  for (let length = 200; length < text.length; length += 7) {
    assert.deepEqual(cueAt(text.slice(0, length), 10), cueAt(text, 10));
  }
});

test("a text without any break is cut all the same", () => {
  assert.deepEqual(cueAt("x".repeat(300), 150), [96, 192]);
});
