// A file on its way to becoming an avatar: whole, in order, and no faster than the line takes it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Making } from "../../frontend/js/making.js";
import { Pace, Upload, UploadError } from "../../frontend/js/upload.js";

const bytes = (size) => Uint8Array.from({ length: size }, (_, i) => (i * 7) % 251);
const KiB = 1024;

/** A server that acknowledges after so many ms; time moves only here. */
function server({ size = 500_000, windowBytes = 256 * KiB, pieceBytes = 64 * KiB } = {}) {
  const file = new File([bytes(size)], "Anna.jpg", { type: "image/jpeg" });
  const sent = [];
  const clock = { ms: 1000 };
  const upload = new Upload(file, (event) => sent.push(event), () => clock.ms);
  const shares = [];
  upload.onProgress = (text, share) => shares.push([text, share]);
  upload.start();
  const pieces = () => sent.filter(({ type }) => type === "avatar.create.append");
  const data = () => Buffer.concat(pieces().map((one) => Buffer.from(one.data, "base64")));
  const settled = async () => {
    for (let i = 0; i < 50; i++) await new Promise((resolve) => setImmediate(resolve));
  };
  const ready = () => upload.receive({
    type: "avatar.create.ready", upload_id: "u1", max_piece_bytes: pieceBytes, window_bytes: windowBytes,
  });
  const acknowledge = (received) => upload.receive({
    type: "avatar.create.received", upload_id: "u1", received_bytes: received,
  });
  return { upload, sent, clock, shares, pieces, data, settled, ready, acknowledge, file };
}

test("a file is sent whole and in order, then committed once", async () => {
  const { upload, sent, clock, pieces, data, settled, ready, acknowledge, file } = server();
  assert.equal(sent[0].type, "avatar.create");
  assert.deepEqual([sent[0].file_name, sent[0].size], ["Anna.jpg", 500_000]);
  ready();
  await settled();
  while (data().length < file.size) {
    clock.ms += 1;
    acknowledge(data().length);
    await settled();
  }
  assert.deepEqual(new Uint8Array(data()), bytes(500_000));
  let offset = 0;
  for (const piece of pieces()) {
    assert.equal(piece.offset, offset);
    offset += Buffer.from(piece.data, "base64").length;
  }
  assert.equal(sent.filter(({ type }) => type === "avatar.create.commit").length, 1);
  assert.equal(sent.at(-1).type, "avatar.create.commit");
  const made = { type: "avatar.created", upload_id: "u1", avatar: { id: "anna" }, notes: [], preview: "" };
  upload.receive(made);
  assert.equal((await upload.done).avatar.id, "anna");
});

test("a slow line has one piece on its way, a fast one what it takes in 150 ms, at most the window", () => {
  const slow = new Pace(256 * KiB);
  slow.arrived(0, 1000);
  for (let ms = 1300; ms < 4000; ms += 300) slow.arrived(32 * KiB, ms);
  assert.equal(slow.limitBytes, 32 * KiB);
  const medium = new Pace(256 * KiB);
  medium.arrived(0, 1000);
  for (let ms = 1032; ms < 2000; ms += 32) medium.arrived(32 * KiB, ms);
  assert.ok(Math.abs(medium.limitBytes - 150 * KiB) < KiB);
  const fast = new Pace(256 * KiB);
  fast.arrived(0, 1000);
  for (let ms = 1001; ms < 1100; ms += 1) fast.arrived(32 * KiB, ms);
  assert.equal(fast.limitBytes, 256 * KiB);
});

test("nothing is sent beyond what was acknowledged and the limit", async () => {
  const { pieces, settled, ready } = server();
  ready();
  await settled();
  assert.equal(pieces().length, 1, "the line's speed is not known yet");
});

test("pieces are as small as the server wants them", async () => {
  const { pieces, settled, ready } = server({ pieceBytes: 1000 });
  ready();
  await settled();
  assert.ok(pieces().every((one) => Buffer.from(one.data, "base64").length <= 1000));
});

test("the bar only grows from stage to stage", async () => {
  const { upload, shares, ready, acknowledge } = server();
  ready();
  acknowledge(250_000);
  for (const [stage, done, total] of [["wait", 0, 0], ["look", 1, 1], ["follow", 5, 10], ["write", 1, 2], ["prepare", 9, 9]]) {
    upload.receive({ type: "avatar.create.progress", upload_id: "u1", stage, done, total });
  }
  const values = shares.map(([, share]) => share);
  assert.deepEqual(values, [...values].sort((a, b) => a - b));
  assert.equal(values.at(-1), 1);
  assert.equal(shares.at(-1)[0], "Preparing the face");
});

