// A connection that is lost and comes back: nothing that was said is lost, and nothing comes twice.
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { Connection } from "../../frontend/js/connection.js";
import { Away, Resumption } from "../../frontend/js/resume.js";

const audio = (value, length = 720) => new Int16Array(length).fill(value);

test("messages that did not arrive are sent again, in order", () => {
  const resumption = new Resumption();
  resumption.keep("before there was a token", 0);
  resumption.offer("secret");
  for (const message of ["a", "b", "c"]) resumption.keep(message, 10);
  assert.deepEqual(resumption.again(2), ["b", "c"]);
  for (const message of ["b", "c", "d"]) resumption.keep(message, 20);
  assert.deepEqual(resumption.again(4), ["d"], "numbers go on from what had arrived");
});

test("what was sent long ago has arrived, and is not kept", () => {
  const resumption = new Resumption();
  resumption.offer("secret");
  resumption.keep("old", 0);
  resumption.keep("new", 31_000);
  assert.deepEqual(resumption.again(0), ["new"]);
  for (let i = 0; i < 200; i++) resumption.keep(audio(i, 24_000), 32_000);
  assert.ok(resumption.bytes <= 4 * 1024 * 1024);
});

test("without a token the next connection is a new session", () => {
  const resumption = new Resumption();
  assert.deepEqual(resumption.query, {});
  resumption.offer("secret");
  resumption.received = 17;
  assert.deepEqual(resumption.query, { resume: "secret", received: "17" });
  resumption.reset();
  assert.deepEqual(resumption.query, {});
});

test("ten seconds of speech are kept while there is no connection, with what was typed between", () => {
  const away = new Away(24_000);
  away.hear(audio(0, 24_000));
  away.note({ text: "typed" });
  for (let second = 1; second <= 10; second++) away.hear(audio(second, 24_000));
  const said = away.take(true);
  assert.deepEqual(
    said.map((one) => ("audio" in one ? one.audio[0] : one.text)),
    ["typed", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
  );
  assert.deepEqual(away.take(true), []);
});

test("a new session gets what was said, not what was about the old one", () => {
  const away = new Away(24_000);
  away.note({ event: { type: "response.cancel" } });
  away.note({ text: "typed" });
  assert.deepEqual(away.take(false), [{ text: "typed" }]);
});

test("what a user does while there is no connection is bounded", () => {
  const away = new Away(24_000);
  for (let i = 0; i < 500; i++) away.note({ text: String(i) });
  assert.equal(away.take(true).length, 64);
});

// -- the connection -------------------------------------------------------------------------------

class FakeSocket {
  static all = [];
  bufferedAmount = 0;
  sent = [];
  closed = null;
  constructor(url) {
    this.url = url;
    FakeSocket.all.push(this);
  }
  send(message) {
    this.sent.push(message);
  }
  close(code) {
    this.closed = code;
  }
  receive(event) {
    this.onmessage({ data: JSON.stringify(event) });
  }
}

let clock = 0;
const native = globalThis.WebSocket;
beforeEach(() => {
  globalThis.WebSocket = FakeSocket;
  FakeSocket.all = [];
  clock = 0;
});
afterEach(() => (globalThis.WebSocket = native));

/** A connection that is open and may be resumed; `states` and `events` tell what happened. */
function connected() {
  const log = [];
  const connection = new Connection((query) => new URLSearchParams(query).toString(), () => clock);
  connection.onState = (state) => log.push(state);
  connection.onEvent = ({ type }) => log.push(type);
  connection.onResumed = () => log.push("resumed");
  connection.onAnew = () => log.push("anew");
  connection.open();
  const [socket] = FakeSocket.all;
  socket.onopen();
  socket.receive({ type: "session.created" });
  socket.receive({ type: "avatar.resumable", token: "secret", within_s: 30 });
  return { connection, socket, log };
}

const lose = (socket, code = 1006) => socket.onclose({ code, reason: "" });

test("a lost connection goes on: it says what has come, and sends what did not arrive", () => {
  const { connection, socket, log } = connected();
  for (const text of ["a", "b", "c"]) connection.send({ text });
  lose(socket);
  connection.hurry();
  const next = FakeSocket.all[1];
  assert.equal(next.url, "resume=secret&received=2");
  next.onopen();
  next.receive({ type: "avatar.resumed", received: 1, frames_dropped: 0 });
  assert.deepEqual(next.sent.map(JSON.parse), [{ text: "b" }, { text: "c" }]);
  assert.deepEqual(log.slice(-4), ["lost", "connecting", "open", "resumed"]);
  assert.equal(connection.attempt, 0);
  next.receive({ type: "response.done" });
  lose(next);
  connection.hurry();
  assert.equal(FakeSocket.all[2].url, "resume=secret&received=4");
  connection.close();
});

test("a session that is gone is begun anew, at once, without the old one's numbers", () => {
  const { connection, socket, log } = connected();
  lose(socket);
  connection.hurry();
  lose(FakeSocket.all[1], 4004);
  assert.deepEqual(log.slice(-2), ["anew", "connecting"]);
  assert.equal(FakeSocket.all[2].url, "");
  assert.equal(connection.resumption.received, 0);
  connection.close();
});

test("who closes it on hearing that it is lost, or that the session is gone, is left alone", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  for (const [handler, code] of [["onState", 1006], ["onAnew", 4004]]) {
    FakeSocket.all = [];
    const { connection, socket } = connected();
    connection[handler] = (state) => {
      if (state !== "closed") connection.close();
    };
    lose(socket, code);
    t.mock.timers.tick(60_000);
    assert.equal(connection.state, "closed");
    assert.equal(FakeSocket.all.length, 1, `${handler}: it connected again`);
  }
});

test("a socket that swallows everything is given up", (t) => {
  t.mock.timers.enable({ apis: ["setInterval"] });
  const { connection, socket, log } = connected();
  for (let second = 0; second < 10 && !socket.closed; second++) {
    clock += 1000;
    connection.sendAudio(audio(0, 24_000));
    socket.bufferedAmount += 48_000;
    t.mock.timers.tick(1000);
  }
  assert.equal(socket.closed, 4001);
  assert.equal(log.at(-1), "lost");
  assert.ok(clock >= 4000 && clock <= 6000, `${clock} ms`);
  connection.close();
});

test("a slow socket that gets on is left alone", (t) => {
  t.mock.timers.enable({ apis: ["setInterval"] });
  const { connection, socket } = connected();
  for (let second = 0; second < 30; second++) {
    clock += 1000;
    connection.sendAudio(audio(0, 24_000));
    socket.bufferedAmount = 96_000;
    t.mock.timers.tick(1000);
  }
  assert.equal(socket.closed, null);
  connection.close();
});

test("what a closed connection's socket still says is not heard", () => {
  const { connection, socket, log } = connected();
  connection.close();
  const length = log.length;
  socket.receive({ type: "response.created" });
  lose(socket);
  assert.equal(log.length, length);
});
