"""Live speech: microphone audio that is spoken while it arrives.

A bounded queue from the dialogue to the speaker's task, so that the dialogue does not wait for the
client's playback until the queue is full.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

import numpy as np

from .base import Samples

__all__ = ["PLAYBACK_STALLED", "LiveSpeech"]

PLAYBACK_STALLED = "The client plays nothing, and minutes of speech wait for it."
_STALLED_S = 10.0
"""Time without playback after which, with a full queue, the client counts as stalled."""


class LiveSpeech:
    """Float32 mono at ``rate``, from `push` to `pieces`, until `end`.

    At most ``max_seconds`` are queued. Full: `push` waits. If nothing is taken for some seconds,
    the rest of the speech is dropped, and `stalled` is true.
    """

    def __init__(self, rate: int, max_seconds: float) -> None:
        self.rate = rate
        self.stalled = False
        self._max_samples = int(max_seconds * rate)
        self._pieces: deque[Samples] = deque()
        self._waiting = 0
        self._ended = False  # nothing more is pushed
        self._closed = False  # nothing more is taken
        self._changed = asyncio.Condition()

    async def push(self, samples: Samples) -> None:
        """Say these too. Does nothing once nobody takes it any more."""
        step = self.rate // 2
        async with self._changed:
            for start in range(0, len(samples), step):
                await self._until_not_full()
                if self._ended:
                    return
                piece = samples[start : start + step]
                self._waiting += len(piece)
                if self._pieces and len(self._pieces[-1]) < self.rate // 50:
                    piece = np.concatenate([self._pieces.pop(), piece])  # tiny ones cost memory
                self._pieces.append(piece)
                self._changed.notify_all()

    async def resume(self) -> bool:
        """Go on after `end`, if it is still being said. False: it is over."""
        async with self._changed:
            if self._closed:
                return False
            self._ended = False
            return True

    async def _until_not_full(self) -> None:
        while not self._closed and self._waiting >= self._max_samples:
            before = self._waiting
            try:
                async with asyncio.timeout(_STALLED_S):
                    await self._changed.wait()
            except TimeoutError:
                if self._waiting == before:
                    self.stalled = self._ended = self._closed = True

    async def end(self) -> None:
        """End of the speech; queued samples are still spoken."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def pieces(self) -> AsyncGenerator[Samples, None]:
        """The queued samples, in order. After it is closed, `push` does nothing."""
        try:
            while True:
                async with self._changed:
                    await self._changed.wait_for(lambda: self._ended or bool(self._pieces))
                    if not self._pieces:
                        return
                    piece = self._pieces.popleft()
                    self._waiting -= len(piece)
                    self._changed.notify_all()
                yield piece
        finally:
            self._ended = self._closed = True
            self._pieces.clear()
            async with self._changed:
                self._changed.notify_all()
