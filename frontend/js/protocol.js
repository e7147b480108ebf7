// @ts-check
/**
 * The wire, as the page sees it: binary messages to plain objects, and the events the page sends.
 *
 * Pure: knows neither sockets nor the DOM, so the same file runs under `node --test`, against the
 * same golden bytes as the server.
 *
 * A binary message is a 24-byte little-endian header `<BBHIQHHHH` and its payload: type, flags,
 * generation, index (frame number, or first sample), pts in microseconds, x, y, w, h.
 */

/**
 * An id that nothing else has. `crypto.randomUUID` exists on pages from https and localhost only.
 * @param {string} prefix
 */
export function newId(prefix) {
  const bytes = crypto.getRandomValues(new Uint8Array(10));
  return `${prefix}_${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/**
 * What the server says went wrong, as a sentence for the user: without the field's name, which is
 * for programs. A file's name before it stays as it is.
 * @param {{message: string, param?: string | null}} error
 */
export function sentence({ message, param }) {
  const isNamed = Boolean(param) && message.startsWith(`${param}: `);
  const text = isNamed ? message.slice(`${param}: `.length) : message;
  const upper = /^[a-z]+ /.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text;
  return /[.!?]$/.test(upper) ? upper : `${upper}.`;
}

export const HEADER_BYTES = 24;
export const TYPE_FRAME = 1;
export const TYPE_PCM16 = 2;

/**
 * @typedef {object} BinaryMessage
 * @property {number} type  1: one frame; 2: PCM16 LE mono audio
 * @property {number} flags
 * @property {number} generation  counts a session's responses, modulo 65536
 * @property {number} index  frame number on the response's timeline, or its first sample's number
 * @property {number} ptsUs  microseconds on the response's timeline
 * @property {[number, number, number, number]} region  x, y, w, h in avatar pixels
 * @property {Uint8Array} payload  a view, not a copy
 */

/** A message that is not what the protocol says it is. */
export class ProtocolError extends Error {}

/**
 * @param {ArrayBuffer} buffer  one whole WebSocket message
 * @returns {BinaryMessage}
 * @throws {ProtocolError} where the header is cut short or the type is unknown
 */
export function unpack(buffer) {
  return unpackAt(buffer, 0, buffer.byteLength);
}

/**
 * @param {ArrayBuffer} buffer
 * @param {number} start  where the header begins
 * @param {number} length  of header and payload together
 * @returns {BinaryMessage}
 */
export function unpackAt(buffer, start, length) {
  if (length < HEADER_BYTES || start + length > buffer.byteLength) {
    throw new ProtocolError(`a binary message of ${length} bytes has no whole header`);
  }
  const view = new DataView(buffer, start, HEADER_BYTES);
  const type = view.getUint8(0);
  if (type !== TYPE_FRAME && type !== TYPE_PCM16) {
    throw new ProtocolError(`unknown binary message type ${type}`);
  }
  return {
    type,
    flags: view.getUint8(1),
    generation: view.getUint16(2, true),
    index: view.getUint32(4, true),
    ptsUs: Number(view.getBigUint64(8, true)),
    region: [
      view.getUint16(16, true),
      view.getUint16(18, true),
      view.getUint16(20, true),
      view.getUint16(22, true),
    ],
    payload: new Uint8Array(buffer, start + HEADER_BYTES, length - HEADER_BYTES),
  };
}

/**
 * The inverse of `unpack`.
 * @param {Omit<BinaryMessage, "payload"> & {payload: Uint8Array}} message
 * @returns {ArrayBuffer}
 */
export function pack(message) {
  const buffer = new ArrayBuffer(HEADER_BYTES + message.payload.length);
  const view = new DataView(buffer);
  view.setUint8(0, message.type);
  view.setUint8(1, message.flags);
  view.setUint16(2, message.generation, true);
  view.setUint32(4, message.index, true);
  view.setBigUint64(8, BigInt(message.ptsUs), true);
  message.region.forEach((value, i) => view.setUint16(16 + 2 * i, value, true));
  new Uint8Array(buffer, HEADER_BYTES).set(message.payload);
  return buffer;
}

/**
 * Read length-prefixed messages (u32 little-endian, then header and payload) out of a growing
 * stream: what `/avatars/<id>/idle.bin` is made of.
 */
export class MessageReader {
  /** @param {number} [limitBytes]  a longer message is an error, not an allocation */
  constructor(limitBytes = 16 * 1024 * 1024) {
    this.limitBytes = limitBytes;
    this.rest = new Uint8Array(0);
  }

  /**
   * @param {Uint8Array} bytes
   * @returns {BinaryMessage[]}  the messages now complete, each on memory of its own
   */
  push(bytes) {
    const joined = new Uint8Array(this.rest.length + bytes.length);
    joined.set(this.rest);
    joined.set(bytes, this.rest.length);
    const messages = [];
    let at = 0;
    while (joined.length - at >= 4) {
      const length = new DataView(joined.buffer, at, 4).getUint32(0, true);
      if (length > this.limitBytes) throw new ProtocolError(`a message of ${length} bytes`);
      if (joined.length - at - 4 < length) break;
      const whole = joined.slice(at + 4, at + 4 + length);
      messages.push(unpackAt(whole.buffer, 0, length));
      at += 4 + length;
    }
    this.rest = joined.slice(at);
    return messages;
  }
}

/**
 * @param {string} base64  PCM16 LE
 * @returns {Int16Array}
 */
export function pcm16FromBase64(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return pcm16FromBytes(bytes);
}

/**
 * @param {Uint8Array} bytes  PCM16 LE; an odd last byte is an error
 * @returns {Int16Array}
 */
export function pcm16FromBytes(bytes) {
  if (bytes.length % 2) throw new ProtocolError(`PCM16 of ${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const samples = new Int16Array(bytes.length / 2);
  for (let i = 0; i < samples.length; i++) samples[i] = view.getInt16(2 * i, true);
  return samples;
}

/**
 * @param {Int16Array} samples
 * @returns {Float32Array}  in [-1, 1)
 */
export function floatFromPcm16(samples) {
  return Float32Array.from(samples, (sample) => sample / 32768);
}

/**
 * @param {Float32Array} samples  nominally in [-1, 1]; louder is clipped
 * @returns {Int16Array<ArrayBuffer>}
 */
export function pcm16FromFloat(samples) {
  return Int16Array.from(samples, (sample) =>
    Math.max(-32768, Math.min(32767, Math.round(sample * 32768))),
  );
}

/**
 * @typedef {"chat" | "mirror" | "parrot" | "upstream"} Mode
 *
 * @typedef {object} Wishes  what the page asks of a session
 * @property {string} [avatar]
 * @property {Mode} mode
 * @property {string} [voice]  a name; empty: the server's; absent: as it is
 * @property {"full" | "mouth"} region
 * @property {{background: string, codec: string}} [look]  of the frames; absent: the server's
 * @property {number} inputRate  Hz
 * @property {number} outputRate  Hz
 * @property {object | null} [turnDetection]  null: the page says when a turn ends; absent: as it is
 */

/** The events the page sends. */
export const events = {
  /** @param {Wishes} wishes */
  sessionUpdate: (wishes) => ({
    type: "session.update",
    session: {
      type: "realtime",
      audio: {
        input: {
          format: { type: "audio/pcm", rate: wishes.inputRate },
          transcription: {},
          ...(wishes.turnDetection === undefined ? {} : { turn_detection: wishes.turnDetection }),
        },
        output: {
          format: { type: "audio/pcm", rate: wishes.outputRate },
          ...(wishes.voice === undefined ? {} : { voice: wishes.voice }),
        },
      },
      avatar: {
        ...(wishes.avatar ? { id: wishes.avatar } : {}),
        mode: wishes.mode,
        video: { encoding: "binary", region: wishes.region, ...wishes.look },
      },
    },
  }),

  /** @param {string} text */
  speak: (text) => ({ type: "avatar.speak", text }),

  /**
   * A typed message of the user's.
   * @param {string} itemId
   * @param {string} text
   */
  message: (itemId, text) => ({
    type: "conversation.item.create",
    item: { id: itemId, type: "message", role: "user", content: [{ type: "input_text", text }] },
  }),

  answer: () => ({ type: "response.create" }),

  commit: () => ({ type: "input_audio_buffer.commit" }),

  cancel: () => ({ type: "response.cancel" }),

  clearInput: () => ({ type: "input_audio_buffer.clear" }),

  /**
   * @param {string} itemId
   * @param {number} heardMs  how much of the item was heard
   */
  truncate: (itemId, heardMs) => ({
    type: "conversation.item.truncate",
    item_id: itemId,
    content_index: 0,
    audio_end_ms: Math.max(0, Math.floor(heardMs)),
  }),

  /**
   * @param {string} responseId
   * @param {number} positionMs
   * @param {number} framesShown
   * @param {number} framesLate
   */
  playback: (responseId, positionMs, framesShown, framesLate) => ({
    type: "avatar.playback",
    response_id: responseId,
    position_ms: Math.max(0, Math.round(positionMs)),
    frames_shown: framesShown,
    frames_late: framesLate,
  }),
};
