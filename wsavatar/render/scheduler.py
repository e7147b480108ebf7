"""Chooses the frames that a device renders next. Pure policy: no clock, threads, torch or asyncio.

Each device has a scheduler with the waiting frames of all sessions. Time is an argument, so a test
simulates an hour in a second.

Guarantees:

* **Urgency.** A batch has the frames that are due soonest, of any streams
  (earliest deadline first). Equally urgent streams take turns, so two finished videos (due never)
  share a device evenly, and get only what live streams leave.
* **Openings.** For the order, the first frames of a stream count as due `HEAD_START_S` sooner, and
  a batch with one does not grow: a viewer waits for the first frame, while others have frames
  buffered.
* **Order.** The frames of one stream leave in the order of arrival.
* **Batches.** A batch never waits for more frames: it takes those available, up to ``batch_size``.
  It grows by doubling, up to ``max_batch_size``, if twice as many frames wait and no deadline
  suffers, in the batch or after it. It shrinks when the queue is short.
* **One outcome.** Every frame pushed is returned once: by `next_batch` to render or as late, by
  `push` as overload, or by `cancel`.

Rules for dropping:

* **Shares.** In an overload the same share of each session's frames is made, at regular distances:
  frames between them are skipped, and dropped once a later one of their stream is made. So every
  face moves on, down to a fifth of its frames; only beyond that whole chunks are dropped, of each
  session in turn (`wsavatar.render.chunks`). This is planned where audio features cost time.
* **Late.** Before each batch the most urgent frames (`LOOKAHEAD` of the largest batch) are
  simulated with the measured times of batches. If not all can be ready at their due times, the
  fewest whose loss lets the rest be in time are dropped at once, before they cost anything (Moore
  and Hodgson's rule; all frames cost the same, so there is a choice). The first frame of a chunk
  also costs the chunk's audio features. The frame chosen is the least visible loss: its neighbours
  are shown, and its stream has lost nothing for longest. Batches grow if that loses fewer frames,
  so an overloaded device runs at its best rate.
* **Not before its time.** Only what is due within `SOON_S` is given up: measured times may be those
  of a device that did other work as well.
* **Tolerance.** A frame that even the next batch cannot render in time is still rendered if it will
  be at most ``lateness_s`` late: a short stall costs no frames. Later ones are dropped.
* **Nothing in time.** If no waiting frame would be in time, one batch in `PROBE_S` is rendered
  anyway, unless it is too late already: otherwise a wrong estimate would never be corrected. Frames
  due at infinity (finished videos) are never late.
* **Overload.** Above ``max_queued_frames`` the stream with most waiting frames loses its *newest*
  ones, so that no session can take the place of others, and what is heard next is complete.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from wsavatar.render.chunks import SOON_S, ChunkChoice, ChunkCost, WaitingChunk
from wsavatar.render.costs import BatchCosts, doublings

__all__ = ["Batch", "FrameJob", "FrameScheduler"]

Work = TypeVar("Work")

HEAD_START_S = 0.5
LOOKAHEAD = 4
PROBE_S = 1.0


@dataclass(frozen=True, slots=True)
class FrameJob(Generic[Work]):
    """One frame to render. ``due_s`` is on the caller's clock; ``work`` is the caller's object."""

    stream: Hashable
    due_s: float
    work: Work
    opens: bool = False
    """It is among the first that the stream will show."""
    chunk: ChunkCost | None = None
    """What it shares with the other frames of its chunk; None where that costs nothing."""

    @property
    def urgency(self) -> float:
        return self.due_s - HEAD_START_S if self.opens else self.due_s


@dataclass(frozen=True, slots=True)
class Batch(Generic[Work]):
    """Result of `FrameScheduler.next_batch`: frames to render now, and frames to drop."""

    jobs: tuple[FrameJob[Work], ...]
    late: tuple[FrameJob[Work], ...]


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Work]):
    """A frame in its stream's queue, linked to its neighbours: any of them may leave."""

    job: FrameJob[Work]
    stream: _Stream[Work]
    gap: int
    """Frames lost directly before it."""
    number: int
    """In its stream, from 0."""
    before: _Waiting[Work] | None
    chunk: WaitingChunk | None
    after: _Waiting[Work] | None = None
    since: int = 0
    """Frames since the last gap; up to date in a plan."""

    def visibility(self) -> tuple[int, int]:
        """How much its loss would show: the gap it makes, then how lately its stream lost one."""
        return self.gap + 1 + (self.after.gap if self.after else self.stream.gap), -self.since

    def next_after(self, number: float, step: float) -> float:
        """The number of the frame to make behind it, where it was ``number`` for this one."""
        return max(number, self.number + 1 - step) + step


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
    count: int = 0
    """Frames that came."""
    next: float = 0.0
    """The number of the frame to make next; those before it are skipped."""

    def append(self, job: FrameJob[Work], chunk: WaitingChunk | None) -> None:
        waiting = _Waiting(job, self, self.gap, self.count, self.last, chunk)
        self.count += 1
        if self.last is None:
            self.first = waiting
        else:
            self.last.after = waiting
        self.last, self.gap, self.depth = waiting, 0, self.depth + 1

    def to_make(self) -> _Waiting[Work] | None:
        """The first frame that is not skipped."""
        return _unskipped(self.first, self.next)

    def made(self, waiting: _Waiting[Work], step: float) -> None:
        """Remove the first frame: it will be shown; of those behind it, one in ``step``."""
        self.next = waiting.next_after(self.next, step)
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


