// The page reads and writes the same bytes as the server.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import {
  HEADER_BYTES,
  MessageReader,
  ProtocolError,
  events,
  floatFromPcm16,
  newId,
  pack,
  pcm16FromBase64,
  pcm16FromBytes,
  pcm16FromFloat,
  sentence,
  unpack,
} from "../../frontend/js/protocol.js";

const golden = JSON.parse(
  readFileSync(new URL("../golden/binary_messages.json", import.meta.url), "utf8"),
);
const fromHex = (hex) => new Uint8Array(Buffer.from(hex, "hex"));
const toHex = (bytes) => Buffer.from(bytes).toString("hex");
const bufferOf = (hex) => fromHex(hex).slice().buffer;

assert.ok(golden.length > 0, "there are golden messages");

for (const { name, hex, fields } of golden) {
  test(`golden message: ${name}`, () => {
    const message = unpack(bufferOf(hex));
    const { payload, ptsUs, region, ...rest } = message;
    const [x, y, w, h] = region;
    assert.deepEqual(
      { ...rest, pts_us: ptsUs, x, y, w, h, payload_hex: toHex(payload) },
      fields,
    );
    assert.equal(toHex(new Uint8Array(pack(message))), hex);
  });
}

test("a message without a whole header is refused", () => {
  assert.throws(() => unpack(new ArrayBuffer(HEADER_BYTES - 1)), ProtocolError);
});

test("an unknown type is refused", () => {
  const bytes = fromHex(golden[0].hex);
  bytes[0] = 9;
  assert.throws(() => unpack(bytes.buffer), ProtocolError);
});

test("length-prefixed messages are found however the stream is cut", () => {
  const bodies = golden.map(({ hex }) => fromHex(hex));
  const stream = Buffer.concat(
    bodies.flatMap((body) => {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(body.length);
      return [length, Buffer.from(body)];
    }),
  );
  for (const step of [1, 7, 64, stream.length]) {
    const reader = new MessageReader();
    const found = [];
    for (let at = 0; at < stream.length; at += step) {
      found.push(...reader.push(new Uint8Array(stream.subarray(at, at + step))));
    }
    assert.deepEqual(
      found.map((message) => toHex(new Uint8Array(pack(message)))),
      golden.map(({ hex }) => hex),
    );
  }
});

test("a length beyond the limit is an error, not an allocation", () => {
  const reader = new MessageReader(1000);
  assert.throws(() => reader.push(new Uint8Array([0xff, 0xff, 0xff, 0x7f])), ProtocolError);
});

test("PCM16 survives the way to float and back, and louder than full scale is clipped", () => {
  const samples = Int16Array.of(0, 1, -1, 32767, -32768, 12345);
  assert.deepEqual(pcm16FromFloat(floatFromPcm16(samples)), samples);
  assert.deepEqual(pcm16FromFloat(Float32Array.of(2, -2)), Int16Array.of(32767, -32768));
});

test("base64 audio is little-endian, and half a sample is refused", () => {
  assert.deepEqual(pcm16FromBase64("AQD//w=="), Int16Array.of(1, -1));
  assert.throws(() => pcm16FromBytes(new Uint8Array(3)), ProtocolError);
});

test("playback reports carry whole, non-negative numbers", () => {
  const event = events.playback("resp_1", -3.2, 4, 1);
  assert.equal(event.position_ms, 0);
  assert.equal(events.playback("resp_1", 1234.56, 4, 1).position_ms, 1235);
});

test("frames are asked for as they are to look", () => {
  const wishes = { mode: "mirror", region: "mouth", inputRate: 24000, outputRate: 24000 };
  const look = { background: "transparent", codec: "webp" };
  const { video } = events.sessionUpdate({ ...wishes, look }).session.avatar;
  assert.deepEqual(video, { encoding: "binary", region: "mouth", ...look });
  assert.ok(!("codec" in events.sessionUpdate(wishes).session.avatar.video));
});

test("without an avatar chosen, the session's own stays", () => {
  const wishes = { mode: "mirror", region: "full", inputRate: 24000, outputRate: 24000 };
  assert.ok(!("id" in events.sessionUpdate(wishes).session.avatar));
});

test("ids are the server's kind, and all different", () => {
  const ids = new Set(Array.from({ length: 1000 }, () => newId("item")));
  assert.equal(ids.size, 1000);
  for (const id of ids) assert.match(id, /^item_[0-9a-f]{20}$/);
});

test("what the server says went wrong is a sentence, without a field's name", () => {
  const said = [
    [{ message: "name: Should be text that can be read, in one line.", param: "name" }, "Should be text that can be read, in one line."],
    [{ message: "the server has no space for the file", param: null }, "The server has no space for the file."],
    [{ message: "anna.jpg: no face was found" }, "anna.jpg: no face was found."],
  ];
  for (const [error, text] of said) assert.equal(sentence(error), text);
});
