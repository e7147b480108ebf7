"""The silence between phrases: as long as what is read there asks for, whatever the engine.

Engines differ: Edge's voices end each request with 0.8 s of silence or more, eSpeak NG with none.
"""

from __future__ import annotations

from contextlib import aclosing

import numpy as np
from numpy.typing import NDArray

from .base import VOICE_RATE, Chunks, Voice
from .sentences import COMMAS, STOPS

__all__ = ["PausedVoice", "pause_after"]

SENTENCE_PAUSE_S = 0.35
CLAUSE_PAUSE_S = 0.17
OTHER_PAUSE_S = 0.05
"""As eSpeak NG pauses within a text, at 160 words a minute."""

_BLOCK = VOICE_RATE // 100
_FLOOR = 10 ** (-50 / 20)
_LEAD = VOICE_RATE * 30 // 1000
_TAIL = VOICE_RATE * 40 // 1000
_MAX_HELD = 3 * VOICE_RATE

Array = NDArray[np.float32]


class PausedVoice:
    """A `Voice`: another's, without the silence at a phrase's ends, and with a pause before each
    phrase of a response but its first."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self._previous = ""

    def for_response(self) -> PausedVoice:
        return PausedVoice(self._voice.for_response())

    async def speak(self, text: str) -> Chunks:
        if self._previous:
            yield np.zeros(int(pause_after(self._previous) * VOICE_RATE), np.float32)
        self._previous = text
        trim = _Trim()
        async with aclosing(self._voice.speak(text)) as chunks:
            async for chunk in chunks:
                if len(sound := trim.push(chunk)):
                    yield sound
        if len(sound := trim.flush()):
            yield sound


def pause_after(phrase: str) -> float:
    """Seconds of silence after a phrase, by the marks at its end."""
    for c in reversed(phrase):
        if c in STOPS:
            return SENTENCE_PAUSE_S
        if c in COMMAS:
            return CLAUSE_PAUSE_S
        if c.isalnum():
            break
    return OTHER_PAUSE_S


class _Trim:
    """Audio in pieces, without the silence (10 ms below -50 dBFS) at its ends.

    Silence is held back until sound follows it; what is longer than 3 s passes.
    """

    def __init__(self) -> None:
        self._held = np.empty(0, np.float32)  # silence, then less than a block of anything
        self._silent = 0  # samples of `_held` that are known to be silent
        self._begun = False

    def push(self, samples: Array) -> Array:
        held = np.concatenate([self._held, samples])
        whole = self._silent + (len(held) - self._silent) // _BLOCK * _BLOCK
        blocks = held[self._silent : whole].reshape(-1, _BLOCK)
        loud = np.flatnonzero(np.sqrt(np.mean(blocks**2, axis=1)) > _FLOOR)
        if not len(loud):
            excess = max(whole - _MAX_HELD, 0)
            self._held, self._silent = held[excess:], whole - excess
            return held[: excess if self._begun else 0]
        start = 0 if self._begun else max(self._silent + int(loud[0]) * _BLOCK - _LEAD, 0)
        end = self._silent + (int(loud[-1]) + 1) * _BLOCK
        self._begun = True
        self._held, self._silent = held[end:], whole - end
        return held[start:end]

    def flush(self) -> Array:
        """The decay of the last sound, as far as it is there."""
        return self._held[:_TAIL] if self._begun else self._held[:0]
