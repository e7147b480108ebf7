"""A conversation in real time: how soon the avatar answers, and how soon it falls silent.

A server with the configured model and avatars, and engines that cost nothing: what is understood
and answered is scripted, and the voice's sound is at hand. So what remains is ours. The client is
in the same process, on a socket: it speaks in packets of 20 ms in real time, and plays what comes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from wsavatar.bench.loudspeaker import Loudspeaker
from wsavatar.bench.report import BenchError
from wsavatar.config import AsrSettings, LlmSettings, Settings, TtsSettings
from wsavatar.dialogue.asr import Heard
from wsavatar.dialogue.engines import Engines
from wsavatar.dialogue.llm import ChatRequest, Finished, Part, TextDelta
from wsavatar.dialogue.registry import create
from wsavatar.dialogue.tts import Voice, create_voice
from wsavatar.media.audio import decode, encode
from wsavatar.serve.assembly import load_engine
from wsavatar.serve.server import AvatarServer
from wsavatar.session.engine import Engine

__all__ = ["ConversationReport", "measure_conversation", "report_table"]

RATE = 24_000
PACKET_S = 0.02
SILENCE_MS = 200
"""Silence that ends a turn."""
QUESTION = "What time is it now?"
SENTENCES = (
    "The sea was calm, and the old captain looked at the clouds for a long time. ",
    "He had seen many storms, but none that came so slowly and so quietly. ",
    "In the evening the wind turned, and the birds flew back to the shore. ",
    "Nobody spoke while the lamps were lit and the ropes were tied once more. ",
)
_WAIT_S = 20.0


@dataclass(slots=True)
class ConversationReport:
    """Times in milliseconds, one an attempt."""

    answers: list[float] = field(default_factory=list)
    """From the end of the user's speech to the first frame at the client."""
    ours: list[float] = field(default_factory=list)
    """The same without the silence that ends a turn and without rendering the first chunk."""
    rendering: list[float] = field(default_factory=list)
    """From the voice's first sound to the first frame: the first chunk."""
    interruptions: list[float] = field(default_factory=list)
    """From the first 10 ms of the user's speech to silence at the client."""
    late_events: int = 0
    """Audio and frames of an interrupted response that came after its end."""
    resumed: int = 0
    """Answers that went on after a "mm-hmm"."""
    backchannels: int = 0
    undetected: int = 0
    """Interruptions that the server did not notice."""
    echo_sentences: int = 0
    """Sentences of the avatar that came back through the microphone, at -20 dB."""
    self_interruptions: int = 0
    """How often the avatar took them for the user's speech."""


async def measure_conversation(
    settings: Settings, turns: int, say: Callable[[str], None], *, echo_answers: int = 5
) -> ConversationReport:
    """Hold a conversation of so many turns, interruptions and "mm-hmm"s, and let so many answers of
    four sentences come back through the microphone. Raises BenchError."""
    voice = create_voice(TtsSettings(engines=("espeak",)))
    question = await _sound(voice, QUESTION)
    answers = {text.strip(): await _sound(voice, text.strip()) for text in SENTENCES}
    script = _Script()
    chosen = settings.model_copy(
        update={
            "server": settings.server.model_copy(update={"host": "127.0.0.1", "port": 0}),
            "dialogue": settings.dialogue.model_copy(update={"mode": "chat"}),
            "asr": AsrSettings(engine="none"),
            "llm": LlmSettings(engine="none"),
            "tts": TtsSettings(engines=("espeak",)),
        }
    )
    report = ConversationReport()
    say("starting a server")
    async with AvatarServer(chosen, partial(_load, script, answers)) as server:
        await server.ready()
        address = f"ws://127.0.0.1:{server.port}/v1/realtime?avatar={settings.avatars.default}"
        async with _talking(address.removesuffix("?avatar=")) as talk:
            for number in range(turns):
                say(f"turn {number + 1} of {turns}")
                await _answered_turn(talk, script, question, report)
            for number in range(turns):
                say(f"interruption {number + 1} of {turns}")
                await _interruption(talk, script, question, report)
            for number in range(turns):
                say(f'"mm-hmm" {number + 1} of {turns}')
                await _backchannel(talk, script, question, report)
        async with _talking(address.removesuffix("?avatar=")) as talk:
            talk.loudspeaker = Loudspeaker(RATE, delay_s=0.15)
            for number in range(echo_answers):
                say(f"loudspeakers, answer {number + 1} of {echo_answers}")
                await _echo(talk, script, question, report)
    return report


