// An avatar's pictures are fetched, whatever becomes of the connection meanwhile.
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { IdleCycle, IdleError } from "../../frontend/js/idle.js";

const ABOUT = { width: 32, height: 32, fps: 25, frame_count: 2 };
const natives = { fetch: globalThis.fetch, setTimeout: globalThis.setTimeout };

beforeEach(() => {
  globalThis.setTimeout = /** @type {any} */ ((resolve) => queueMicrotask(resolve)); // no waiting
});
afterEach(() => Object.assign(globalThis, natives));

/** A picture of one byte, as it comes. */
function message(index) {
  const bytes = new Uint8Array(4 + 24 + 1);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 25, true);
  view.setUint8(4, 1);
  view.setUint32(8, index, true);
  bytes[28] = 100 + index;
  return bytes;
}

const plain = (text, status) => new Response(text, { status, headers: { "Content-Type": "text/plain; charset=utf-8" } });
const page = (status) => new Response("<h1>Oh</h1>", { status, headers: { "Content-Type": "text/html" } });
const pictures = () => new Response(new Blob([message(0), message(1)]));

/** The first picture, then the line breaks. */
function broken() {
  let pulled = 0;
  return new Response(
    new ReadableStream({
      pull(stream) {
        if (pulled++) stream.error(new TypeError("network error"));
        else stream.enqueue(message(0));
      },
    }),
  );
}

/** A server that answers with these, one after the other; what is an Error is thrown. */
function answers(...queue) {
  const asked = [];
  globalThis.fetch = async (url, { signal } = {}) => {
    signal?.throwIfAborted();
    asked.push(url);
    const answer = queue.shift();
    if (answer instanceof Error) throw answer;
    return /** @type {Response} */ (answer);
  };
  return asked;
}

const cycle = (query = "") => new IdleCycle("ada", async () => /** @type {any} */ ("bitmap"), query);
const about = () => Response.json(ABOUT);

test("a server that is restarted meanwhile is waited for, and a broken line begins again", async () => {
  const away = new TypeError("Failed to fetch");
  answers(away, page(502), about(), plain("", 503), broken(), away, pictures());
  const shares = [];
  const idle = cycle();
  await idle.load((share) => shares.push(share));
  assert.deepEqual([idle.count, idle.fps, shares.at(-1)], [2, 25, 1]);
  assert.deepEqual(idle.pictures.map(([byte]) => byte), [100, 101]);
});

test("pictures that there are not are an error in the server's words", async () => {
  const asked = answers(about(), plain("JPEG pictures cannot be transparent\n", 404));
  const loaded = cycle("?background=transparent").load();
  await assert.rejects(loaded, (error) => error instanceof IdleError && error.message === "JPEG pictures cannot be transparent.");
  assert.deepEqual(asked, ["avatars/ada/avatar.json", "avatars/ada/idle.bin?background=transparent"]);
});

test("a page of a proxy is not shown as a sentence", async () => {
  answers(page(500));
  await assert.rejects(cycle().load(), (error) => error instanceof IdleError && /: 500\.$/.test(error.message));
});

test("a cycle that is not wanted any more asks no longer", async () => {
  const idle = cycle();
  const asked = answers(plain("", 503), plain("", 503));
  const loaded = idle.load();
  idle.close();
  await assert.rejects(loaded, { name: "AbortError" });
  assert.ok(asked.length <= 1);
});