test("a refusal and a failure are sentences", async () => {
  const refused = server();
  const { event_id } = refused.sent[0];
  refused.upload.receive({ type: "error", error: { event_id, message: "the file has 200 MB" } });
  await assert.rejects(refused.upload.done, new UploadError("The file has 200 MB."));
  const failed = server();
  failed.ready();
  const error = { message: "anna.jpg: no face was found." };
  failed.upload.receive({ type: "avatar.create.failed", upload_id: "u1", error });
  await assert.rejects(failed.upload.done, new UploadError("anna.jpg: no face was found."));
});

test("a cancel is told, and what comes after it is nobody's", async () => {
  const { upload, sent, ready, acknowledge, settled } = server();
  ready();
  await settled();
  upload.cancel();
  await assert.rejects(upload.done, UploadError);
  assert.equal(sent.at(-1).type, "avatar.create.cancel");
  const count = sent.length;
  acknowledge(32 * KiB);
  await settled();
  assert.equal(sent.length, count);
});

// -- the connection that changes are made over ------------------------------------------------------

/** Sockets that a test opens, feeds and drops. */
function sockets(t) {
  const all = [];
  class FakeSocket {
    sent = [];
    bufferedAmount = 0;
    constructor(url) {
      this.url = url;
      all.push(this);
    }
    send(message) {
      this.sent.push(JSON.parse(message));
    }
    close(code) {
      this.closed = code;
    }
    open() {
      this.onopen();
      this.say({ type: "session.created" });
    }
    say(event) {
      this.onmessage({ data: JSON.stringify(event) });
    }
    drop(code = 1006, reason = "") {
      this.onclose({ code, reason });
    }
  }
  const before = globalThis.WebSocket;
  globalThis.WebSocket = FakeSocket;
  t.after(() => {
    globalThis.WebSocket = before;
  });
  t.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  return all;
}

const making = () => new Making((query) => `ws://x/?${new URLSearchParams(query)}`, () => null);
const photo = () => new File([bytes(100)], "Anna.jpg", { type: "image/jpeg" });

test("a change opens a connection, and closes it when it is answered", async (t) => {
  const all = sockets(t);
  const one = making();
  const renamed = one.change({ type: "avatar.rename", avatar_id: "anna", name: "Eve" });
  all[0].open();
  assert.equal(all[0].sent[0].type, "avatar.rename");
  all[0].say({ type: "avatar.list.updated", avatars: [], default: null });
  t.mock.timers.tick(1);
  assert.equal(all[0].closed, undefined, "the list may have changed for another reason");
  all[0].say({ type: "avatar.renamed", avatar_id: "anna", name: "Eve" });
  await renamed;
  t.mock.timers.tick(1);
  assert.equal(all[0].closed, 1000);
});

test("a refused change says why", async (t) => {
  const all = sockets(t);
  const deleted = making().change({ type: "avatar.delete", avatar_id: "ada" });
  all[0].open();
  const { event_id } = all[0].sent[0];
  all[0].say({ type: "error", error: { event_id, message: "It cannot be deleted." } });
  await assert.rejects(deleted, new UploadError("It cannot be deleted."));
});

test("a lost connection goes on with its session, or the upload ends with a reason", async (t) => {
  const all = sockets(t);
  const resumed = making();
  resumed.begin(photo());
  all[0].open();
  all[0].say({ type: "avatar.resumable", token: "secret" });
  all[0].drop();
  t.mock.timers.tick(1000);
  assert.match(all[1].url, /resume=secret/);
  const other = making();
  const upload = other.begin(photo());
  all[2].open();
  all[2].drop(1011, "internal error");
  await assert.rejects(upload.done, /The connection was lost \(internal error\)/);
});

test("a server that is full is asked again, with the file still at hand", (t) => {
  const all = sockets(t);
  const one = making();
  const reasons = [];
  one.onLost = (reason) => reasons.push(reason);
  one.begin(photo());
  all[0].drop(1013, "all 32 sessions are in use");
  assert.deepEqual(reasons, ["all 32 sessions are in use"]);
  t.mock.timers.tick(1000);
  all[1].open();
  assert.deepEqual(all[1].sent.map(({ type }) => type), ["avatar.create"]);
});
