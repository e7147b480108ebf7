"""What a voice is, and what makes one. Knows nothing of dialogues."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsavatar.dialogue.base import Word
from wsavatar.errors import WsavatarError

__all__ = [
    "VOICE_RATE",
    "Chunks",
    "Samples",
    "Speech",
    "Synthesizer",
    "Voice",
    "VoiceEngine",
    "VoiceError",
    "VoiceInfo",
    "VoiceList",
    "VoiceTimeout",
    "VoiceUnreachable",
    "WordTime",
]

VOICE_RATE = 24_000

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class WordTime:
    """When an engine says a word of the phrase.

    ``at``: the index of its first character in the text; ``start_s``: from the first sample of the
    phrase; ``duration_s`` 0: until the next word.
    """

    at: int
    start_s: float
    duration_s: float = 0.0


Chunks = AsyncGenerator[Samples | WordTime, None]
"""A phrase as an engine makes it: float32 mono at VOICE_RATE, and times of words, in order, in
between, before or after their sound. An engine that does not know the times gives none."""

Speech = AsyncGenerator[Samples | tuple[Word, ...], None]
"""A phrase as a voice says it: sound, and the words of the text with their times from the phrase's
first sample."""


class VoiceError(WsavatarError, RuntimeError):
    """A text could not be spoken; the message says why, and what to do."""


class VoiceUnreachable(VoiceError):
    """The voice's service cannot be reached, or refuses connections: no text can be spoken now.

    Never raised for what one text or one voice name can cause.
    """


class VoiceTimeout(VoiceError):
    """The service was reached, but sent no audio in time. Its load or the text may be the cause."""


class Synthesizer(Protocol):
    """One voice of one engine. May be used by many sessions at once."""

    @property
    def times_words(self) -> bool:
        """Whether it says when words are said."""

    def speak(self, text: str) -> Chunks:
        """A phrase (`text.phrases`), as it becomes ready.

        Closing the generator, or cancelling who iterates it, stops the work. Raises `VoiceError`.
        """
        ...


class Voice(Protocol):
    """The avatar's voice in a session, by whatever engines."""

    def speak(self, text: str) -> Speech:
        """A phrase (`text.phrases`), as it becomes ready; closing the generator stops the work.

        Raises `VoiceError`.
        """
        ...

    def for_response(self) -> Voice:
        """The voice for all phrases of one response, so that it does not change between them."""
        ...


@dataclass(frozen=True, slots=True)
class VoiceInfo:
    """A voice to choose: ``id`` is what a client sends as the voice's name."""

    id: str
    name: str
    language: str
    """As "en-US"; empty: any."""
    engine: str


@dataclass(frozen=True, slots=True)
class VoiceList:
    """The voices to choose. ``complete`` False: a service is asked for more of them now."""

    voices: tuple[VoiceInfo, ...]
    complete: bool


class VoiceEngine(ABC):
    """An engine of the server; all sessions share it. Nothing is loaded before `start`."""

    name: str
    """As in the settings' ``tts.engines``."""
    note: str = ""
    """What a user should know of it."""

    @abstractmethod
    def problem(self) -> str:
        """Why it cannot be used, and what to type; empty: it is set up. Asks no network."""

    @abstractmethod
    def synthesizer(self, name: str) -> Synthesizer:
        """A voice by its name. One that the engine does not know means its default voice, or a
        voice of the language that the name says ("de-DE-KatjaNeural")."""

    @abstractmethod
    def voices(self) -> Sequence[VoiceInfo]:
        """The voices there are, as far as known without waiting; none while it has a problem."""

    def knows(self, name: str) -> bool:
        """Whether this is the name of one of its voices, as far as known without waiting."""
        return any(voice.id == name for voice in self.voices())

    def owns(self, name: str) -> bool:
        """Whether the name means this engine's voice, and not any voice of a language."""
        return self.knows(name)

    async def look_up(self) -> None:
        """Find out which voices there are, where that means to ask a network. Raises VoiceError."""
        return

    async def start(self) -> None:
        """Load what takes long. Raises VoiceError; what was not loaded is loaded when needed."""
        return

    async def close(self) -> None:
        """Give back what was loaded, and close connections."""
        return
