"""A conversation with an avatar: microphone or WAV file in; frames, voice and captions out.

    pip install websockets                  # and sounddevice for --mic and --speaker
    python avatar.py --say "Hello, I am your avatar."
    python avatar.py --wav question.wav --out answer
    python avatar.py --mic --speaker

Writes each frame at the moment when it is shown (OUT/0001-00042.jpg: response and frame) and the
voice (OUT/voice.wav, PCM16 mono at 24 kHz). Copy the file and replace `Output` by your own window
and loudspeaker: everything else stays.
"""

import argparse
import asyncio
import contextlib
import json
import struct
import time
import wave
from collections import deque
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

RATE = 24_000  # samples per second, in both directions
PACKET = RATE // 50 * 2  # bytes of 20 ms
HEADER = struct.Struct("<BBHIQHHHH")  # type, flags, generation, index, pts_us, x, y, w, h
FRAME, AUDIO = 1, 2
PATIENCE_S = 1.0  # how long the voice waits for its first frame


class Output:
    """Where frames, sound and captions go: here into files, and to a loudspeaker if wanted."""

    def __init__(self, folder, speaker):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.wav = wave.open(str(folder / "voice.wav"), "wb")
        self.wav.setnchannels(1)
        self.wav.setsampwidth(2)
        self.wav.setframerate(RATE)
        self.stream = None
        if speaker:
            import sounddevice

            self.stream = sounddevice.RawOutputStream(RATE, 240, channels=1, dtype="int16")
            self.stream.start()

    @property
    def latency_s(self):
        """Seconds from `sound` to the ear."""
        return self.stream.latency if self.stream else 0.0

    def sound(self, pcm):
        self.wav.writeframesraw(pcm)
        if self.stream:
            self.stream.write(pcm)

    def frame(self, response, number, jpeg):
        (self.folder / f"{response:04}-{number:05}.jpg").write_bytes(jpeg)

    def caption(self, who, text):
        print(f"{who}: {text}", flush=True)

    def close(self):
        self.wav.close()
        if self.stream:
            self.stream.stop()


class Playback:
    """One response: plays its sound in real time, and shows each frame when its sound is heard."""

    def __init__(self, response, output):
        self.id = response["id"]
        self.generation = response["generation"]
        self.output = output
        self.pcm = bytearray()  # all of its sound so far
        self.frames = []  # (pts in s, number, JPEG), in order
        self.played = 0  # bytes given to the output
        self.all_here = False  # no more sound will come
        self.started_s = None  # when playing began, on the clock of `step`
        self.first_sound_s = None
        self.shown = self.late = 0

    @property
    def position_s(self):
        return max(0.0, self.played / 2 / RATE - self.output.latency_s)

    @property
    def over(self):
        return self.all_here and self.played >= len(self.pcm)

    def step(self, now_s):
        """Play and show what is due. Called every 10 ms."""
        if not self.pcm:
            return
        if self.started_s is None:
            self.first_sound_s = self.first_sound_s or now_s
            patient = now_s - self.first_sound_s < PATIENCE_S
            if not self.frames and patient and not self.all_here:
                return
            self.started_s = now_s
        due = int((now_s - self.started_s) * RATE) * 2
        if due > len(self.pcm) and not self.all_here:
            self.started_s = now_s - len(self.pcm) / 2 / RATE  # the network was slow: go on later
        due = min(due, len(self.pcm))
        self.output.sound(bytes(self.pcm[self.played : due]))
        self.played = due
        heard_s, newest = self.position_s, None
        while self.frames and self.frames[0][0] <= heard_s:
            newest = self.frames.pop(0)
        if newest is not None:  # older ones than the newest are not worth showing
            self.output.frame(self.generation, newest[1], newest[2])
            self.shown += 1
            self.late += heard_s - newest[0] > 0.04

    def report(self):
        """What the server wants to know twice a second."""
        return {
            "type": "avatar.playback",
            "response_id": self.id,
            "position_ms": 1000 * self.position_s,
            "frames_shown": self.shown,
            "frames_late": self.late,
        }


