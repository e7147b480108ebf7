"""What a dialogue has yet to be told, in order and bounded.

It knows neither events nor dialogues: only jobs, and how much audio they carry.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from wsavatar.dialogue.base import Dialogue

__all__ = ["MAX_JOBS", "Inbox", "Job"]

MAX_JOBS = 1024

Job = Callable[[Dialogue], Awaitable[None]]


class Inbox:
    """A queue of jobs, bounded by the samples they carry and by their number.

    Full: `put` waits, so the session stops reading and the client's sending waits in turn. Nothing
    is lost.
    """

    def __init__(self, max_samples: int) -> None:
        self._max_samples = max_samples
        self._jobs: deque[tuple[Job, int]] = deque()
        self._samples = 0
        self._changed = asyncio.Condition()

    @property
    def samples(self) -> int:
        """Samples that wait."""
        return self._samples

    async def put(self, job: Job, *, samples: int = 0) -> None:
        async with self._changed:
            await self._changed.wait_for(self._has_room)
            self._jobs.append((job, samples))
            self._samples += samples
            self._changed.notify_all()

    async def take(self) -> Job:
        """The oldest job, once there is one."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._jobs))
            job, samples = self._jobs.popleft()
            self._samples -= samples
            self._changed.notify_all()
            return job

    def _has_room(self) -> bool:
        return self._samples < self._max_samples and len(self._jobs) < MAX_JOBS
