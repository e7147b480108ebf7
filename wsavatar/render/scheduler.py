"""Which frames a device makes next. Pure policy: no clock, no threads, no torch, no asyncio.

One scheduler stands before one device and holds the frames of every session that waits for it.
Time is an argument, so a test plays an hour in a second.

What it promises:

* **Urgency.** A batch holds the frames that are due soonest, whichever streams they belong to
  (earliest deadline first). Equally urgent streams take turns, so two finished videos (due never)
  share a device evenly, and get only what live streams leave.
* **Openings.** The frames that open a stream count as due `HEAD_START_S` sooner when it comes to
  whose turn it is, and a batch with one does not grow: who waits for a face to begin moving notices
  every millisecond, while the others have frames in hand.
* **Order.** The frames of one stream leave in the order they came.
* **Batches.** A batch never waits for company: it takes what is there, up to ``batch_size``. It
  grows by doubling, up to ``max_batch_size``, where twice as many frames wait and growing costs no
  deadline: neither of a frame in the batch nor of one that waits behind it. As the queue empties it
  shrinks by itself.
* **One end.** Every frame pushed comes out once: from `next_batch` to be made or as late, from
  `push` as overload, or from `cancel`.

When it drops:

* **Late.** Before each batch the most urgent frames (`LOOKAHEAD` of the greatest batch) are played
  through at what batches were seen to take. Where they cannot all be done by their due times, the
  fewest that let the rest be in time are given up at once, before they cost anything (Moore and
  Hodgson's rule; all frames cost alike, so there is a choice). The choice falls where it shows
  least: on a frame whose neighbours are shown, of the stream that has lost nothing for longest. So
  an overload costs every session the same, one frame here and there, instead of making all late.
  And as batches grow where that loses fewer, an overloaded device runs at its best pace.
* **Tolerance.** A frame that even the next batch cannot make in time is still made where it will be
  at most ``lateness_s`` late: a moment's stall costs no frames. Nothing later than that is made.
* **Nothing in time.** Where no frame that waits would be in time, one batch each `PROBE_S` is made
  all the same, unless by the clock alone it is too late: were the estimate wrong, nothing else
  would ever correct it. Frames due at infinity (finished videos) are never late.
* **Overload.** Beyond ``max_queued_frames`` the stream with the most frames waiting loses its
  *newest*. The deepest, so that a greedy session pays for itself and cannot starve the others; its
  newest, so that what is heard next stays whole.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["Batch", "BatchCosts", "FrameJob", "FrameScheduler", "doublings"]

Work = TypeVar("Work")

HEAD_START_S = 0.5
LOOKAHEAD = 4
PROBE_S = 1.0

RECENT = 8
OUTLIERS = 2
"""One compilation, one page fault: the slowest of the last `RECENT` say nothing of the next."""
FORGET_AFTER = 256
"""Batches. A size not run for so long, perhaps as it once seemed slow, is unknown again."""


@dataclass(frozen=True, slots=True)
class FrameJob(Generic[Work]):
    """One frame to make. ``due_s`` is on the caller's clock; ``work`` is the caller's own."""

    stream: Hashable
    due_s: float
    work: Work
    opens: bool = False
    """It is among the first that the stream will show."""

    @property
    def urgency(self) -> float:
        return self.due_s - HEAD_START_S if self.opens else self.due_s


@dataclass(frozen=True, slots=True)
class Batch(Generic[Work]):
    """What `FrameScheduler.next_batch` decided: frames to make now, and frames to give up."""

    jobs: tuple[FrameJob[Work], ...]
    late: tuple[FrameJob[Work], ...]


def doublings(least: int, most: int) -> tuple[int, ...]:
    """``least``, doubled as often as it stays below ``most``, and ``most``."""
    sizes = [least]
    while 2 * sizes[-1] < most:
        sizes.append(2 * sizes[-1])
    return (*sizes, most) if most > least else tuple(sizes)


class BatchCosts:
    """What a batch of each size takes on one device, learnt from the batches it made.

    ``sizes`` are those that the device runs: n frames run as the smallest that holds them.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        if not sizes or min(sizes) < 1:
            raise ValueError(f"batch sizes are 1 or more, not {list(sizes)}")
        self.sizes = tuple(sorted(set(sizes)))
        self._recent: dict[int, deque[float]] = {size: deque(maxlen=RECENT) for size in self.sizes}
        self._seen = dict.fromkeys(self.sizes, 0)
        self._learnt: dict[int, float] = {}
        self._count = 0

    def observe(self, frames: int, seconds: float) -> None:
        """A batch of ``frames`` took ``seconds`` of the device."""
        size, recent = self._size(frames), self._recent
        self._count += 1
        self._seen[size] = self._count
        recent[size].append(seconds)
        learnt = dict(self._learnt)
        learnt[size] = sorted(recent[size])[max(0, len(recent[size]) - 1 - OUTLIERS)]
        for other, seen in self._seen.items():
            if self._count - seen >= FORGET_AFTER:
                recent[other].clear()
                learnt.pop(other, None)
        self._learnt = learnt  # in one step, for readers on another thread

    def estimate(self, frames: int) -> float:
        """What a batch of ``frames`` will take, in seconds; 0.0 before anything was observed.

        The slowest of the last batches of its size but `OUTLIERS`: rather too much, so that where
        batches differ nearly all are in time; what that gains is made use of in the next plan. A
        size never seen is taken to cost in proportion to the next smaller, else as the next larger.
        """
        learnt, size = self._learnt, self._size(frames)
        beyond = max(1.0, frames / size)
        if size in learnt:
            return learnt[size] * beyond
        smaller = max((known for known in learnt if known < size), default=None)
        if smaller is not None:
            return learnt[smaller] * size / smaller * beyond
        return learnt[min(learnt)] if learnt else 0.0

    def _size(self, frames: int) -> int:
        return next((size for size in self.sizes if size >= frames), self.sizes[-1])


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Work]):
    """A frame in its stream's queue, linked to its neighbours: any of them may leave."""

    job: FrameJob[Work]
    stream: _Stream[Work]
    gap: int
    """Frames lost directly before it."""
    before: _Waiting[Work] | None
    after: _Waiting[Work] | None = None
    since: int = 0
    """Frames since the last gap; up to date in a plan."""

    def visibility(self) -> tuple[int, int]:
        """How much its loss would show: the gap it makes, then how lately its stream lost one."""
        return self.gap + 1 + (self.after.gap if self.after else self.stream.gap), -self.since


