/**
 * The npm packages `@openai/agents` (realtime sessions over its WebSocket transport) and `openai`
 * (`OpenAIRealtimeWS`, which takes `wss://` only), unmodified.
 *
 *     node realtime.mjs URL VOICE.wav SCENARIO…
 *
 * Prints a line of JSON for each scenario: its name, and what was wrong, or null.
 */
import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import { RealtimeAgent, RealtimeSession, tool } from "@openai/agents/realtime";
import { setTracingDisabled } from "@openai/agents";
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";
import { z } from "zod";

const RATE = 24000;
const TIMEOUT_MS = 120_000;
const [url, wav, ...wanted] = process.argv.slice(2);
const voice = readFileSync(wav).subarray(44);
setTracingDisabled(true);

const weather = tool({
  name: "weather",
  description: "The weather of a city.",
  parameters: z.object({ city: z.string() }),
  execute: async ({ city }) => `sunny in ${city}`,
});

/** A session and all that it told. An error that it tells fails the scenario. */
async function talk(config, scenario) {
  const agent = new RealtimeAgent({ name: "Host", instructions: "Be kind.", tools: [weather] });
  const session = new RealtimeSession(agent, { transport: "websocket", model: "any", config });
  const seen = { audio: 0, ends: 0, interrupted: 0, tools: [], errors: [], history: [] };
  session.on("audio", ({ data }) => (seen.audio += data.byteLength / 2 / RATE));
  session.on("agent_end", () => (seen.ends += 1));
  session.on("audio_interrupted", () => (seen.interrupted += 1));
  session.on("agent_tool_end", (_context, _agent, _tool, result) => seen.tools.push(result));
  session.on("history_updated", (history) => (seen.history = history));
  session.on("error", ({ error }) => seen.errors.push(error));
  await session.connect({ apiKey: "any", url: `${url}?model=any` });
  try {
    await scenario(session, seen);
    await sleep(300); // what is still on its way is looked at too
  } finally {
    session.close();
  }
  assert.deepEqual(seen.errors, []);
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(happened) {
  while (!happened()) await sleep(20);
}

/** The voice in packets of 20 ms, and silence after it. */
function speak(session) {
  const sound = Buffer.concat([voice, Buffer.alloc(2 * RATE)]);
  const step = (RATE / 50) * 2;
  for (let at = 0; at + step <= sound.length; at += step) {
    const packet = sound.subarray(at, at + step);
    session.sendAudio(packet.buffer.slice(packet.byteOffset, packet.byteOffset + step));
  }
}

const said = (seen, role) =>
  seen.history
    .filter((item) => item.type === "message" && item.role === role)
    .flatMap((item) => item.content)
    .map((part) => (part.transcript ?? part.text ?? "").trim());

const scenarios = {
  /** Recorded voice goes in by `sendAudio`; its transcript and an answer with sound come. */
  async a_voice_is_answered() {
    await talk({}, async (session, seen) => {
      speak(session);
      await until(() => seen.ends > 0);
      assert.ok(seen.audio > 1.0, `${seen.audio} s`);
      await until(() => said(seen, "user").includes("Hello. How do you do today?"));
      assert.ok(said(seen, "assistant").includes("You said: Hello. How do you do today?"));
    });
  },

  /** `sendMessage` is answered with sound; both sides stand in the history. */
  async a_message_is_answered() {
    await talk({ voice: "alloy", outputModalities: ["audio"] }, async (session, seen) => {
      session.sendMessage("One two three.");
      await until(() => seen.ends > 0);
      assert.ok(seen.audio > 0.5);
      assert.deepEqual(said(seen, "user"), ["One two three."]);
      assert.ok(said(seen, "assistant").includes("You said: One two three."));
    });
  },

  /** The SDK runs the tool that the model calls, and the answer tells its result. */
  async a_tool_is_run() {
    await talk({}, async (session, seen) => {
      session.sendMessage("How is the weather?");
      await until(() => said(seen, "assistant").some((text) => text.includes("sunny in Paris")));
      assert.deepEqual(seen.tools, ["sunny in Paris"]);
      await until(() => seen.audio > 0.5);
    });
  },

  /** `interrupt()` cuts the answer and truncates its item; the next message is answered. */
  async an_answer_is_interrupted() {
    await talk({}, async (session, seen) => {
      session.sendMessage("Speak at length, please.");
      await until(() => seen.audio > 2);
      session.interrupt();
      await until(() => seen.interrupted > 0);
      session.sendMessage("One two three.");
      await until(() => said(seen, "assistant").includes("You said: One two three."));
    });
  },

  /** Speaking into an answer interrupts it; the SDK truncates; the user is answered. */
  async speech_interrupts_an_answer() {
    await talk({}, async (session, seen) => {
      session.sendMessage("Speak at length, please.");
      await until(() => seen.audio > 3);
      speak(session);
      await until(() => seen.interrupted > 0);
      await until(() => said(seen, "assistant").some((text) => text.includes("How do you do")));
    });
  },

  /** `outputModalities: ["text"]`: the answer is text, and there is no sound. */
  async text_alone() {
    await talk({ outputModalities: ["text"] }, async (session, seen) => {
      session.sendMessage("One two three.");
      await until(() => said(seen, "assistant").includes("You said: One two three."));
      assert.equal(seen.audio, 0);
    });
  },

  /** The plain client of the `openai` package: text in, a text in pieces and whole. */
  async the_openai_package() {
    const baseURL = url.replace("wss:", "https:").replace(/\/realtime$/, "");
    const socket = new OpenAIRealtimeWS({ model: "any" }, new OpenAI({ apiKey: "any", baseURL }));
    const done = new Promise((resolve, reject) => {
      let pieces = "";
      socket.on("error", reject);
      socket.on("response.output_text.delta", ({ delta }) => (pieces += delta));
      socket.on("response.output_text.done", ({ text }) => resolve([pieces, text]));
    });
    socket.on("session.created", () => {
      const content = [{ type: "input_text", text: "One two three." }];
      socket.send({ type: "session.update", session: { type: "realtime", output_modalities: ["text"] } });
      socket.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
      socket.send({ type: "response.create" });
    });
    const [pieces, text] = await done;
    socket.close();
    assert.equal(pieces, text);
    assert.equal(text.trim(), "You said: One two three.");
  },
};

for (const name of wanted) {
  let fault = null;
  const limit = new Promise((_, reject) =>
    setTimeout(() => reject(new Error("it took too long")), TIMEOUT_MS).unref(),
  );
  try {
    await Promise.race([scenarios[name](), limit]);
  } catch (error) {
    fault = error?.stack ?? JSON.stringify(error);
  }
  console.log(JSON.stringify({ scenario: name, fault }));
}
process.exit(0);
