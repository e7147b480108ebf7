// A file on its way to becoming an avatar: whole, in order, and no faster than the line takes it.
import assert from "node:assert/strict";
import { test } from "node:test";
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
