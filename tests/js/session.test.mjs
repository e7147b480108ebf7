// What the page asks of the server, and when it takes back what it said to the user.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Session } from "../../frontend/js/session.js";

/** A session in chat that is at one with its server; what it sends, by type. */
function conversation() {
  const sent = [];
  const connection = {
    resumption: { token: "" },
    send: (event) => sent.push(event.type) > 0,
    sendAudio: () => true,
  };
  const player = { rate: 24_000, receivedS: 0, begin() {}, stop() {}, end() {}, clear() {} };
  const session = new Session({
    connection,
    player: new Proxy(player, { get: (own, name) => own[name] ?? (() => 0) }),
    decode: async () => ({}),
    idle: () => ({}),
    wishes: () => ({ mode: "chat", region: "mouth", inputRate: 24_000, outputRate: 24_000 }),
    now: () => 1000,
  });
  const notices = [];
  session.onNotice = (text, about) => notices.push(text || `no ${about}`);
  const told = (type, rest = {}) => connection.onEvent({ type, ...rest });
  told("session.created", { session: { avatar: { id: "ada" } } });
  told("session.updated", { session: { avatar: { id: "ada" } } });
  sent.length = 0;
  return { session, sent, told, notices };
}

test("a message that is typed before the answer to the last one has begun takes its place", () => {
  const { session, sent } = conversation();
  session.say("one");
  session.say("two");
  assert.deepEqual(sent, [
    "conversation.item.create",
    "response.create",
    "response.cancel",
    "conversation.item.create",
    "response.create",
  ]);
});

test("a message can be typed on a page without https, where browsers make no UUIDs", (t) => {
  Object.defineProperty(crypto, "randomUUID", { value: undefined, configurable: true });
  t.after(() => Reflect.deleteProperty(crypto, "randomUUID"));
  const { session, sent } = conversation();
  session.say("one");
  assert.deepEqual(sent, ["conversation.item.create", "response.create"]);
});

test("an answer that is awaited can be called off, once", () => {
  const { session, sent } = conversation();
  session.say("one");
  assert.equal(session.thinking, true);
  session.interrupt();
  session.interrupt();
  assert.equal(session.thinking, false);
  assert.equal(sent.filter((type) => type === "response.cancel").length, 1);
});

test("an answer that is no longer played here, and goes on there, gives way too", () => {
  const { session, sent, told } = conversation();
  const response = { id: "r1", generation: 1 };
  told("response.created", { response });
  session.cutOff();
  session.say("one");
  assert.deepEqual(sent.slice(0, 2), ["response.cancel", "conversation.item.create"]);
  told("response.done", { response: { ...response, status: "cancelled" } });
  assert.equal(session.inProgress, false);
});

test("why an answer failed is shown until the next one begins", () => {
  const { told, notices } = conversation();
  const error = { message: "The model answered with nothing." };
  const response = { id: "r1", generation: 1 };
  told("response.created", { response });
  told("response.done", { response: { ...response, status: "failed", status_details: { error } } });
  assert.equal(notices.at(-1), error.message);
  told("response.created", { response: { id: "r2", generation: 2 } });
  assert.equal(notices.at(-1), "no answer");
});

test("that speech was not understood is shown until some is", () => {
  const { told, notices } = conversation();
  const kind = "conversation.item.input_audio_transcription";
  told(`${kind}.failed`, { item_id: "i1", error: { message: "The recogniser is down." } });
  assert.match(notices.at(-1), /not understood\. The recogniser is down\./);
  told(`${kind}.completed`, { item_id: "i2", transcript: "Hello." });
  assert.equal(notices.at(-1), "no hearing");
});