@dataclass(slots=True, eq=False)
class _Stream(Generic[Work]):
    name: Hashable
    number: int
    served: int
    """The turn in which it was last served: the tie between equally urgent streams."""
    first: _Waiting[Work] | None = None
    last: _Waiting[Work] | None = None
    depth: int = 0
    gap: int = 0
    """Frames lost directly behind the last."""
    since: int = 0
    """Frames made since the last gap."""

    def append(self, job: FrameJob[Work]) -> None:
        waiting = _Waiting(job, self, self.gap, self.last)
        if self.last is None:
            self.first = waiting
        else:
            self.last.after = waiting
        self.last, self.gap, self.depth = waiting, 0, self.depth + 1

    def made(self, waiting: _Waiting[Work]) -> None:
        """Remove the first frame: it will be shown."""
        self.since = 0 if waiting.gap else self.since + 1
        self._unlink(waiting)

    def lost(self, waiting: _Waiting[Work]) -> None:
        """Remove any frame: its neighbours will be further apart."""
        gap, follower = waiting.gap + 1, waiting.after
        self._unlink(waiting)
        if follower is None:
            self.gap += gap
        else:
            follower.gap += gap
            follower.since = 0
            self.count_on(follower)

    def count_on(self, waiting: _Waiting[Work]) -> None:
        """Count ``since`` from here to the next gap."""
        behind = waiting
        while (ahead := behind.after) is not None and not ahead.gap:
            ahead.since = behind.since + 1
            behind = ahead

    def _unlink(self, waiting: _Waiting[Work]) -> None:
        if waiting.before is None:
            self.first = waiting.after
        else:
            waiting.before.after = waiting.after
        if waiting.after is None:
            self.last = waiting.before
        else:
            waiting.after.before = waiting.before
        self.depth -= 1


