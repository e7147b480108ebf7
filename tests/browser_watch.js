/**
 * What a bystander sees and hears of the page. Runs before the page's own scripts and shares
 * nothing with them: it reads the WebSocket's messages itself, follows each frame from its message
 * through Blob and ImageBitmap to the canvas, records what is really output, and reads the output
 * clock at each paint. The results are in `window.watch`.
 */
(() => {
  const watch = {
    received: [], // [generation, index, ptsUs] of each frame message
    draws: [], // each time a frame is drawn on a canvas that is on the page
    paints: [], // timestamps of animation frames
    pairs: [], // [timestamp, context time, performance time] of the output clock, at each of them
    responses: {}, // generation -> PCM16 as received, in order
    recorded: [], // [context frame, samples] of what is output
    events: [], // types of text messages
    words: [], // [text, ms] of the words whose times the server tells
    regions: {}, // frame index -> [x, y, w, h], of the last response
    cycleIndex: 0, // of its frame 0
    dissolved: 0, // the last paint in which the old picture faded out over the new one
    playback: [], // what the page says it has shown
    sockets: [],
    sampleRate: 0,
  };
  window.watch = watch;

  // -- the network --------------------------------------------------------------------------------

  const frameOf = new WeakMap(); // ArrayBuffer, then Blob, then ImageBitmap -> frame
  const NativeSocket = window.WebSocket;
  window.WebSocket = class extends NativeSocket {
    constructor(...args) {
      super(...args);
      watch.sockets.push(this);
      this.addEventListener("message", ({ data }) => note(data));
    }
    send(data) {
      super.send(data);
      if (typeof data !== "string") return;
      const event = JSON.parse(data);
      if (event.type === "avatar.playback") watch.playback.push(event);
    }
  };

  /** Let the page receive an event that the server did not send. */
  watch.receive = (event) => {
    const data = JSON.stringify(event);
    watch.sockets.at(-1).dispatchEvent(new MessageEvent("message", { data }));
  };

  function note(data) {
    if (typeof data === "string") {
      const event = JSON.parse(data);
      watch.events.push(event.type);
      if (event.type === "response.created") watch.response = event.response;
      if (event.type === "response.audio_timestamp.delta") {
        watch.words.push([event.text, event.audio_offset_ms]);
      }
      if (event.type === "session.avatar.switch_to_speaking") watch.cycleIndex = event.cycle_index;
      return;
    }
    const view = new DataView(data);
    const generation = view.getUint16(2, true);
    const index = view.getUint32(4, true);
    if (view.getUint8(0) === 1) {
      const frame = { generation, index, ptsUs: Number(view.getBigUint64(8, true)) };
      watch.received.push([generation, index, frame.ptsUs]);
      watch.regions[index] = [16, 18, 20, 22].map((at) => view.getUint16(at, true));
      frameOf.set(data, frame);
    } else {
      const parts = (watch.responses[generation] ??= []);
      parts.push([index, new Uint8Array(data.slice(24))]);
    }
  }

  // -- the picture --------------------------------------------------------------------------------

  const NativeBlob = window.Blob;
  window.Blob = class extends NativeBlob {
    constructor(parts, options) {
      super(parts, options);
      const frame = ArrayBuffer.isView(parts?.[0]) && frameOf.get(parts[0].buffer);
      if (frame) frameOf.set(this, frame);
    }
  };

  const nativeCreate = window.createImageBitmap.bind(window);
  window.createImageBitmap = async (source, ...rest) => {
    const bitmap = await nativeCreate(source, ...rest);
    if (frameOf.has(source)) frameOf.set(bitmap, frameOf.get(source));
    return bitmap;
  };

  let paint = 0;
  const nativeRequest = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (callback) =>
    nativeRequest((timestamp) => {
      if (timestamp !== paint) {
        watch.paints.push(timestamp);
        const { contextTime = 0, performanceTime = 0 } = context?.getOutputTimestamp() ?? {};
        if (contextTime > 0) watch.pairs.push([timestamp, contextTime, performanceTime]);
      }
      paint = timestamp;
      callback(timestamp);
    });

  const nativeDraw = CanvasRenderingContext2D.prototype.drawImage;
  CanvasRenderingContext2D.prototype.drawImage = function (image, ...rest) {
    nativeDraw.call(this, image, ...rest);
    if (image instanceof HTMLCanvasElement && this.canvas.isConnected) watch.dissolved = paint;
    const frame = frameOf.get(image);
    if (!frame || !this.canvas.isConnected || this.globalAlpha < 0.05) return;
    watch.draws.push([frame.generation, frame.index, frame.ptsUs, paint]);
  };

  // -- the sound ----------------------------------------------------------------------------------

  const RECORDER = `
    registerProcessor("bystander", class extends AudioWorkletProcessor {
      constructor() { super(); this.start(); }
      start() { this.block = new Float32Array(12800); this.filled = 0; }
      process([channels]) {
        // Chromium leaves currentFrame as it was while the page changes the graph.
        this.frame = Math.max(currentFrame, (this.frame ?? 0) + 128);
        if (this.filled && this.frame !== this.first + this.filled) this.send();
        if (!this.filled) this.first = this.frame;
        if (channels.length) this.block.set(channels[0], this.filled);
        this.filled += 128;
        if (this.filled === this.block.length) this.send();
        return true;
      }
      send() {
        this.port.postMessage([this.first, this.block.slice(0, this.filled)]);
        this.start();
      }
    });`;
  let context;
  let recorder;
  const NativeContext = window.AudioContext;
  window.AudioContext = class extends NativeContext {
    constructor(...args) {
      super(...args);
      context = watch.context = this;
      watch.sampleRate = this.sampleRate;
      const url = URL.createObjectURL(new NativeBlob([RECORDER], { type: "text/javascript" }));
      recorder = this.audioWorklet.addModule(url).then(() => {
        const node = new AudioWorkletNode(this, "bystander", { numberOfOutputs: 0 });
        node.port.onmessage = ({ data }) => watch.recorded.push(data);
        return node;
      });
    }
  };

  const nativeConnect = AudioNode.prototype.connect;
  AudioNode.prototype.connect = function (target, ...rest) {
    if (target instanceof AudioDestinationNode) {
      void recorder.then((node) => nativeConnect.call(this, node));
    }
    return nativeConnect.call(this, target, ...rest);
  };

  // -- the report ---------------------------------------------------------------------------------

  function base64(bytes) {
    let text = "";
    for (let at = 0; at < bytes.length; at += 32768) {
      text += String.fromCharCode(...bytes.subarray(at, at + 32768));
    }
    return btoa(text);
  }

  /** Milliseconds of audio that the server sent of the first response (24 kHz PCM16). */
  watch.audioMs = () =>
    Object.values(watch.responses)[0].reduce((bytes, [, part]) => bytes + part.length, 0) / 48;

  /** Everything, as JSON; sound as base64 PCM16. */
  watch.report = () => ({
    received: watch.received,
    draws: watch.draws,
    paints: watch.paints,
    pairs: watch.pairs,
    events: watch.events,
    playback: watch.playback,
    sampleRate: watch.sampleRate,
    responses: Object.fromEntries(
      Object.entries(watch.responses).map(([generation, parts]) => [
        generation,
        parts.map(([offset, bytes]) => [offset, base64(bytes)]),
      ]),
    ),
    recorded: watch.recorded.map(([frame, samples]) => [
      frame,
      base64(new Uint8Array(Int16Array.from(samples, (s) => Math.round(s * 32767)).buffer)),
    ]),
  });
})();
