// Which avatar is shown while pictures come late, in another order than asked for, or not at all.
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { Stage } from "../../frontend/js/stage.js";

const native = globalThis.fetch;
/** What waits for an answer, by the end of its address. */
let asked = new Map();

beforeEach(() => {
  asked = new Map();
  globalThis.fetch = /** @type {any} */ ((url, { signal } = {}) => {
    if (url.endsWith("avatar.json")) return Promise.resolve(Response.json({ width: 8, height: 8, fps: 25, frame_count: 1 }));
    return new Promise((resolve, reject) => {
      asked.set(url.slice("avatars/".length), resolve);
      signal?.addEventListener("abort", () => reject(new DOMException("", "AbortError")));
    });
  });
});
afterEach(() => (globalThis.fetch = native));

const settled = async () => {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
};

/** One picture, as it comes. */
function pictures() {
  const bytes = new Uint8Array(4 + 24 + 1);
  new DataView(bytes.buffer).setUint32(0, 25, true);
  bytes[4] = 1;
  return new Response(new Blob([bytes]));
}
const refusal = (text) => new Response(text, { status: 404, headers: { "Content-Type": "text/plain" } });

function start(query = "") {
  const log = [];
  const face = {
    idle: null,
    speech: null,
    setIdle(idle) {
      face.idle?.close();
      face.idle = idle;
    },
    exchangeIdle: (idle) => face.setIdle(idle),
    restart() {},
  };
  const backdrop = {
    query,
    loading() {},
    loaded() {},
    waiting() {},
    refuse(why) {
      log.push(why);
      backdrop.query = "";
    },
    use: () => void stage.changeBackground(),
  };
  const stage = new Stage(/** @type {any} */ ({ face, backdrop, decode: async () => ({ close() {} }) }));
  stage.onProgress = (share) => (stage.share = share);
  stage.onShown = () => log.push(`${face.idle.id}${face.idle.query}`);
  const answer = async (path, response) => {
    await settled();
    asked.get(path)(response);
    await settled();
  };
  return { stage, face, backdrop, log, answer };
}

test("of two avatars chosen quickly the second is shown, whichever comes first", async () => {
  const { stage, log, answer } = start();
  const shown = [stage.show("ada"), stage.show("bob")];
  await answer("bob/idle.bin", pictures());
  await Promise.all(shown);
  assert.deepEqual([log, stage.share], [["bob"], 1]);
});

test("an avatar that is not there is an error, and nothing goes on loading", async () => {
  const { stage, log, answer } = start();
  const shown = stage.show("ada");
  shown.catch(() => {});
  await answer("ada/idle.bin", refusal("no avatar 'ada'"));
  await assert.rejects(shown, { message: "No avatar 'ada'." });
  assert.deepEqual([log, stage.share], [[], 1]);
});

test("where its background is not available an avatar is shown before its own", async () => {
  const { stage, log, answer } = start("?background=transparent");
  const shown = stage.show("ada");
  await answer("ada/idle.bin?background=transparent", refusal("no person"));
  await answer("ada/idle.bin", pictures());
  await shown;
  assert.deepEqual(log, ["No person.", "ada"]);
});

test("another background waits until nothing is said, if it comes late", async () => {
  const { stage, face, backdrop, log, answer } = start();
  const shown = stage.show("ada");
  await answer("ada/idle.bin", pictures());
  await shown;
  backdrop.query = "?background=transparent";
  const changed = stage.changeBackground();
  face.speech = /** @type {any} */ ({});
  const later = "ada/idle.bin?background=transparent";
  const native = globalThis.setTimeout;
  globalThis.setTimeout = /** @type {any} */ ((resolve) => queueMicrotask(resolve));
  await answer(later, Response.json({ progress: "1 of 9" }, { status: 503 }));
  globalThis.setTimeout = native;
  await answer(later, pictures());
  assert.deepEqual(log, ["ada"]);
  face.speech = null;
  stage.rested();
  await changed;
  assert.deepEqual(log, ["ada", "ada?background=transparent"]);
});