def _unskipped(waiting: _Waiting[Work] | None, number: float) -> _Waiting[Work] | None:
    """The first from here on with this number at least; one without a chunk is never skipped."""
    while waiting is not None and waiting.chunk and waiting.number < number - 1e-6:
        waiting = waiting.after
    return waiting


@dataclass(frozen=True, slots=True)
class _Pace:
    """When the next frames would be done: ``first`` of them in one batch, then at the best pace."""

    first: int
    done_s: tuple[float, ...]
    """Of the n-th frame, from 0, without the features of chunks."""
    earliest_s: float
    """When the smallest batch would be done: what is due before that is late in any case."""
    lateness_s: float

    def losses(self, drawn: Sequence[_Waiting[Any]]) -> int:
        """How many of these frames, the most urgent first, could not be in time."""
        kept = _Kept[Any](self)
        for waiting in drawn:
            kept.add(waiting)
            if not kept.is_in_time():
                kept.remove(waiting)
        return len(drawn) - len(kept.frames)


class _Kept(Generic[Work]):
    """The frames of a plan that are to be made, in order."""

    def __init__(self, pace: _Pace) -> None:
        self.frames: list[_Waiting[Work]] = []
        self._pace = pace
        self._of_chunk: Counter[int] = Counter()  # by id: of those whose features are to be made
        self._features_s = 0.0

    def add(self, waiting: _Waiting[Work]) -> None:
        self.frames.append(waiting)
        self._count(waiting, 1)

    def remove(self, waiting: _Waiting[Work]) -> None:
        self.frames.remove(waiting)
        self._count(waiting, -1)

    def is_in_time(self, less: int = 0) -> bool:
        """Whether the last is in time, or late as it must be and bearably.

        In the first batch its features must not make those before it late beyond that either.
        ``less``: with so many fewer before it.
        """
        pace, last = self._pace, self.frames[-1]
        count = len(self.frames) - less
        done_s = pace.done_s[count - 1] + self._features_s
        own_s = last.chunk.features_s if last.chunk is not None else 0.0
        due_s = last.job.due_s
        if due_s < pace.earliest_s + own_s:
            due_s += pace.lateness_s
        if own_s and count <= pace.first:
            bearable_s = min(waiting.job.due_s for waiting in self.frames) + pace.lateness_s
            due_s = min(due_s, bearable_s)
        return done_s <= due_s

    def _count(self, waiting: _Waiting[Work], change: int) -> None:
        chunk = waiting.chunk
        if chunk is None or not chunk.features_s:
            return
        before = self._of_chunk[id(chunk)]
        self._of_chunk[id(chunk)] += change
        if not before or not before + change:
            self._features_s += change * chunk.features_s