def report_table(report: ConversationReport) -> str:
    """The report for people."""
    lines = [
        _line("end of speech to first frame", report.answers),
        _line("  of it, rendering the first chunk", report.rendering),
        _line(f"  of it, ours (without the {SILENCE_MS} ms of silence too)", report.ours),
        _line("speech over the avatar to silence", report.interruptions),
        f"interruptions not noticed: {report.undetected}; "
        f"audio or frames of the old response after its end: {report.late_events}",
        f"interruptions by its own voice at -20 dB: {report.self_interruptions} in "
        f"{report.echo_sentences} sentences",
        f'answers that went on after a "mm-hmm": {report.resumed} of {report.backchannels}',
    ]
    return "\n".join(lines)


def _line(name: str, found: list[float]) -> str:
    if not found:
        return f"{name}: nothing measured"
    p50, p95 = np.percentile(found, (50, 95))
    return f"{name}: p50 {p50:.0f} ms, p95 {p95:.0f} ms, most {max(found):.0f} ms ({len(found)})"


# -- what is measured -----------------------------------------------------------------------------


async def _answered_turn(
    talk: _Talk, script: _Script, question: np.ndarray, report: ConversationReport
) -> None:
    script.understood, script.sentences = QUESTION, 1
    end_s = await talk.speak(question)
    created = await talk.event("response.created")
    await talk.event("response.video.delta", created["response"]["id"])
    first_frame_ms = 1000 * (talk.now_s - end_s)
    turn = await talk.event("avatar.turn", created["response"]["id"])
    rendering = turn["first_frame_ms"] - turn["first_sound_ms"]
    report.answers.append(first_frame_ms)
    report.rendering.append(rendering)
    report.ours.append(first_frame_ms - SILENCE_MS - rendering)
    await talk.event("response.done", created["response"]["id"])


async def _interruption(
    talk: _Talk, script: _Script, question: np.ndarray, report: ConversationReport
) -> None:
    response_id = await _long_answer(talk, script, question)
    script.understood, script.sentences = "Wait, stop.", 1
    began = time.monotonic()
    speaking = asyncio.create_task(talk.speak(question))
    try:
        async with asyncio.timeout(2):
            await talk.event("input_audio_buffer.speech_started")
    except TimeoutError:
        report.undetected += 1
    else:
        report.interruptions.append(1000 * (talk.now_s - began))
        await talk.event("response.done", response_id)
        talk.stopped.add(response_id)
    await speaking
    answer = await talk.event("response.created")
    await talk.event("response.done", answer["response"]["id"])
    report.late_events = talk.late


