/**
 * A conversation with an avatar, in a browser and in Node: one file, no library.
 *
 * Browser: see index.html beside this file.
 * Node 22: node avatar.js --say "Hello, I am your avatar."
 *          node avatar.js --wav question.wav --out answer
 * Node 20: the same with --experimental-websocket, or after `npm install ws`.
 *
 * `Avatar` is the client. What plays its sound is a "speaker": `WebSpeaker` is a browser's
 * AudioContext, `FileSpeaker` writes a WAV file in Node. Both have
 *   start()      a new response begins: forget the old one's sound
 *   play(pcm)    Int16Array at RATE: queue it
 *   heardS()     seconds of this response that were heard
 *   stop()       be silent at once
 */

export const RATE = 24000; // samples per second, in both directions
const HEADER_BYTES = 24;
const FRAME = 1;
const AUDIO = 2;
const PATIENCE_S = 1.0; // how long the voice waits for its first frame
const now = () => performance.now() / 1000;

/** A session with the server, over as many connections as it takes. */
export class Avatar {
  /**
   * @param {object} options
   *   url, speaker; mode and avatar (id), else the server's defaults; token, where it asks for one;
   *   WebSocket: where there is no global one;
   *   onFrame(jpeg: Uint8Array, [x, y, w, h], response, number): show this now;
   *   onCaption(who, text), onLog(text)
   */
  constructor(options) {
    this.options = { onFrame() {}, onCaption() {}, onLog() {}, ...options };
    this.socket = null;
    this.ready = false;
    this.closed = false;
    this.token = null; // with it a new connection goes on with this session
    this.received = 0; // messages of this session
    this.sent = 0;
    this.kept = []; // what was sent last, in case that it got lost
    this.delayS = 0.5;
    this.playback = null; // the response that is played
    this.lastEventS = now();
    this.timer = setInterval(() => this.#step(), 10);
    this.#connect();
  }

  /** Say this text, in place of what is said. */
  say(text) {
    this.#send({ type: "avatar.speak", text });
  }

  /** The microphone: PCM16 at RATE. Sound may be sent as it is: no base64 is needed. */
  hear(/** @type {Int16Array} */ pcm) {
    this.#send(pcm);
  }

  /** Stop the avatar, as a button would. */
  interrupt() {
    this.#send({ type: "response.cancel" });
    this.#silence();
  }

  close() {
    this.closed = true;
    clearInterval(this.timer);
    this.#silence();
    this.socket?.close();
  }

  // -- the connection ---------------------------------------------------------------------------

  #connect() {
    const { token } = this.options;
    const resume = this.token ? `?resume=${this.token}&received=${this.received}` : "";
    const WebSocket = this.options.WebSocket ?? globalThis.WebSocket;
    const protocols = token ? ["realtime", `openai-insecure-api-key.${token}`] : [];
    const socket = new WebSocket(this.options.url + resume, protocols);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      this.delayS = 0.5;
      this.received += 1;
      this.lastEventS = now();
      if (typeof data === "string") this.#receive(JSON.parse(data));
      else this.#receiveBinary(data);
    };
    socket.onerror = () => {}; // onclose follows
    socket.onclose = ({ code, reason }) => {
      this.ready = false;
      if (this.closed) return;
      this.options.onLog(`connection lost: ${code} ${reason}`);
      if ([1000, 1001, 4004].includes(code)) this.token = null; // that session has ended
      setTimeout(() => this.closed || this.#connect(), 1000 * this.delayS);
      this.delayS = Math.min(8, 2 * this.delayS);
    };
    this.socket = socket;
  }

