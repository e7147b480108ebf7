// A video is ordered over a connection of its own, and everything that can end it is said.
import assert from "node:assert/strict";
import { test } from "node:test";
import { VideoError, VideoMaker } from "../../frontend/js/video.js";

/** A connection that a test plays the server of. */
function start() {
  const sent = [];
  const connection = {
    opened: 0,
    closed: 0,
    resumption: { token: "" },
    open() { this.opened++; },
    close() { this.closed++; },
    send(event) { sent.push(event); return true; },
  };
  const maker = new VideoMaker(() => "", () => "token", /** @type {any} */ (connection));
  const progress = [];
  maker.onProgress = (...at) => progress.push(at);
  const made = maker.make({ text: "Hello.", avatar: "ada" });
  made.catch(() => {});
  const say = (type, fields = {}) => connection.onEvent({ type, ...fields });
  return { maker, connection, sent, made, progress, say };
}


test("an order is sent once the session is there; progress and the file are told", async () => {
  const { connection, sent, made, progress, say } = start();
  assert.deepEqual([connection.opened, connection.token, sent], [1, "token", []]);
  say("session.created");
  const look = { format: "mp4", background: "" };
  assert.deepEqual(sent, [{ type: "avatar.render", text: "Hello.", avatar: "ada", voice: "", ...look }]);
  say("avatar.render.created", { render_id: "v1" });
  say("avatar.render.progress", { render_id: "v1", frames_done: 5, frames_total: null });
  say("avatar.render.done", { render_id: "v1", url: "videos/x.mp4", bytes: 9, duration_ms: 1500 });
  assert.deepEqual(await made, { url: "videos/x.mp4", bytes: 9, seconds: 1.5 });
  assert.deepEqual(progress, [[5, null]]);
  assert.equal(connection.closed, 1);
});

test("a picture of the user's own goes with the order, in place of a background", () => {
  const { maker, made, sent, say } = start();
  maker.cancel();
  made.catch(() => {});
  void maker.make({ text: "Hello.", picture: "AAAA" });
  say("session.created");
  const { picture, background } = sent.at(-1);
  assert.deepEqual([picture, background], ["AAAA", undefined]);
});

test("a refusal, a failure and a lost connection end it with a reason", async () => {
  const ends = [
    ({ say }) => say("error", { error: { message: "No videos here." } }),
    ({ say }) => {
      say("avatar.render.created", { render_id: "v1" });
      say("avatar.render.failed", { render_id: "v1", error: { message: "It is too long." } });
    },
    ({ connection }) => connection.onAnew(),
    ({ connection }) => connection.onState("lost", ""),
    ({ connection }) => connection.onState("lost", "all sessions are in use"),
  ];
  for (const end of ends) {
    const one = start();
    if (end !== ends.at(-1)) one.say("session.created");
    end(one);
    await assert.rejects(one.made, (error) => error instanceof VideoError && error.message !== "");
    assert.deepEqual([one.maker.busy, one.connection.closed], [false, 1]);
  }
});

test("a lost connection that goes on is waited for", async () => {
  const { maker, connection, made, say } = start();
  connection.onState("lost", ""); // nothing was sent: it will be
  say("session.created");
  connection.resumption.token = "secret";
  say("avatar.render.created", { render_id: "v1" });
  connection.onState("lost", "");
  say("avatar.render.done", { render_id: "v1", url: "videos/x.mp4", bytes: 9, duration_ms: 1500 });
  assert.equal((await made).url, "videos/x.mp4");
  assert.equal(maker.busy, false);
});

test("a cancel is sent, and says nothing; another video can be made then", async () => {
  const { maker, connection, sent, made, say } = start();
  say("session.created");
  say("avatar.render.created", { render_id: "v1" });
  assert.throws(() => maker.make({ text: "Another." }), VideoError);
  maker.cancel();
  assert.deepEqual(sent.at(-1), { type: "avatar.render.cancel", render_id: "v1" });
  await assert.rejects(made, { message: "" });
  maker.make({ text: "Another." }).catch(() => {});
  assert.deepEqual([connection.opened, connection.closed], [2, 1]);
  maker.cancel();
});
