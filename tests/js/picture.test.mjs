// What is drawn of a mouth on the idle picture: `node --test`, without a browser.
import assert from "node:assert/strict";
import { test } from "node:test";

import { IdleCycle } from "../../frontend/js/idle.js";
import { Picture } from "../../frontend/js/picture.js";

const JPEG = new Uint8Array([0xff, 0xd8, 0xff, 0xe0]);
const WEBP = new TextEncoder().encode("RIFF____WEBP");
const REGION = /** @type {[number, number, number, number]} */ ([16, 16, 32, 32]);

/** What is done to a canvas of 64x64 to show a mouth on an idle picture. @param {Uint8Array} picture */
async function drawn(picture) {
  const idle = new IdleCycle("ada", async () => /** @type {any} */ ("idle"));
  Object.assign(idle, { width: 64, height: 64, count: 1, pictures: [picture] });
  const frame = /** @type {any} */ ({ region: REGION, ptsUs: 0 });
  const shown = await Picture.of(frame, Promise.resolve(/** @type {any} */ ("mouth")), idle, 0);
  /** @type {unknown[]} */
  const calls = [];
  shown.draw(
    /** @type {any} */ ({
      canvas: { width: 64, height: 64 },
      clearRect: (...at) => calls.push(["clear", ...at]),
      drawImage: (bitmap) => calls.push(bitmap),
    }),
  );
  return calls;
}

test("a transparent mouth replaces its place on a transparent picture", async () => {
  assert.deepEqual(await drawn(WEBP), [["clear", 0, 0, 64, 64], "idle", ["clear", ...REGION], "mouth"]);
});

test("on a picture that is still opaque it makes no hole", async () => {
  assert.deepEqual(await drawn(JPEG), [["clear", 0, 0, 64, 64], "idle", "mouth"]);
});