  /** A new session: nothing of an old one counts. */
  #begin() {
    [this.token, this.received, this.sent, this.kept] = [null, 1, 0, []];
    if (this.playback) this.playback.allHere = true; // the rest of it does not come
    this.ready = true;
    const format = { type: "audio/pcm", rate: RATE };
    const avatar = { video: { encoding: "binary" } };
    if (this.options.mode) avatar.mode = this.options.mode;
    if (this.options.avatar) avatar.id = this.options.avatar;
    const audio = { input: { format }, output: { format } };
    this.#send({ type: "session.update", session: { type: "realtime", audio, avatar } });
  }

  /** The same session: send again what did not arrive. */
  #resume(arrived) {
    for (const [number, message] of this.kept) if (number > arrived) this.socket.send(message);
    this.ready = true;
  }

  /** Send an event or sound, now or when there is a connection again. */
  #send(message) {
    const data = ArrayBuffer.isView(message) ? message : JSON.stringify(message);
    this.kept.push([++this.sent, data]);
    if (this.kept.length > 3000) this.kept.shift(); // a minute
    if (this.ready) this.socket.send(data);
  }

  // -- what the server sends --------------------------------------------------------------------

  #receiveBinary(data) {
    const header = new DataView(data, 0, HEADER_BYTES);
    const playing = this.playback;
    if (!playing || header.getUint16(2, true) !== playing.generation) return; // it was interrupted
    if (header.getUint8(0) === AUDIO) {
      playing.sound(new Int16Array(data.slice(HEADER_BYTES)));
    } else if (header.getUint8(0) === FRAME) {
      playing.frames.push({
        number: header.getUint32(4, true),
        ptsS: Number(header.getBigUint64(8, true)) / 1e6,
        region: [16, 18, 20, 22].map((at) => header.getUint16(at, true)),
        jpeg: new Uint8Array(data, HEADER_BYTES),
      });
    }
  }

  #receive(event) {
    const { onCaption, onLog } = this.options;
    switch (event.type) {
      case "session.created":
        this.#begin();
        break;
      case "avatar.resumable":
        this.token = event.token;
        break;
      case "avatar.resumed":
        this.#resume(event.received);
        break;
      case "response.created":
        this.#silence();
        this.playback = new Playback(event.response, this.options.speaker);
        break;
      case "response.output_audio.done":
        if (this.playback?.id === event.response_id) this.playback.allHere = true;
        break;
      case "response.output_audio_transcript.done":
        if (event.transcript) onCaption("avatar", event.transcript);
        break;
      case "conversation.item.input_audio_transcription.completed":
        onCaption("you", event.transcript);
        break;
      case "input_audio_buffer.speech_started":
        this.#silence(); // the user speaks: be silent at once
        break;
      case "response.done": {
        const { status, status_details: why } = event.response;
        if (status === "failed") onLog(`failed: ${why.error.message}`);
        if (status === "cancelled") onLog(`interrupted: ${why.reason ?? "replaced"}`);
        break;
      }
      case "conversation.item.truncated": // it was complete, and still played
        onLog(`interrupted: heard ${event.audio_end_ms} ms`);
        break;
      case "error":
        onLog(`error: ${event.error.message}`);
    }
  }

  // -- playing ----------------------------------------------------------------------------------

  /** Drop what is not heard yet. The server knows from the reports how much was heard. */
  #silence() {
    if (this.playback) this.options.speaker.stop();
    this.playback = null;
  }

  /** Show what is due, and report twice a second. */
  #step() {
    const playing = this.playback;
    if (!playing?.step(this.options.onFrame)) return;
    if (now() - playing.reportedS > 0.5 || playing.over) {
      playing.reportedS = now();
      this.#send(playing.report());
    }
    if (playing.over) this.#silence();
  }
}

/** One response: its sound goes to the speaker; each frame is shown when its sound is heard. */
class Playback {
  constructor(response, speaker) {
    this.id = response.id;
    this.generation = response.generation;
    this.speaker = speaker;
    this.waiting = []; // sound that came before the first frame
    this.frames = [];
    this.samples = 0;
    this.allHere = false; // no more sound will come
    this.started = false;
    this.firstSoundS = null;
    this.reportedS = 0;
    this.shown = this.late = 0;
  }

  get over() {
    return this.allHere && this.started && this.speaker.heardS() >= this.samples / RATE - 0.01;
  }

  sound(pcm) {
    this.samples += pcm.length;
    this.firstSoundS ??= now();
    if (this.started) this.speaker.play(pcm);
    else this.waiting.push(pcm);
  }