@dataclass(frozen=True, slots=True)
class _Pace:
    """When the next frames would be done: ``first`` of them in one batch, then at the best pace."""

    first: int
    done_s: tuple[float, ...]
    """Of the n-th frame, from 0."""
    earliest_s: float
    """When the smallest batch would be done: what is due before that is late in any case."""
    lateness_s: float

    def holds(self, count: int, due_s: float) -> bool:
        """Whether the last of ``count`` frames is in time, or late as it must be and bearably."""
        done_s = self.done_s[count - 1]
        return done_s <= due_s or due_s < self.earliest_s and done_s <= due_s + self.lateness_s

    def losses(self, drawn: Sequence[_Waiting[Any]]) -> int:
        """How many of these frames, the most urgent first, could not be in time."""
        kept = 0
        for waiting in drawn:
            kept += self.holds(kept + 1, waiting.job.due_s)
        return len(drawn) - kept


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
        self._probed_s = -math.inf

    def __len__(self) -> int:
        """Frames waiting."""
        return self._count

    def push(self, jobs: Iterable[FrameJob[Work]]) -> list[FrameJob[Work]]:
        """Queue frames, each stream's in its order; return what overload drops for them."""
        for job in jobs:
            stream = self._streams.get(job.stream)
            if stream is None:
                self._opened += 1
                stream = self._streams[job.stream] = _Stream(job.stream, self._opened, self._turn)
            stream.append(job)
            self._count += 1
        dropped = []
        while self._count > self.max_queued_frames:
            deepest = max(self._streams.values(), key=lambda stream: stream.depth)
            assert deepest.last is not None
            dropped.append(self._lose(deepest.last))
        return dropped

    def cancel(self, stream: Hashable) -> list[FrameJob[Work]]:
        """Remove all that waits for a stream, at once."""
        removed = self._streams.pop(stream, None)
        if removed is None:
            return []
        self._count -= removed.depth
        jobs, waiting = [], removed.first
        while waiting is not None:
            jobs.append(waiting.job)
            waiting = waiting.after
        return jobs

    def clear(self) -> list[FrameJob[Work]]:
        """Remove all that waits for anyone."""
        return [job for name in list(self._streams) for job in self.cancel(name)]

    def next_batch(self, now_s: float, costs: BatchCosts, ceiling: int) -> Batch[Work]:
        """Take the most urgent frames, at most ``ceiling``; give up those that cannot be in time.

        ``now_s`` is when the device can begin with them. Where all of the most urgent are late it
        returns them and no more, so that a call is short; ask again while frames wait.
        """
        if not self._count:
            return Batch((), ())
        ceiling = max(1, min(ceiling, self.max_batch_size))
        drawn = self._draw(LOOKAHEAD * ceiling)
        pace = self._pace(drawn, now_s, costs, ceiling)
        late = self._thin(drawn, pace)
        jobs = [self._make(waiting) for waiting in drawn[: pace.first]]
        if not jobs and now_s - self._probed_s >= PROBE_S:
            bearable = [job for job in late if job.due_s + self.lateness_s >= now_s]
            jobs = bearable[-min(self.batch_size, ceiling) :]  # the least late
            if jobs:
                self._probed_s = now_s
                probing = set(map(id, jobs))
                late = [job for job in late if id(job) not in probing]
        return Batch(tuple(jobs), tuple(late))

    def _draw(self, limit: int) -> list[_Waiting[Work]]:
        """The most urgent frames, in the order in which they would be made."""
        heads = []
        for stream in self._streams.values():
            assert stream.first is not None  # a stream without frames leaves no trace
            stream.first.since = 0 if stream.first.gap else stream.since + 1
            heads.append((stream.first.job.urgency, stream.served, stream.number, stream.first))
        heapq.heapify(heads)
        drawn: list[_Waiting[Work]] = []
        while heads and len(drawn) < limit:
            waiting = heads[0][-1]
            drawn.append(waiting)
            follower = waiting.after
            if follower is None:
                heapq.heappop(heads)
                continue
            follower.since = 0 if follower.gap else waiting.since + 1
            turn = self._turn + len(drawn)
            heapq.heapreplace(heads, (follower.job.urgency, turn, waiting.stream.number, follower))
        return drawn

    def _pace(
        self, drawn: Sequence[_Waiting[Work]], now_s: float, costs: BatchCosts, ceiling: int
    ) -> _Pace:
        """How big the next batch is: as big as loses the fewest frames."""
        least = min(self.batch_size, ceiling)
        sizes = [
            size for size in doublings(least, ceiling) if size == least or 2 * size <= self._count
        ]
        rest = max(sizes, key=lambda size: size / max(costs.estimate(size), 1e-9))
        if any(waiting.job.opens for waiting in drawn[:least]):
            sizes = sizes[:1]
        earliest_s = now_s + costs.estimate(min(least, len(drawn)))
        paces = []
        for size in reversed(sizes):
            first = min(size, len(drawn))
            done_s = [now_s + costs.estimate(first)] * first
            while len(done_s) < len(drawn):
                batch = min(rest, len(drawn) - len(done_s))
                done_s += [done_s[-1] + costs.estimate(batch)] * batch
            paces.append(_Pace(first, tuple(done_s), earliest_s, self.lateness_s))
        return min(paces, key=lambda pace: pace.losses(drawn))

    def _thin(self, drawn: list[_Waiting[Work]], pace: _Pace) -> list[FrameJob[Work]]:
        """Take out the fewest frames that let the rest be in time, where it shows least."""
        lost = []
        kept: list[_Waiting[Work]] = []
        for waiting in drawn:
            due_s = waiting.job.due_s
            kept.append(waiting)
            if pace.holds(len(kept), due_s):
                continue
            victim = waiting
            if len(kept) > 1 and pace.holds(len(kept) - 1, due_s):  # it can take another's place
                victim = min(kept, key=_Waiting.visibility)
            kept.remove(victim)
            lost.append(self._lose(victim))
        drawn[:] = kept
        return lost

    def _make(self, waiting: _Waiting[Work]) -> FrameJob[Work]:
        self._turn += 1
        waiting.stream.served = self._turn
        waiting.stream.made(waiting)
        self._forget_one(waiting.stream)
        return waiting.job

    def _lose(self, waiting: _Waiting[Work]) -> FrameJob[Work]:
        waiting.stream.lost(waiting)
        self._forget_one(waiting.stream)
        return waiting.job

    def _forget_one(self, stream: _Stream[Work]) -> None:
        """A frame left a stream; a stream without frames leaves no trace."""
        self._count -= 1
        if not stream.depth:
            del self._streams[stream.name]
