"""What speech recognition is. Knows no engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsavatar.dialogue.engine import SharedEngine

__all__ = ["ASR_RATE", "Heard", "Recognition", "Recognizer"]

ASR_RATE = 16_000


@dataclass(frozen=True, slots=True)
class Heard:
    """What was understood of a turn so far. ``stable``: its beginning that no longer changes.

    ``whole``: it is the text of all audio up to now, so `Recognition.finish` has nothing to read.
    """

    text: str
    stable: str
    whole: bool = False


class Recognition(Protocol):
    """The recognition of one turn, while it is spoken."""

    def push(self, samples: NDArray[np.float32]) -> None:
        """More of the turn: float32 mono at ASR_RATE. Does not wait."""

    def voice_ended(self) -> None:
        """The user is silent, perhaps for good: read what is there now, so that `finish` has
        nothing left to read if no more voice comes."""

    async def finish(self) -> str:
        """The turn is over: all of its text, at most one reading later; empty: no words.

        Raises EngineError.
        """

    def cancel(self) -> None:
        """The text is not wanted any more. Does nothing after `finish`."""


class Recognizer(SharedEngine, Protocol):
    """A speech recognition engine."""

    @property
    def language(self) -> str:
        """The language of the settings, as "en"; empty: the avatar's, else it is found out."""

    def listen(
        self, *, language: str = "", prompt: str = "", on_heard: Callable[[Heard], None]
    ) -> Recognition:
        """Recognise one turn. ``on_heard`` is called on the event loop with each newer text.

        ``language`` as "en", or empty: the engine finds it out. ``prompt``: names and spellings.
        """
        ...