  /** Returns whether it plays. */
  step(onFrame) {
    if (!this.started) {
      if (this.firstSoundS === null) return false;
      const patient = now() - this.firstSoundS < PATIENCE_S;
      if (!this.frames.length && patient && !this.allHere) return false;
      this.started = true;
      this.speaker.start();
      for (const pcm of this.waiting) this.speaker.play(pcm);
    }
    const heardS = this.speaker.heardS();
    let newest = null; // older ones than the newest are not worth showing
    while (this.frames.length && this.frames[0].ptsS <= heardS) newest = this.frames.shift();
    if (newest) {
      onFrame(newest.jpeg, newest.region, this.generation, newest.number);
      this.shown += 1;
      if (heardS - newest.ptsS > 0.04) this.late += 1;
    }
    return true;
  }

  /** What the server wants to know twice a second. */
  report() {
    return {
      type: "avatar.playback",
      response_id: this.id,
      position_ms: 1000 * Math.min(this.speaker.heardS(), this.samples / RATE),
      frames_shown: this.shown,
      frames_late: this.late,
    };
  }
}

// -- in a browser -------------------------------------------------------------------------------

/** Plays through an AudioContext: `new AudioContext({ sampleRate: RATE })`, made in a click. */
export class WebSpeaker {
  constructor(context) {
    this.context = context;
    this.sources = new Set();
  }

  start() {
    this.stop();
    this.nextS = this.context.currentTime + 0.02; // where the next buffer begins
    this.gapsS = this.nextS; // the context's time at which the response began, without gaps
    this.queuedS = 0;
  }

  play(pcm) {
    const buffer = this.context.createBuffer(1, pcm.length, RATE);
    buffer.copyToChannel(Float32Array.from(pcm, (sample) => sample / 32768), 0);
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.context.destination);
    source.onended = () => this.sources.delete(source);
    if (this.nextS < this.context.currentTime) {
      this.gapsS += this.context.currentTime + 0.02 - this.nextS; // the network was slow
      this.nextS = this.context.currentTime + 0.02;
    }
    source.start(this.nextS);
    this.sources.add(source);
    this.nextS += buffer.duration;
    this.queuedS += buffer.duration;
  }

  heardS() {
    const latencyS = this.context.outputLatency || this.context.baseLatency || 0;
    const playedS = this.context.currentTime - this.gapsS - latencyS;
    return Math.max(0, Math.min(playedS, this.queuedS));
  }

  stop() {
    for (const source of this.sources) source.stop();
    this.sources.clear();
    this.queuedS = 0;
  }
}

/** Gives the microphone to `avatar`, in packets of 20 ms. Returns a function that ends it. */
export async function listen(avatar, context) {
  const audio = { channelCount: 1, echoCancellation: true, noiseSuppression: true };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  const worklet = `registerProcessor("capture", class extends AudioWorkletProcessor {
    packet = new Int16Array(${RATE / 50});
    filled = 0;
    process([[samples]]) {
      for (const sample of samples ?? []) {
        this.packet[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
        if (this.filled === this.packet.length) {
          this.port.postMessage(this.packet.slice());
          this.filled = 0;
        }
      }
      return true;
    }
  });`;
  const url = URL.createObjectURL(new Blob([worklet], { type: "text/javascript" }));
  await context.audioWorklet.addModule(url);
  const node = new AudioWorkletNode(context, "capture");
  node.port.onmessage = ({ data }) => avatar.hear(data);
  const source = context.createMediaStreamSource(stream);
  source.connect(node);
  return () => {
    source.disconnect();
    stream.getTracks().forEach((track) => track.stop());
  };
}

// -- in Node ------------------------------------------------------------------------------------