async def _backchannel(
    talk: _Talk, script: _Script, question: np.ndarray, report: ConversationReport
) -> None:
    response_id = await _long_answer(talk, script, question)
    asked = script.asked
    script.understood = "Mm-hmm."
    await talk.speak(question[: RATE // 2])
    await talk.event("response.done", response_id)
    report.backchannels += 1
    rest = await talk.event("response.created")
    report.resumed += script.asked == asked
    await talk.cancel(rest["response"]["id"])


async def _echo(
    talk: _Talk, script: _Script, question: np.ndarray, report: ConversationReport
) -> None:
    """The microphone hears what is played; nobody speaks."""
    script.understood, script.sentences = QUESTION, len(SENTENCES)
    await talk.speak(question)
    response_id = (await talk.event("response.created"))["response"]["id"]
    noticed = talk.noticed
    await talk.event("response.done", response_id)
    report.self_interruptions += talk.noticed - noticed
    report.echo_sentences += len(SENTENCES)
    await asyncio.sleep(0.5)


async def _long_answer(talk: _Talk, script: _Script, question: np.ndarray) -> str:
    """Let the avatar speak at length, and listen to a second or two of it."""
    script.understood, script.sentences = QUESTION, len(SENTENCES)
    await talk.speak(question)
    response_id: str = (await talk.event("response.created"))["response"]["id"]
    await talk.event("response.video.delta", response_id)
    await asyncio.sleep(1.0 + random.random())
    return response_id


# -- engines that cost nothing --------------------------------------------------------------------


class _Script:
    """What is understood and answered next."""

    name = "scripted"
    note = language = ""

    def __init__(self) -> None:
        self.understood = ""
        self.sentences = 1
        self.asked = 0

    async def start(self) -> None: ...

    async def check(self) -> str:
        return ""

    async def close(self) -> None: ...

    def listen(
        self, *, language: str = "", prompt: str = "", on_heard: Callable[[Heard], None]
    ) -> _Understood:
        return _Understood(self)

    async def answer(self, request: ChatRequest) -> AsyncGenerator[Part, None]:
        self.asked += 1
        for text in SENTENCES[: self.sentences]:
            yield TextDelta(text)
        yield Finished("stop")


@dataclass(slots=True)
class _Understood:
    script: _Script

    def push(self, samples: np.ndarray) -> None: ...

    def voice_ended(self) -> None: ...

    async def finish(self) -> str:
        return self.script.understood

    def cancel(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Sound:
    """A voice whose sound is at hand."""

    answers: dict[str, np.ndarray]

    async def speak(self, text: str) -> AsyncGenerator[np.ndarray, None]:
        known = [sound for said, sound in self.answers.items() if text.strip() in said]
        yield known[0] if known else np.concatenate(list(self.answers.values()))[: 2 * RATE]

    def for_response(self) -> _Sound:
        return self


def _load(
    script: _Script, answers: dict[str, np.ndarray], settings: Settings, progress: Any
) -> Engine:
    """The engine of the settings, with scripted engines of speech."""
    made = load_engine(settings, progress)

    class Scripted(Engines):
        def voice(self, name: str = "") -> Voice:
            return _Sound(answers)

    engines = Scripted(settings)
    engines.recognizer = engines.language_model = script
    return Engine(made.renderer, made.avatars, partial(create, engines), engines)


async def _sound(voice: Voice, text: str) -> np.ndarray:
    """A spoken text, float32 mono at RATE, from its first loud sample on."""
    parts = [part async for part in voice.speak(text) if isinstance(part, np.ndarray)]
    sound = np.concatenate(parts)
    loud = np.flatnonzero(np.abs(sound) > 0.01)
    return sound[loud[0] : loud[-1] + 1]


# -- the client -----------------------------------------------------------------------------------


class _Talk:
    """A client that speaks, plays and reports in real time.

    ``now_s``: when the event that `event` returned last had arrived.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._events: list[tuple[float, dict[str, Any]]] = []
        self._arrived = asyncio.Condition()
        self._speech: list[bytes] = []
        self._spoken = asyncio.Event()
        self._sound = bytearray()  # of the newest response, not played yet
        self._of: str | None = None  # that response
        self._plays = False  # from its first frame on
        self._played = 0  # samples of it
        self.loudspeaker: Loudspeaker | None = None
        self.noticed = 0  # times that the server heard speech
        self.now_s = 0.0
        self.stopped: set[str] = set()
        self.late = 0

    async def speak(self, sound: np.ndarray) -> float:
        """Say this; returns when its last packet was sent."""
        pcm = encode(sound, "audio/pcm")
        step = int(RATE * PACKET_S) * 2
        self._spoken.clear()
        self._speech += [pcm[start : start + step] for start in range(0, len(pcm), step)]
        await self._spoken.wait()
        return time.monotonic()

    async def event(self, kind: str, response_id: str | None = None) -> dict[str, Any]:
        """The next event of this type, of this response; those before it are forgotten."""
        async with asyncio.timeout(_WAIT_S), self._arrived:
            while True:
                for index, (now_s, event) in enumerate(self._events):
                    if event["type"] == kind and response_id in (None, _response_of(event)):
                        del self._events[: index + 1]
                        self.now_s = now_s
                        return event
                self._events.clear()
                await self._arrived.wait()

    async def cancel(self, response_id: str) -> None:
        """Stop a response and wait for its end."""
        await self._send({"type": "response.cancel"})
        await self.event("response.done", response_id)

    async def _send(self, event: dict[str, Any]) -> None:
        await self._socket.send(json.dumps(event))

    async def microphone(self) -> None:
        """Packets in real time: what is said, else silence (with a little noise)."""
        noise = np.random.default_rng(0)
        begun, number = time.monotonic(), 0
        while True:
            number += 1
            await asyncio.sleep(max(0.0, begun + number * PACKET_S - time.monotonic()))
            if self._speech:
                packet = self._speech.pop(0)
                if not self._speech:
                    self._spoken.set()
            else:
                quiet = noise.standard_normal(int(RATE * PACKET_S)).astype(np.float32) * 1e-4
                packet = encode(quiet, "audio/pcm")
            played = self._play()
            if self.loudspeaker is not None:
                heard = decode(packet, "audio/pcm")
                heard = heard + self.loudspeaker.push(played)[: len(heard)]
                packet = encode(heard, "audio/pcm")
            await self._socket.send(packet)

    async def reports(self) -> None:
        """Twice a second: what was played."""
        while True:
            await asyncio.sleep(0.5)
            if self._of is not None and self._plays:
                await self._send(
                    {
                        "type": "avatar.playback",
                        "response_id": self._of,
                        "position_ms": 1000 * self._played / RATE,
                        "frames_shown": 0,
                        "frames_late": 0,
                    }
                )

    async def read(self) -> None:
        async for message in self._socket:
            now_s = time.monotonic()
            event = json.loads(message)
            response_id = _response_of(event)
            if event["type"] in ("response.output_audio.delta", "response.video.delta"):
                self.late += response_id in self.stopped
                self._take(event)
            elif event["type"] == "input_audio_buffer.speech_started":
                self.noticed += 1
                self._sound.clear()
            elif event["type"] == "response.done" and response_id == self._of:
                self._sound.clear()
            elif event["type"] == "error":
                raise BenchError(f"the server says: {event['error']['message']}")
            async with self._arrived:
                self._events.append((now_s, event))
                self._arrived.notify_all()

    def _take(self, event: dict[str, Any]) -> None:
        """Sound to play, from the first frame on."""
        if event["response_id"] != self._of:
            self._of, self._plays, self._played = event["response_id"], False, 0
            self._sound.clear()
        if event["type"] == "response.video.delta":
            self._plays = True
        else:
            self._sound += base64.b64decode(event["delta"])

    def _play(self) -> np.ndarray:
        """The next packet of sound, or silence."""
        count = int(RATE * PACKET_S)
        now = bytes(self._sound[: 2 * count]) if self._plays else b""
        del self._sound[: len(now)]
        self._played += len(now) // 2
        return decode(now.ljust(2 * count, b"\0"), "audio/pcm")


def _response_of(event: dict[str, Any]) -> str | None:
    response = event.get("response")
    found: str | None = event.get("response_id") or (response["id"] if response else None)
    return found


@contextlib.asynccontextmanager
async def _talking(address: str) -> AsyncIterator[_Talk]:
    """A connected and configured client."""
    detection = {"type": "server_vad", "silence_duration_ms": SILENCE_MS}
    async with connect(address, max_size=None, compression=None) as socket:
        talk = _Talk(socket)
        await talk._send(
            {
                "type": "session.update",
                "session": {
                    "type": "realtime",
                    "audio": {"input": {"turn_detection": detection}},
                    "avatar": {"mode": "chat", "video": {"region": "mouth"}},
                },
            }
        )
        tasks = [
            asyncio.create_task(job, name="client")
            for job in (talk.read(), talk.microphone(), talk.reports())
        ]
        try:
            await talk.event("session.updated")
            greeting = asyncio.create_task(talk.event("response.created"))
            done, _ = await asyncio.wait([greeting], timeout=2)
            if done:
                await talk.cancel(greeting.result()["response"]["id"])
            else:
                greeting.cancel()
            yield talk
        except (TimeoutError, ConnectionClosed) as error:
            failed = next((task.exception() for task in tasks if task.done()), None)
            raise BenchError(f"the conversation broke off: {failed or error!r}") from error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def run(settings: Settings, turns: int, *, as_json: bool) -> int:
    """Measure and print."""
    from dataclasses import asdict

    report = asyncio.run(
        measure_conversation(
            settings, turns, lambda text: print(f"{text} …", file=sys.stderr, flush=True)
        )
    )
    print(json.dumps(asdict(report), indent=2) if as_json else report_table(report))
    return 0
