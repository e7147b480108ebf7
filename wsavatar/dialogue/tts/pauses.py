"""The silence around phrases: as long as what is read there asks for, whatever the engine.

Engines differ: Edge's voices end each request with 0.8 s of silence or more, eSpeak NG with none.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

import numpy as np

from wsavatar.dialogue.base import Word

from .base import VOICE_RATE, Samples, Speech, Voice
from .sentences import COMMAS, STOPS

__all__ = ["PausedVoice", "Trim", "later", "pause_after", "silence"]

SENTENCE_PAUSE_S = 0.35
CLAUSE_PAUSE_S = 0.17
OTHER_PAUSE_S = 0.05
"""As eSpeak NG pauses within a text, at 160 words a minute."""

_BLOCK = VOICE_RATE // 100
_FLOOR = 10 ** (-50 / 20)
_LEAD = VOICE_RATE * 30 // 1000
_TAIL = VOICE_RATE * 40 // 1000
_MAX_HELD = 3 * VOICE_RATE


class PausedVoice:
    """A `Voice`: another's, with a pause before each phrase of a response but its first."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self._previous = ""

    def for_response(self) -> PausedVoice:
        return PausedVoice(self._voice.for_response())

    async def speak(self, text: str) -> Speech:
        pause = silence(pause_after(self._previous) if self._previous else 0)
        begun = False
        async with aclosing(self._voice.speak(text)) as parts:
            async for part in parts:
                if isinstance(part, tuple):
                    yield later(part, len(pause) / VOICE_RATE)
                    continue
                if not begun:
                    begun, self._previous = True, text
                    if len(pause):
                        yield pause
                yield part


def silence(seconds: float) -> Samples:
    return np.zeros(int(seconds * VOICE_RATE), np.float32)


def later(words: tuple[Word, ...], by_s: float) -> tuple[Word, ...]:
    return tuple(replace(word, start_s=word.start_s + by_s) for word in words)


def pause_after(phrase: str) -> float:
    """Seconds of silence after a phrase, by the marks at its end, or the end of its line."""
    for c in reversed(phrase):
        if c in STOPS or c == "\n":
            return SENTENCE_PAUSE_S
        if c in COMMAS:
            return CLAUSE_PAUSE_S
        if c.isalnum():
            break
    return OTHER_PAUSE_S


class Trim:
    """Audio in pieces, without the silence (10 ms below -50 dBFS) at its ends.

    Silence is held back until sound follows it; what is longer than 3 s passes.
    """

    def __init__(self) -> None:
        self.begun = False
        """Whether there was sound."""
        self.dropped = 0
        """Samples before the first that was given."""
        self._held = np.empty(0, np.float32)  # silence, then less than a block of anything
        self._silent = 0  # samples of `_held` that are known to be silent

    def push(self, samples: Samples) -> Samples:
        held = np.concatenate([self._held, samples])
        whole = self._silent + (len(held) - self._silent) // _BLOCK * _BLOCK
        blocks = held[self._silent : whole].reshape(-1, _BLOCK)
        loud = np.flatnonzero(np.sqrt(np.mean(blocks**2, axis=1)) > _FLOOR)
        if not len(loud):
            excess = max(whole - _MAX_HELD, 0)
            self._held, self._silent = held[excess:], whole - excess
            self.dropped += 0 if self.begun else excess
            return held[: excess if self.begun else 0]
        start = 0 if self.begun else max(self._silent + int(loud[0]) * _BLOCK - _LEAD, 0)
        end = self._silent + (int(loud[-1]) + 1) * _BLOCK
        self.dropped += start
        self.begun = True
        self._held, self._silent = held[end:], whole - end
        return held[start:end]

    def flush(self) -> Samples:
        """The decay of the last sound, as far as it is there."""
        return self._held[:_TAIL] if self.begun else self._held[:0]
