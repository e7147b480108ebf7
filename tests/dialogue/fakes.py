"""A fake session, response and voice that write everything down; ways to speak to a dialogue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from wsavatar.config import AsrSettings, DialogueSettings, LlmSettings, Settings, TtsSettings
from wsavatar.dialogue.asr import Recognizer
from wsavatar.dialogue.base import SPEECH_RATE, Dialogue, DialogueConfig, ResponseRequest, Word
from wsavatar.dialogue.conversation import Conversation, Entry, Recording
from wsavatar.dialogue.echo_delay import EchoReference
from wsavatar.dialogue.engines import Engines
from wsavatar.dialogue.llm import LanguageModel
from wsavatar.dialogue.tts import Voice
from wsavatar.dialogue.tts.base import Chunks
from wsavatar.protocol.events import InputAudioPart, UserMessage, assistant_item, user_item
from wsavatar.session.transcript import Transcript

HEARD_RATE = 16_000


@dataclass
class FakeResponse:
    """Writes down what is said. ``gate`` None: never waits; an event: audio waits for it."""

    id: str
    request: ResponseRequest | None
    rate: int
    gate: asyncio.Event | None = None
    parts: list[np.ndarray] = field(default_factory=list)
    transcript: str = ""
    heard_s: float = 0.0
    spoken: Transcript = field(default_factory=Transcript)
    status: str = "in_progress"
    error: tuple[str, str] | None = None
    timed: list[Word] = field(default_factory=list)
    calls: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def item_id(self) -> str:
        return f"item of {self.id}"

    @property
    def over(self) -> bool:
        return self.status != "in_progress"

    @property
    def said(self) -> np.ndarray:
        return np.concatenate([np.empty(0, np.float32), *self.parts])

    async def audio(self, samples: np.ndarray) -> None:
        assert samples.dtype == np.float32 and samples.ndim == 1
        if self.gate is not None and not self.over:
            await self.gate.wait()
        if self.status == "in_progress":
            self.parts.append(samples)
            self.spoken.spoken(len(samples) / self.rate)
            self.spoken.sent(len(samples) / self.rate)

    async def text(self, delta: str) -> None:
        if self.status == "in_progress":
            self.transcript += delta
            self.spoken.add(delta)

    async def words(self, words: Sequence[Word]) -> None:
        if self.status == "in_progress":
            self.timed += words

    async def arguments(self, call_id: str, name: str, delta: str) -> None:
        if self.status == "in_progress":
            before = self.calls.get(call_id, (name, ""))[1]
            self.calls[call_id] = (name, before + delta)

    async def done(self, incomplete: str | None = None) -> None:
        if self.status == "in_progress":
            self.status = "completed" if incomplete is None else "incomplete"

    async def fail(self, code: str, message: str) -> None:
        if self.status == "in_progress":
            self.status, self.error = "failed", (code, message)


class FakeSession:
    """A session without a socket: one response at a time, events in the order they came.

    ``audible``: the client still plays a response that is over.
    """

    def __init__(self) -> None:
        self.conversation = Conversation()
        self.responses: list[FakeResponse] = []
        self.events: list[tuple[str, Any]] = []
        self.gate: asyncio.Event | None = None
        self.heard_ms = 0
        self.audible = False
        self.interruptions = 0
        self.playing_audio: list[EchoReference] = []
        self.spoken_item_id: str | None = None

    @property
    def speaking(self) -> bool:
        return self.audible or any(not response.over for response in self.responses)

    def respond(
        self, request: ResponseRequest | None = None, *, rate: int = SPEECH_RATE
    ) -> FakeResponse:
        self.cancel()
        number = len(self.responses)
        self.responses.append(FakeResponse(f"resp_{number}", request, rate, self.gate))
        return self.responses[-1]

    def interrupt(self) -> None:
        self.interruptions += 1
        self.audible = False
        self.cancel()

    def cancel(self) -> None:
        if self.responses and not self.responses[-1].over:
            self.responses[-1].status = "cancelled"

    def add_item(self, response: FakeResponse) -> None:
        """The response's item, which a session adds when it begins."""
        item = assistant_item(response.item_id, status="in_progress")
        self.conversation.add(Entry(item, spoken=response.spoken))

    def speech_started(self, audio_start_ms: int) -> None:
        self.spoken_item_id = f"item_{len(self.events)}"
        self.events.append(("started", audio_start_ms))

    def speech_stopped(self, audio_end_ms: int) -> None:
        self.events.append(("stopped", audio_end_ms))

    def transcript_delta(self, item_id: str, delta: str) -> None:
        self.events.append(("transcript_delta", (item_id, delta)))

    def transcribed(self, item_id: str, text: str, seconds: float) -> None:
        part = InputAudioPart(transcript=text)
        entry = self.conversation._entries[item_id]
        self.conversation._entries[item_id] = replace(
            entry, item=UserMessage(id=item_id, content=(part,))
        )
        self.events.append(("transcribed", (item_id, text)))

    def transcription_failed(self, item_id: str, code: str, message: str) -> None:
        self.events.append(("transcription_failed", (item_id, code)))

    def commit(self, audio: Recording | None) -> str:
        item_id = self.spoken_item_id or f"item_{len(self.events)}"
        self.spoken_item_id = None
        self.events.append(("committed", item_id))
        self.conversation.add(Entry(user_item(item_id), audio))
        return item_id


class FakeVoice:
    """Says a tenth of a second a character, or what it was told to raise."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.spoken: list[str] = []
        self.closed = 0

    async def speak(self, text: str) -> Chunks:
        text = text.rstrip()  # a paragraph ends with a line break
        try:
            if self.error is not None:
                raise self.error
            self.spoken.append(text)
            for _ in text:
                await asyncio.sleep(0)
                yield np.full(SPEECH_RATE // 10, 0.1, np.float32)
        finally:
            self.closed += 1

    def for_response(self) -> FakeVoice:
        return self


class FakeEngines(Engines):
    """What a test hands in, and nothing that the machine has."""

    def __init__(
        self,
        voice: Voice,
        recognizer: Recognizer | None = None,
        language_model: LanguageModel | None = None,
    ) -> None:
        super().__init__(
            Settings(
                asr=AsrSettings(engine="none"),
                llm=LlmSettings(engine="none"),
                tts=TtsSettings(engines=("espeak",)),
            )
        )
        self._voice = voice
        self.recognizer = recognizer
        self.language_model = language_model

    def voice(self, name: str = "") -> Voice:
        return self._voice


def engines_of(voice: FakeVoice) -> FakeEngines:
    return FakeEngines(voice)


def config(rate: int = HEARD_RATE, **settings: Any) -> DialogueConfig:
    return DialogueConfig(DialogueSettings(**settings), input_rate=rate)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * HEARD_RATE), np.float32)


async def tell(dialogue: Dialogue, audio: np.ndarray, step: int = 1600) -> None:
    for start in range(0, len(audio), step):
        await dialogue.heard(audio[start : start + step])
        await asyncio.sleep(0)


async def until_over(session: FakeSession, count: int = 1) -> FakeResponse:
    assert len(session.responses) == count
    await wait_for(lambda: session.responses[-1].status != "in_progress")
    return session.responses[-1]


async def wait_for(condition: Callable[[], bool]) -> None:
    """Give the loop turns until it is so; espeak's thread is the only thing outside the loop."""
    for turn in range(20_000):
        if condition():
            return
        await asyncio.sleep(0 if turn < 2000 else 0.001)
    raise AssertionError("it never came to that")


def kinds(session: FakeSession) -> list[str]:
    return [kind for kind, _ in session.events]