class Avatar:
    """A session with the server, over as many connections as it takes."""

    def __init__(self, args, output):
        self.args = args
        self.output = output
        self.socket = None
        self.connected = asyncio.Event()
        self.playback = None  # the response that is played
        self.token = None  # with it a new connection goes on with this session
        self.received = 0  # messages of this session
        self.sent = 0
        self.kept = deque(maxlen=3000)  # what was sent last, a minute, in case that it got lost
        self.last_event_s = time.monotonic()

    async def run(self):
        """Connect, and again when the connection is lost."""
        delay_s = 0.5
        headers = {"Authorization": f"Bearer {self.args.token}"} if self.args.token else {}
        while True:
            query = f"?resume={self.token}&received={self.received}" if self.token else ""
            try:
                async with connect(
                    self.args.url + query,
                    additional_headers=headers,
                    max_size=None,
                    compression=None,
                ) as self.socket:
                    async for message in self.socket:
                        delay_s = 0.5
                        self.received += 1
                        await self.receive(message)
                print("closed:", self.socket.close_reason or self.socket.close_code)
            except InvalidStatus as error:
                raise SystemExit(f"refused: {error}") from error  # a wrong token, for example
            except (OSError, ConnectionClosed) as error:
                print("connection lost:", error)
            if self.socket and self.socket.close_code in (1000, 1001, 4004):
                self.token = None  # that session has ended: begin another
            self.connected.clear()
            await asyncio.sleep(delay_s)
            delay_s = min(8.0, 2 * delay_s)

    async def send(self, message):
        """Send an event (a dict) or sound (bytes), now or when there is a connection again."""
        message = message if isinstance(message, bytes) else json.dumps(message)
        self.sent += 1
        self.kept.append((self.sent, message))
        if self.connected.is_set():
            with contextlib.suppress(ConnectionClosed):  # `run` connects again
                await self.socket.send(message)

    async def begin(self):
        """A new session: nothing of an old one counts."""
        self.token, self.received, self.sent = None, 1, 0
        self.kept.clear()
        if self.playback:
            self.playback.all_here = True  # the rest of it does not come
        self.connected.set()
        await self.configure()

    async def resume(self, arrived):
        """The same session: send again what did not arrive."""
        for number, message in list(self.kept):
            if number > arrived:
                await self.socket.send(message)
        self.connected.set()

    async def configure(self):
        pcm = {"type": "audio/pcm", "rate": RATE}
        avatar = {"video": {"encoding": "binary"}}
        if self.args.mode:
            avatar["mode"] = self.args.mode
        if self.args.avatar:
            avatar["id"] = self.args.avatar
        audio = {"input": {"format": pcm}, "output": {"format": pcm}}
        session = {"type": "realtime", "audio": audio, "avatar": avatar}
        await self.send({"type": "session.update", "session": session})

    async def receive(self, message):
        self.last_event_s = time.monotonic()
        if isinstance(message, bytes):
            kind, _, generation, index, pts_us, *_region = HEADER.unpack_from(message)
            playing = self.playback
            if playing is None or playing.generation != generation:
                return  # of a response that was interrupted
            if kind == AUDIO:
                playing.pcm += message[HEADER.size :]
            elif kind == FRAME:
                playing.frames.append((pts_us / 1e6, index, message[HEADER.size :]))
            return
        event = json.loads(message)
        match event["type"]:
            case "session.created":
                await self.begin()
            case "avatar.resumable":
                self.token = event["token"]
            case "avatar.resumed":
                await self.resume(event["received"])
            case "response.created":
                self.playback = Playback(event["response"], self.output)
            case "response.output_audio.done":
                if self.playback and self.playback.id == event["response_id"]:
                    self.playback.all_here = True
            case "response.output_audio_transcript.done":
                if event["transcript"]:
                    self.output.caption("avatar", event["transcript"])
            case "conversation.item.input_audio_transcription.completed":
                self.output.caption("you", event["transcript"])
            case "input_audio_buffer.speech_started":
                self.interrupt()  # the user speaks: be silent at once
            case "response.done":
                response = event["response"]
                if response["status"] == "failed":
                    print("failed:", response["status_details"]["error"]["message"])
                elif response["status"] == "cancelled":
                    print("interrupted:", response["status_details"]["reason"] or "replaced")
            case "conversation.item.truncated":  # it was complete, and still played
                print("interrupted: heard", event["audio_end_ms"], "ms")
            case "error":
                print("error:", event["error"]["message"])

    def interrupt(self):
        """Drop what is not heard yet. The server knows from the reports how much was heard."""
        self.playback = None

    def idle_for(self, seconds):
        """Whether nothing is played and nothing came for so long."""
        quiet = time.monotonic() - self.last_event_s >= seconds
        return quiet and self.playback is None and self.connected.is_set()

    async def play(self):
        """Move the playback on, and report it twice a second."""
        reported_s = 0.0
        while True:
            await asyncio.sleep(0.01)
            now_s, playing = time.monotonic(), self.playback
            if playing is None:
                continue
            playing.step(now_s)
            if playing.started_s is not None and (now_s - reported_s > 0.5 or playing.over):
                await self.send(playing.report())
                reported_s = now_s
            if playing.over:
                self.playback = None


