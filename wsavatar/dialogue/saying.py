"""What a response says: its parts in order, made ahead of time, and the newest of them kept.

The last seconds are kept, because an answer that was interrupted by mistake goes on where the user
stopped hearing it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

import numpy as np

from .base import Samples, Word
from .llm.base import CallDelta, Finished
from .read_ahead import ReadAhead

__all__ = ["Part", "Saying", "Words", "moved"]

Words = tuple[Word, ...]
Part = str | Samples | Words | CallDelta | Finished
"""A text, followed by its audio; when words are said, in seconds from the first sample; a call of a
function; why a language model stopped."""

_KEPT_S = 20.0
"""More than a client has ahead of what it plays."""
_READ_AHEAD = 4


class Saying:
    """The parts of one response, at ``rate`` samples per second.

    `parts` may be left in the middle, and `after` then gives what is left behind a position.
    ``live``: its audio arrives while it is said.
    """

    def __init__(self, source: AsyncGenerator[Part, None], rate: int, *, live: bool) -> None:
        self.rate = rate
        self.live = live
        self.chars = 0
        """Characters of all texts so far."""
        self._source = ReadAhead(source, _READ_AHEAD)
        self._samples = 0
        self._kept: deque[tuple[int, int, Part]] = deque()  # (first sample, first character, part)
        self._kept_samples = 0

    @property
    def seconds(self) -> float:
        """Audio so far."""
        return self._samples / self.rate

    async def parts(self) -> AsyncIterator[Part]:
        """The parts that were not given yet. Raises what making them raises."""
        async for part in self._source:
            self._keep(part)
            yield part

    def after(self, position_s: float, chars: int) -> list[Part]:
        """The parts that were given and lie behind this position: its audio, and the texts without
        their first ``chars`` characters."""
        start = round(position_s * self.rate)
        left: list[Part] = []
        for first, char, part in self._kept:
            if isinstance(part, str):
                if char + len(part) > chars:
                    left.append(part[max(chars - char, 0) :])
            elif isinstance(part, tuple):
                if words := moved(part, -position_s):
                    left.append(words)
            elif isinstance(part, np.ndarray) and first + len(part) > start:
                left.append(part[max(start - first, 0) :])
        return left

    def kept_audio(self) -> tuple[float, list[Samples]]:
        """The audio that is kept, and where it begins, in seconds."""
        audio = [(first, part) for first, _, part in self._kept if isinstance(part, np.ndarray)]
        return (audio[0][0] / self.rate if audio else self.seconds), [part for _, part in audio]

    def kept_words(self) -> list[Word]:
        """The words that are kept, with their times."""
        return [word for _, _, part in self._kept if isinstance(part, tuple) for word in part]

    async def close(self) -> None:
        """Stop making parts."""
        await self._source.close()

    def _keep(self, part: Part) -> None:
        self._kept.append((self._samples, self.chars, part))
        if isinstance(part, str):
            self.chars += len(part)
        elif isinstance(part, np.ndarray):
            self._samples += len(part)
            self._kept_samples += len(part)
        while self._kept_samples > _KEPT_S * self.rate and len(self._kept) > 1:
            _, _, oldest = self._kept.popleft()
            if isinstance(oldest, np.ndarray):
                self._kept_samples -= len(oldest)


def moved(words: Words, by_s: float) -> Words:
    """The same words, later; without those that would be before the first sample."""
    later = (replace(word, start_s=word.start_s + by_s) for word in words)
    return tuple(word for word in later if word.start_s >= 0)
