"""A recogniser that understands what a test tells it to, and writes down what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from wsavatar.dialogue.asr import ASR_RATE, Heard
from wsavatar.dialogue.engine import EngineError


@dataclass
class ScriptedRecognition:
    """The recognition of one turn. A reading comes when the test calls `read`."""

    recognizer: ScriptedRecognizer
    language: str
    prompt: str
    on_heard: Callable[[Heard], None]
    audio: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    pauses: list[float] = field(default_factory=list)
    finished: bool = False
    cancelled: bool = False

    @property
    def seconds(self) -> float:
        return len(self.audio) / ASR_RATE

    def push(self, samples: np.ndarray) -> None:
        assert samples.dtype == np.float32 and not self.finished and not self.cancelled
        self.audio = np.concatenate([self.audio, samples])

    def voice_ended(self) -> None:
        self.pauses.append(self.seconds)

    async def finish(self) -> str:
        self.finished = True
        if self.recognizer.gate is not None:
            await self.recognizer.gate.wait()
        if self.recognizer.error is not None:
            raise self.recognizer.error
        number = self.recognizer.turns.index(self)
        return self.recognizer.texts[number % len(self.recognizer.texts)]

    def cancel(self) -> None:
        self.cancelled = True

    def read(self, text: str, stable: str = "", *, whole: bool = False) -> None:
        """A reading came, with this text."""
        self.on_heard(Heard(text, stable, whole))


class ScriptedRecognizer:
    """``texts``: what each turn says, in order, over and over. ``gate``: the end waits for it."""

    name = "scripted"
    note = ""

    def __init__(self, *texts: str, error: EngineError | None = None, language: str = "") -> None:
        self.texts = texts or ("",)
        self.error = error
        self.language = language
        self.gate: asyncio.Event | None = None
        self.turns: list[ScriptedRecognition] = []

    async def start(self) -> None: ...

    async def check(self) -> str:
        return "it works"

    async def close(self) -> None: ...

    def listen(
        self, *, language: str = "", prompt: str = "", on_heard: Callable[[Heard], None]
    ) -> ScriptedRecognition:
        self.turns.append(ScriptedRecognition(self, language, prompt, on_heard))
        return self.turns[-1]
