"""Live speech: microphone audio that is spoken while it arrives.

A bounded queue from the dialogue to the speaker's task, so that the dialogue does not wait for the
client's playback until the queue is full.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from .base import Samples

__all__ = ["LiveSpeech"]

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
        """Queue samples. Does nothing after `pieces` was closed."""
        async with self._changed:
            await self._until_at_most(self._max_samples - 1)
            if self._ended:
                return
            self._pieces.append(samples)
            self._waiting += len(samples)
            self._changed.notify_all()

    async def drained(self) -> None:
        """Wait until the queue is empty or `pieces` was closed."""
        async with self._changed:
            await self._until_at_most(0)

    async def _until_at_most(self, samples: int) -> None:
        while not self._closed and self._waiting > samples:
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
