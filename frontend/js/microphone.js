// @ts-check
/**
 * The microphone: permission, choice, level, and PCM16 blocks of about 30 ms at the agreed rate.
 *
 * Knows nothing of the network. Says what is wrong in words a user can act on.
 */

import { pcm16FromFloat } from "./protocol.js";
import { Resampler } from "./resampler.js";

const BLOCK_S = 0.03;

/** The microphone cannot be used; `message` says what to do about it. */
export class MicrophoneError extends Error {
  /**
   * @param {"missing" | "gone" | "denied" | "busy" | "insecure" | "failed"} code
   * @param {string} message
   */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** @type {Record<string, [MicrophoneError["code"], string]>} */
const REASONS = {
  NotAllowedError: [
    "denied",
    "The microphone is blocked. Allow it in the address bar’s site settings and press Start " +
      "again. Until then, you can type below.",
  ],
  NotFoundError: [
    "missing",
    "No microphone was found. Connect one and press Start again. Until then, you can type below.",
  ],
  NotReadableError: [
    "busy",
    "The microphone is in use by another program. Close it there and press Start again.",
  ],
  OverconstrainedError: ["gone", "That microphone is gone. Choose another one."],
};

export class Microphone {
  /**
   * @param {AudioContext} context
   * @param {number} rate  Hz of the blocks given to `onBlock`
   */
  constructor(context, rate) {
    this.context = context;
    this.resampler = new Resampler(context.sampleRate, rate);
    /** RMS of the last block, in [0, 1]. */
    this.level = 0;
    /** @type {(samples: Int16Array<ArrayBuffer>) => void} */
    this.onBlock = () => {};
    /** Called when the device goes away by itself. */
    this.onLost = () => {};
  }

  /**
   * @param {string} [deviceId]
   * @throws {MicrophoneError}
   */
  async open(deviceId) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new MicrophoneError(
        "insecure",
        "Browsers give the microphone only to pages from https or localhost. You can type below.",
      );
    }
    const stream = await this.#ask(deviceId);
    await this.context.audioWorklet.addModule(new URL("../worklets/capture.js", import.meta.url));
    this.close();
    this.stream = stream;
    stream.getAudioTracks()[0].onended = () => this.onLost();
    this.source = this.context.createMediaStreamSource(stream);
    this.node = new AudioWorkletNode(this.context, "capture", {
      numberOfOutputs: 0,
      processorOptions: { blockSamples: Math.round(this.context.sampleRate * BLOCK_S) },
    });
    this.node.port.onmessage = ({ data }) => this.#receive(data);
    this.source.connect(this.node);
  }

  get isOpen() {
    return this.stream !== undefined;
  }

  close() {
    this.source?.disconnect();
    if (this.node) this.node.port.onmessage = null;
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = this.source = this.node = undefined;
    this.level = 0;
    this.resampler.reset();
  }

  /** @param {string} [deviceId] */
  async #ask(deviceId) {
    try {
      return await navigator.mediaDevices.getUserMedia({
        audio: {
          ...(deviceId ? { deviceId: { exact: deviceId } } : {}),
          channelCount: 1,
          echoCancellation: true,
          noiseSuppression: true,
          autoGainControl: true,
        },
      });
    } catch (error) {
      const { name = "" } = /** @type {{name?: string}} */ (error ?? {});
      const [code, message] = REASONS[name] ?? ["failed", `The microphone did not start: ${error}`];
      throw new MicrophoneError(code, message);
    }
  }

  /** @param {Float32Array} block */
  #receive(block) {
    let sum = 0;
    for (const sample of block) sum += sample * sample;
    this.level = Math.sqrt(sum / block.length);
    this.onBlock(pcm16FromFloat(this.resampler.push(block)));
  }
}

/** @returns {Promise<{id: string, label: string}[]>}  labels are empty before permission */
export async function listMicrophones() {
  const devices = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  return devices
    .filter(({ kind, deviceId }) => kind === "audioinput" && deviceId)
    .map(({ deviceId, label }, i) => ({ id: deviceId, label: label || `Microphone ${i + 1}` }));
}