class FrameScheduler(Generic[Work]):
    """The queue of one device. Not thread-safe: its owner holds a lock."""

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
        self._chunks = ChunkChoice()
        self._count = 0
        self._turn = 0
        self._opened = 0
        self._probed_s = -math.inf

    def __len__(self) -> int:
        """Frames waiting."""
        return self._count

    def push(self, jobs: Iterable[FrameJob[Work]]) -> list[FrameJob[Work]]:
        """Queue frames, each stream's in its order; returns frames dropped as overload."""
        for job in jobs:
            stream = self._streams.get(job.stream)
            if stream is None:
                self._opened += 1
                stream = self._streams[job.stream] = _Stream(job.stream, self._opened, self._turn)
            chunk = None
            if job.chunk is not None:
                chunk = self._chunks.push(job.stream, job.chunk, job.due_s, job.opens)
            stream.append(job, chunk)
            self._count += 1
        dropped = []
        while self._count > self.max_queued_frames:
            deepest = max(self._streams.values(), key=lambda stream: stream.depth)
            assert deepest.last is not None
            dropped.append(self._lose(deepest.last))
        return dropped

    def cancel(self, stream: Hashable) -> list[FrameJob[Work]]:
        """Remove and return all waiting frames of a stream."""
        removed = self._streams.pop(stream, None)
        if removed is None:
            return []
        self._count -= removed.depth
        jobs, waiting = [], removed.first
        while waiting is not None:
            jobs.append(waiting.job)
            if waiting.chunk is not None:
                self._chunks.leave(waiting.chunk)
            waiting = waiting.after
        return jobs

    def clear(self) -> list[FrameJob[Work]]:
        """Remove and return all waiting frames."""
        return [job for name in list(self._streams) for job in self.cancel(name)]

    def next_batch(self, now_s: float, costs: BatchCosts, ceiling: int) -> Batch[Work]:
        """Take the most urgent frames, at most ``ceiling``; drop those that cannot be in time.

        ``now_s``: when the device can start with them. If all of the most urgent are late, only
        these are returned, so that a call is short; call again while frames wait.
        """
        if not self._count:
            return Batch((), ())
        ceiling = max(1, min(ceiling, self.max_batch_size))
        size = self._best_size(self._sizes(ceiling), costs)
        plan = self._chunks.plan(now_s, costs.typical(size) / size, costs.window_s)
        late = [job for chunk in plan.given_up for job in self._give_up(chunk)]
        late += self._skipped_until(now_s - self.lateness_s)
        drawn = self._draw(LOOKAHEAD * ceiling, 1 / plan.share)
        pace = self._pace(drawn, now_s, costs, ceiling)
        kept, lost = self._thin(drawn, pace, now_s + SOON_S)
        for waiting in (taken := self._first(kept, pace)):
            late += self._skip_to(waiting)
            self._make(waiting, 1 / plan.share)
        if not kept:
            taken = self._probe(lost, now_s, min(self.batch_size, ceiling))
        late += [waiting.job for waiting in lost if waiting not in taken]
        return Batch(tuple(waiting.job for waiting in taken), tuple(late))

    def _give_up(self, chunk: WaitingChunk) -> list[FrameJob[Work]]:
        """All frames of a chunk."""
        lost, waiting = [], self._streams[chunk.stream].first
        while waiting is not None:
            follower = waiting.after
            if waiting.chunk is chunk:
                lost.append(self._lose(waiting))
            waiting = follower
        return lost

    def _draw(self, limit: int, step: float) -> list[_Waiting[Work]]:
        """The most urgent frames, in the order in which they would be made; one in ``step``."""
        if all(stream.to_make() is None for stream in self._streams.values()):
            for stream in self._streams.values():  # nothing is to be made but what was skipped
                stream.next = 0.0
        heads = []
        for stream in self._streams.values():
            if (waiting := stream.to_make()) is not None:
                waiting.since = 0 if waiting.gap else stream.since + 1
                urgency = waiting.job.urgency
                heads.append((urgency, stream.served, stream.number, waiting, stream.next))
        heapq.heapify(heads)
        drawn: list[_Waiting[Work]] = []
        while heads and len(drawn) < limit:
            *_, number, waiting, due = heads[0]
            drawn.append(waiting)
            due = waiting.next_after(due, step)
            follower = _unskipped(waiting.after, due)
            if follower is None:
                heapq.heappop(heads)
                continue
            follower.since = 0 if follower.gap else waiting.since + 1
            turn = self._turn + len(drawn)
            heapq.heapreplace(heads, (follower.job.urgency, turn, number, follower, due))
        return drawn

    def _pace(
        self, drawn: Sequence[_Waiting[Work]], now_s: float, costs: BatchCosts, ceiling: int
    ) -> _Pace:
        """How big the next batch is: as big as loses the fewest frames."""
        least = min(self.batch_size, ceiling)
        sizes = self._sizes(ceiling)
        rest = self._best_size(sizes, costs)
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

    def _sizes(self, ceiling: int) -> list[int]:
        """Batch sizes that the number of waiting frames allows."""
        least = min(self.batch_size, ceiling)
        sizes = doublings(least, ceiling)
        return [size for size in sizes if size == least or 2 * size <= self._count]

    @staticmethod
    def _best_size(sizes: Sequence[int], costs: BatchCosts) -> int:
        return max(sizes, key=lambda size: size / max(costs.estimate(size), 1e-9))

    def _thin(
        self, drawn: Sequence[_Waiting[Work]], pace: _Pace, soon_s: float
    ) -> tuple[list[_Waiting[Work]], list[_Waiting[Work]]]:
        """Lose the fewest frames that let the rest be in time, with the least visible loss.

        Of those due after ``soon_s`` none is lost; one is kept if nothing else is. Returns the
        frames kept and those lost.
        """
        kept, lost = _Kept[Work](pace), list[_Waiting[Work]]()
        for waiting in drawn:
            kept.add(waiting)
            if kept.is_in_time():
                continue
            if waiting.job.due_s > soon_s:
                if len(kept.frames) > 1:
                    kept.remove(waiting)
                break
            victim = waiting
            if len(kept.frames) > 1 and kept.is_in_time(less=1):  # it can take a place
                victim = min(kept.frames, key=_Waiting.visibility)
            kept.remove(victim)
            self._lose(victim)
            lost.append(victim)
        return kept.frames, lost

    @staticmethod
    def _first(kept: Sequence[_Waiting[Work]], pace: _Pace) -> list[_Waiting[Work]]:
        """The next batch of these: without features that would make its other frames late."""
        batch = _Kept[Work](pace)
        for waiting in kept[: pace.first]:
            batch.add(waiting)
            if len(batch.frames) > 1 and not batch.is_in_time():
                batch.remove(waiting)
                break
        return batch.frames

    def _probe(
        self, lost: Sequence[_Waiting[Work]], now_s: float, size: int
    ) -> list[_Waiting[Work]]:
        """The least late of these, once in `PROBE_S`."""
        if now_s - self._probed_s < PROBE_S:
            return []
        bearable = [w for w in lost if w.job.due_s + self.lateness_s >= now_s]
        if bearable:
            self._probed_s = now_s
        return bearable[-size:]

    def _skipped_until(self, due_s: float) -> list[FrameJob[Work]]:
        """Lose the skipped frames that were due before: no later one came that would be made."""
        skipped = []
        for stream in list(self._streams.values()):
            while (first := stream.first) is not None and first is not stream.to_make():
                if first.job.due_s >= due_s:
                    break
                skipped.append(self._lose(first))
        return skipped

    def _skip_to(self, waiting: _Waiting[Work]) -> list[FrameJob[Work]]:
        """Lose the frames of its stream that still wait before it."""
        skipped, stream = list[FrameJob[Work]](), waiting.stream
        while stream.first is not None and stream.first.number < waiting.number:
            skipped.append(self._lose(stream.first))
        return skipped

    def _make(self, waiting: _Waiting[Work], step: float) -> None:
        self._turn += 1
        waiting.stream.served = self._turn
        waiting.stream.made(waiting, step)
        if waiting.chunk is not None:
            self._chunks.make(waiting.chunk)
        self._forget_one(waiting.stream)

    def _lose(self, waiting: _Waiting[Work]) -> FrameJob[Work]:
        waiting.stream.lost(waiting)
        if waiting.chunk is not None:
            self._chunks.leave(waiting.chunk)
        self._forget_one(waiting.stream)
        return waiting.job

    def _forget_one(self, stream: _Stream[Work]) -> None:
        """A frame left a stream; a stream without frames leaves no trace."""
        self._count -= 1
        if not stream.depth:
            del self._streams[stream.name]