/** Plays by the clock into a WAV file. */
export class FileSpeaker {
  constructor(fs, path) {
    this.fs = fs;
    this.file = fs.openSync(path, "w");
    this.bytes = 0;
    fs.writeSync(this.file, this.#header());
    this.stop();
  }

  start() {
    this.stop();
    this.beganS = now();
  }

  play(pcm) {
    this.heardS(); // writes what was heard so far
    const lateS = now() - this.beganS - this.queued / RATE;
    if (lateS > 0) this.beganS += lateS; // the network was slow: go on later
    this.pieces.push(pcm);
    this.queued += pcm.length;
  }

  heardS() {
    if (this.beganS === null) return 0;
    const due = Math.min(this.queued, Math.floor((now() - this.beganS) * RATE));
    while (this.heard < due) {
      const [piece] = this.pieces;
      const part = piece.subarray(0, due - this.heard);
      this.fs.writeSync(this.file, new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
      this.bytes += part.byteLength;
      this.heard += part.length;
      if (part.length === piece.length) this.pieces.shift();
      else this.pieces[0] = piece.subarray(part.length);
    }
    return this.heard / RATE;
  }

  stop() {
    this.beganS = null;
    this.pieces = [];
    this.queued = this.heard = 0; // in samples
  }

  close() {
    this.fs.writeSync(this.file, this.#header(), 0, 44, 0);
    this.fs.closeSync(this.file);
  }

  #header() {
    const header = Buffer.alloc(44);
    header.write("RIFF");
    header.writeUInt32LE(36 + this.bytes, 4);
    header.write("WAVEfmt ", 8);
    header.writeUInt32LE(16, 16);
    header.writeUInt16LE(1, 20); // PCM
    header.writeUInt16LE(1, 22); // mono
    header.writeUInt32LE(RATE, 24);
    header.writeUInt32LE(2 * RATE, 28);
    header.writeUInt16LE(2, 32);
    header.writeUInt16LE(16, 34);
    header.write("data", 36);
    header.writeUInt32LE(this.bytes, 40);
    return header;
  }
}

/** The samples of a WAV file: 16-bit mono at RATE. */
function samplesOf(bytes) {
  for (let at = 12; at + 8 <= bytes.length; ) {
    const length = bytes.readUInt32LE(at + 4);
    const body = bytes.subarray(at + 8, at + 8 + length);
    const name = bytes.toString("latin1", at, at + 4);
    if (name === "fmt " && (body.readUInt32LE(4) !== RATE || body.readUInt16LE(2) !== 1)) break;
    if (name === "data") return new Int16Array(new Uint8Array(body).buffer);
    at += 8 + length + (length % 2);
  }
  throw new Error(`the WAV file must be 16-bit mono at ${RATE} Hz`);
}

async function main() {
  const [fs, { parseArgs }] = await Promise.all([import("node:fs"), import("node:util")]);
  const text = { type: "string" };
  const { values: args } = parseArgs({
    options: {
      url: { ...text, default: "ws://127.0.0.1:8765/v1/realtime" },
      token: text, // where the server asks for one
      avatar: text, // its id; else the server's default
      mode: text, // mirror, parrot, chat, upstream; else the server's default
      say: text,
      wav: text, // what to say: 16-bit mono at RATE
      out: { ...text, default: "avatar-output" },
      linger: { ...text, default: "3" }, // seconds to wait for an answer
    },
  });
  fs.mkdirSync(args.out, { recursive: true });
  const speaker = new FileSpeaker(fs, `${args.out}/voice.wav`);
  const digits = (number, count) => String(number).padStart(count, "0");
  const avatar = new Avatar({
    url: args.url,
    token: args.token,
    avatar: args.avatar,
    mode: args.mode,
    speaker,
    WebSocket: globalThis.WebSocket ?? (await import("ws")).WebSocket,
    onFrame: (jpeg, _region, response, number) =>
      fs.writeFileSync(`${args.out}/${digits(response, 4)}-${digits(number, 5)}.jpg`, jpeg),
    onCaption: (who, words) => console.log(`${who}: ${words}`),
    onLog: console.log,
  });
  const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
  while (!avatar.ready) await sleep(0.05);
  if (args.say) avatar.say(args.say);
  if (args.wav) {
    const voice = samplesOf(fs.readFileSync(args.wav));
    const packet = RATE / 50; // 20 ms
    const startS = now();
    // At the speed of speech, and a second of silence, so that the turn ends.
    for (let at = 0; at < voice.length + RATE; at += packet) {
      await sleep(Math.max(0, startS + at / RATE - now()));
      const samples = new Int16Array(packet);
      samples.set(voice.subarray(at, at + packet));
      avatar.hear(samples);
    }
  }
  const lingerS = Number(args.linger);
  while (avatar.playback || !avatar.ready || now() - avatar.lastEventS < lingerS) await sleep(0.05);
  avatar.close();
  speaker.close();
}

if (globalThis.process?.argv[1]?.endsWith("avatar.js")) await main();
