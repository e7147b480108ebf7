"""Which frames a device makes next. Pure policy: no clock, no threads, no torch, no asyncio.

One scheduler stands before one device and holds the frames of every session that waits for it.
Time is an argument, so a test plays an hour in a millisecond.

What it promises:

* **Urgency.** A batch holds the frames that are due soonest, whichever streams they belong to.
  Equally urgent streams take turns, so two finished videos (due never) share a device evenly.
* **Order.** The frames of one stream leave in the order they came.
* **Batches.** A batch never waits for company: it takes what is there, up to ``batch_size``. Where
  the queue is deep (`DEEP_BATCHES` of them or more: several sessions, or one far ahead of itself)
  it grows, up to ``max_batch_size``, as long as every frame in it would still be done before it is
  due; a bigger batch is cheaper a frame, but its first frame comes later.
* **One end.** Every frame pushed comes out once: from `next_batch` to be made or as late, from
  `push` as overload, or from `cancel`.

When it drops:

* **Late.** A frame whose due time passed more than ``lateness_s`` ago is handed out as late before
  it costs anything. It goes by the clock alone, never by an estimate of what a frame costs: one
  slow batch must not talk the scheduler into dropping everything, for then it would never learn
  better. Frames due at infinity (finished videos) are never late.
* **Overload.** Beyond ``max_queued_frames`` the stream with the most frames waiting loses its
  *newest*. The deepest, so that a greedy session pays for itself and cannot starve the others; its
  newest, so that what is heard next stays whole (the oldest are the most urgent, and where they
  cannot be made in time, lateness drops them anyway).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["DEEP_BATCHES", "Batch", "FrameJob", "FrameScheduler"]

Work = TypeVar("Work")

DEEP_BATCHES = 4
"""One lone chunk of 0.5 s (13 frames) at batch 4 is not deep: its first frames come first."""


@dataclass(frozen=True, slots=True)
class FrameJob(Generic[Work]):
    """One frame to make. ``due_s`` is on the caller's clock; ``work`` is the caller's own."""

    stream: Hashable
    due_s: float
    work: Work


@dataclass(frozen=True, slots=True)
class Batch(Generic[Work]):
    """What `FrameScheduler.next_batch` decided: frames to make now, and frames to give up."""

    jobs: tuple[FrameJob[Work], ...]
    late: tuple[FrameJob[Work], ...]


@dataclass(slots=True)
class _Stream(Generic[Work]):
    number: int
    served: int
    """The turn in which it was last served: the tie between equally urgent streams."""
    waiting: deque[FrameJob[Work]] = field(default_factory=deque)

    @property
    def urgency(self) -> tuple[float, int, int]:
        return (self.waiting[0].due_s, self.served, self.number)


class FrameScheduler(Generic[Work]):
    """The queue before one device. Not thread-safe: its owner holds a lock."""

    def __init__(
        self,
        *,
        batch_size: int,
        max_batch_size: int,
        max_queued_frames: int,
        lateness_s: float,
    ) -> None:
        self.batch_size = batch_size
        self.max_batch_size = max(batch_size, max_batch_size)
        self.max_queued_frames = max_queued_frames
        self.lateness_s = lateness_s
        self._streams: dict[Hashable, _Stream[Work]] = {}
        self._count = 0
        self._turn = 0
        self._opened = 0

    def __len__(self) -> int:
        """Frames waiting."""
        return self._count

    def push(self, jobs: Iterable[FrameJob[Work]]) -> list[FrameJob[Work]]:
        """Queue frames, each stream's in its order; return what overload drops for them."""
        for job in jobs:
            stream = self._streams.get(job.stream)
            if stream is None:
                self._opened += 1
                stream = self._streams[job.stream] = _Stream(self._opened, self._turn)
            stream.waiting.append(job)
            self._count += 1
        dropped = []
        while self._count > self.max_queued_frames:
            deepest = max(self._streams, key=lambda name: len(self._streams[name].waiting))
            dropped.append(self._streams[deepest].waiting.pop())
            self._forget_one(deepest)
        return dropped

    def cancel(self, stream: Hashable) -> list[FrameJob[Work]]:
        """Remove all that waits for a stream, at once."""
        removed = self._streams.pop(stream, None)
        if removed is None:
            return []
        self._count -= len(removed.waiting)
        return list(removed.waiting)

    def clear(self) -> list[FrameJob[Work]]:
        """Remove all that waits for anyone."""
        return [job for name in list(self._streams) for job in self.cancel(name)]

    def next_batch(self, now_s: float, frame_cost_s: float = 0.0) -> Batch[Work]:
        """Take the most urgent frames. ``frame_cost_s``: about what a frame takes in a batch."""
        late = self._take_late(now_s)
        limit = self.batch_size
        if self._count >= DEEP_BATCHES * self.batch_size:
            limit = self.max_batch_size
        heads = [(*stream.urgency, name) for name, stream in self._streams.items()]
        heapq.heapify(heads)
        jobs: list[FrameJob[Work]] = []
        earliest_s = heads[0][0] if heads else 0.0
        while heads and len(jobs) < limit:
            in_time = now_s + (len(jobs) + 1) * frame_cost_s <= earliest_s
            if len(jobs) >= self.batch_size and not in_time:
                break
            name = heapq.heappop(heads)[-1]
            stream = self._streams[name]
            jobs.append(stream.waiting.popleft())
            self._turn += 1
            stream.served = self._turn
            self._forget_one(name)
            if stream.waiting:
                heapq.heappush(heads, (*stream.urgency, name))
        return Batch(tuple(jobs), late)

    def _take_late(self, now_s: float) -> tuple[FrameJob[Work], ...]:
        late = []
        for name, stream in list(self._streams.items()):
            while stream.waiting and stream.waiting[0].due_s + self.lateness_s < now_s:
                late.append(stream.waiting.popleft())
                self._forget_one(name)
        return tuple(late)

    def _forget_one(self, name: Hashable) -> None:
        """A frame left a stream; a stream without frames leaves no trace."""
        self._count -= 1
        if not self._streams[name].waiting:
            del self._streams[name]