async def microphone():
    """20 ms packets from the default microphone."""
    import sounddevice

    packets, loop = asyncio.Queue(), asyncio.get_running_loop()

    def captured(data, *_):
        loop.call_soon_threadsafe(packets.put_nowait, bytes(data))

    form = {"channels": 1, "dtype": "int16", "blocksize": PACKET // 2}
    with sounddevice.RawInputStream(RATE, callback=captured, **form):
        while True:
            yield await packets.get()


async def recording(path):
    """20 ms packets of a WAV file at the speed of speech, then silence, so that the turn ends."""
    with wave.open(str(path)) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (RATE, 1, 2):
            raise SystemExit(f"{path}: 16-bit mono at {RATE} Hz is needed")
        pcm = file.readframes(file.getnframes()) + bytes(RATE * 2)
    start_s = time.monotonic()
    for number, at in enumerate(range(0, len(pcm), PACKET)):
        await asyncio.sleep(max(0.0, start_s + 0.02 * number - time.monotonic()))
        yield pcm[at : at + PACKET]


async def speak(avatar, args):
    """Send what there is to say, then wait until the answers are heard."""
    await avatar.connected.wait()
    if args.say:
        await avatar.send({"type": "avatar.speak", "text": args.say})
    if args.wav or args.mic:
        async for packet in recording(args.wav) if args.wav else microphone():
            await avatar.send(packet)  # sound may be sent as it is: no base64 is needed
    while not avatar.idle_for(args.linger):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="ws://127.0.0.1:8765/v1/realtime")
    parser.add_argument("--token", help="where the server asks for one")
    parser.add_argument("--avatar", help="its id; else the server's default")
    parser.add_argument("--mode", help="mirror, parrot, chat, upstream; else the server's default")
    parser.add_argument("--say", metavar="TEXT")
    parser.add_argument("--wav", type=Path, help=f"what to say: 16-bit mono, {RATE} Hz")
    parser.add_argument("--mic", action="store_true")
    parser.add_argument("--speaker", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("avatar-output"))
    parser.add_argument("--linger", type=float, default=3.0, help="seconds to wait for an answer")
    args = parser.parse_args()
    output = Output(args.out, args.speaker)
    avatar = Avatar(args, output)
    tasks = [asyncio.create_task(work) for work in (avatar.run(), avatar.play())]
    speaking = asyncio.create_task(speak(avatar, args))
    try:
        await asyncio.wait({*tasks, speaking}, return_when=asyncio.FIRST_COMPLETED)
        for task in (*tasks, speaking):
            if task.done():
                task.result()
    finally:
        output.close()


if __name__ == "__main__":
    asyncio.run(main())
