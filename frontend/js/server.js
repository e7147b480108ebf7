// @ts-check
/** What the server has, before there is a session: is it ready; its engines, voices, avatars. */

import { chatState, voicesIn } from "./engines.js";

/** @param {number} ms */
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Its answer as JSON; null where it has none. @param {string} path */
async function ask(path) {
  try {
    const response = await fetch(path, { cache: "no-store" });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

/**
 * Wait until it can be used.
 * @param {(phase: "loading" | "waiting", text: string) => void} tell  why not yet
 */
export async function ready(tell) {
  for (;;) {
    try {
      const response = await fetch("readyz", { cache: "no-store" });
      if (response.ok) return;
      tell("loading", "The server is loading its model");
    } catch {
      tell("waiting", "No server yet");
    }
    await pause(1000);
  }
}

/** What its engines allow. An Ollama, for example, may be started later. */
export const engines = async () => chatState(await ask("api/engines"));

/** The voices to choose from. `complete` false: there will be more. */
export async function voices() {
  const answer = await ask("api/voices");
  return { voices: voicesIn(answer), complete: answer?.complete !== false };
}

/**
 * @returns {Promise<import("./avatars.js").Listing & {makesVideos: boolean,
 *   background: import("./backdrop.js").Offer}>}
 * @throws {Error} where there is none
 */
export async function avatars() {
  const listed = await (await fetch("api/avatars", { cache: "no-store" })).json();
  if (!listed.avatars.length) {
    throw new Error("The server has no avatars. Add one to its avatars folder.");
  }
  return {
    avatars: listed.avatars,
    fallback: listed.default,
    maxBytes: listed.uploads?.max_bytes ?? null,
    makesVideos: listed.videos === true,
    background: listed.background ?? { name: "original", codec: "jpeg", codecs: [], choose: false },
  };
}
