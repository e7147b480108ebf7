"""The thread of one device: takes the most urgent frames, renders them and posts the outcomes.

It owns the device's queue, its model and its threads. It knows neither asyncio nor sessions: an
outcome is posted by the function that the worker was given, from the thread that finished it.

A frame has four stages. *Features* (of its whole chunk, once, together with other chunks of the
batch) and *generate* (the networks) run on the worker's thread, batch by batch. *Paste* and
*encode* run on other threads while the worker renders the next batch:

* On a CPU frame by frame, on a few threads. At most two batches wait for them; then the worker
  waits too.
* On a device that pastes and encodes by itself, the worker queues the work up to the paste and does
  not wait; one thread waits for the bytes. At most two batches are on the device, one running and
  one queued. A batch is chosen as late as that allows, so that it has the most urgent frames.

A failed batch is rendered again. Out of memory: in halves, down to one frame, after caches were
released. Any other error: each frame of the batch once more, alone. Only a frame that fails alone
is dropped as failed.

A device that hangs is given up: the worker's owner calls `FaceWorker.watch` regularly, which fails
a device that has ended no batch for `HUNG_S`; `FaceWorker.join` waits no longer than that. Every
frame has exactly one outcome even then, and after an error of the worker itself.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wsavatar.avatars.avatar import AvatarInfo, PreparedAvatar
from wsavatar.config import RenderSettings
from wsavatar.faces.base import FaceModel
from wsavatar.machine import yield_to_others
from wsavatar.render.chunks import ChunkCost
from wsavatar.render.costs import BatchCosts, doublings
from wsavatar.render.finish.finisher import make_finisher
from wsavatar.render.finish.host import to_numpy
from wsavatar.render.jobs import DropReason, FrameOutcome
from wsavatar.render.memory import MemoryGuard, is_out_of_memory
from wsavatar.render.scheduler import FrameJob, FrameScheduler
from wsavatar.render.stages import StageTimes
from wsavatar.render.threads import Threads
from wsavatar.render.work import FrameWork

__all__ = ["HUNG_S", "FaceWorker", "Post"]

_log = logging.getLogger(__name__)

MEMORY_READ_S = 0.25
"""Minimum time between two readings of the device's memory, because a reading takes time."""

HUNG_S = 60.0
"""A device that ends no batch for this time hangs. Long, because a CPU is slow."""

Post = Callable[[int, FrameOutcome], None]


@dataclass(slots=True, eq=False)
class _Pass:
    """A batch in progress on the device, or waiting for another try."""

    works: Sequence[FrameWork]
    is_retry: bool = False
    """It has one frame, which has failed before and is dropped if it fails again."""
    begun_s: float = 0.0
    unfinished: int = 0
    has_failed: bool = False
    features_s: float = 0.0
    """How much of its time went into audio features."""


class FaceWorker:
    """One model on one device. ``post(stream, outcome)`` is called once for every frame.

    Its queue has at most ``max_queued_frames``; `FrameScheduler` decides what is dropped when full.
    """

    def __init__(
        self,
        name: str,
        model: FaceModel,
        settings: RenderSettings,
        post: Post,
        *,
        finishers: int,
        clock: Callable[[], float] = time.monotonic,
        hung_s: float = HUNG_S,
    ) -> None:
        self.name = name
        self._hung_s = hung_s
        self._stages = StageTimes()
        self._batches: Counter[int] = Counter()  # by size
        self._memory_share: float | None = None  # when last read
        self._model = model
        self._finisher = make_finisher(model, settings)
        self._post = post
        self._clock = clock
        self._guard = MemoryGuard(max(settings.batch_size, settings.max_batch_size))
        self._read_s = -math.inf
        self._sizes = self._choose_sizes(settings.batch_size)
        self._costs = BatchCosts(self._sizes)
        self._conditions = model.conditions()
        # Held for a fraction of a millisecond at a time, so the event loop may take it.
        self._wake = threading.Condition()
        self._queue: FrameScheduler[FrameWork] = FrameScheduler(
            batch_size=settings.batch_size,
            max_batch_size=settings.max_batch_size,
            max_queued_frames=settings.max_queued_frames,
            lateness_s=settings.max_lateness_ms / 1000,
        )
        self._unsettled: dict[int, FrameWork] = {}  # by id: no outcome was posted yet
        self._closing = False
        self._problem = ""  # why it renders no more frames
        self._preparing: set[int] = set()  # ids of avatars that wait for it
        self._passes: deque[_Pass] = deque()  # in progress, the oldest first
        self._again: deque[_Pass] = deque()  # failed, to be made before anything else
        self._freed_s = -math.inf  # when the last pass ended
        self._is_short = False  # of memory: a pass has just failed for it
        on_device = self._finisher.on_device
        self._most_passes = 2 if on_device else 3  # on a CPU: one made, two waiting for paste
        self._finishers = Threads(1 if on_device else finishers, f"finish-{name}")
        self._preparers = Threads(1, f"prepare-{name}")
        self._thread = threading.Thread(target=self._run, name=f"face-{name}", daemon=True)
        self._started: Callable[[BaseException | None], None] = lambda error: None

    def __len__(self) -> int:
        """Frames waiting; `sys.maxsize` once the worker has failed."""
        return sys.maxsize if self._problem else len(self._queue)

    @property
    def problem(self) -> str:
        """Why the worker has failed and drops every frame; empty while it works."""
        return self._problem

    def busy_s(self) -> float:
        """How long the device has worked without ending a batch; 0.0 without one."""
        with self._wake:
            if not self._passes:
                return 0.0
            return self._clock() - self._taken_up_s(self._passes[0])

    def watch(self) -> None:
        """Give up a device that hangs: its frames are posted as failed, and it gets no more."""
        if not self._problem and self.busy_s() > self._hung_s:
            problem = f"the device has ended no batch for {self._hung_s:g} s"
            _log.critical("%s: %s: it renders no more frames", self.name, problem)
            self._break(problem)

    def stats(self) -> dict[str, Any]:
        """Counters since the start and current gauges. Thread-safe.

        ``stage_ms`` are moving averages of what each stage takes a frame, in milliseconds, and
        ``stage_s`` what it has taken in all, in seconds (`wsavatar.render.stages`). On a
        device that pastes by itself, "features" and "generate" are the time to queue the work,
        "generate" with the paste, and "encode" is the wait for its end.
        ``batch_ceiling`` is less than the setting while memory is short; ``memory_share`` is 0
        where the device does not say. ``batch_ms`` is what a batch of each size is taken to
        need, ``window_ms`` what the features of a window of audio are.
        """
        by_size = dict(self._batches)
        return {
            "queued_frames": len(self._queue),
            "batches": sum(by_size.values()),
            "batches_by_size": {str(size): by_size[size] for size in sorted(by_size)},
            "batch_ms": {
                str(size): round(1000 * self._costs.estimate(size), 3) for size in self._sizes
            },
            "window_ms": round(1000 * self._costs.window_s, 3),
            "batch_ceiling": self._guard.ceiling,
            "memory_share": self._memory_share,
            "stage_ms": self._stages.ms_a_frame(),
            "stage_s": self._stages.seconds(),
        }

    def start(self, started: Callable[[BaseException | None], None]) -> None:
        """Start the thread; it calls ``started`` once the model is warm, or with the error."""
        self._started = started
        self._finishers.start()
        self._preparers.start()
        self._thread.start()

    def submit(self, jobs: Sequence[FrameJob[FrameWork]]) -> None:
        """Queue frames; those that do not fit, or come after `close`, are posted as dropped."""
        reason: DropReason = "overload"
        jobs = _with_costs(jobs)
        with self._wake:
            self._unsettled.update((id(job.work), job.work) for job in jobs)
            dropped: Sequence[FrameJob[FrameWork]] = jobs
            if self._closing:
                reason = self._reason
            else:
                dropped = self._queue.push(jobs)
                self._wake.notify()
        self._drop(dropped, reason)

    def prepare(self, avatar: AvatarInfo) -> None:
        """Copy the avatar of a new stream to the device before its frames are due.

        An avatar is queued for this once at most.
        """
        if not self._finisher.on_device:
            return
        assert isinstance(avatar, PreparedAvatar)  # as the store gives them
        with self._wake:
            if self._closing or id(avatar) in self._preparing:
                return
            self._preparing.add(id(avatar))
        self._preparers.submit(self._prepare, avatar)

    def cancel(self, stream: int) -> None:
        """Remove a stream's waiting frames; they are posted as cancelled."""
        with self._wake:
            removed = self._queue.cancel(stream)
        self._drop(removed, "cancelled")

    def close(self) -> None:
        """Stop after the batches in progress; waiting frames are posted as cancelled."""
        with self._wake:
            self._closing = True
            self._wake.notify()

    def join(self) -> None:
        """Wait until the thread has ended and its last frames are posted. Blocks.

        A device that hangs is abandoned after `HUNG_S`, which is logged: its threads end with the
        process, and its frames are posted as cancelled.
        """
        if self._thread.ident is not None:
            self._thread.join(self._hung_s)
        has_ended = not self._thread.is_alive()
        for threads in (self._preparers, self._finishers):
            has_ended = threads.join(self._hung_s if has_ended else 0.0) and has_ended
        if not has_ended:
            _log.error("%s: did not end in %g s: abandoned", self.name, self._hung_s)
        self._drop_works(list(self._unsettled.values()), "cancelled")

    # The worker's thread.

    def _run(self) -> None:
        yield_to_others()
        with self._finisher.scope():
            try:
                # The first user does not wait for a cold device.
                self._model.warm_up(self._sizes)
            except Exception as error:
                self._started(error)
                return
            self._started(None)
            try:
                self._work()
            except Exception:  # the thread's boundary
                _log.critical("%s: it renders no more frames", self.name, exc_info=True)
                self._break("its worker ended with an error; see the log")
                return
        self._end()

    def _work(self) -> None:
        while batch := self._next_pass():
            self._make(batch)
            try:
                self._watch_memory()
            except Exception:  # of a device in trouble; frames may still be made
                _log.exception("%s: its memory could not be read or given back", self.name)

    def _choose_sizes(self, batch_size: int) -> list[int]:
        """Batch sizes that will be run: by the scheduler's growth, and those the model has."""
        greatest = self._guard.max_batch_size
        native = self._model.batch_sizes
        sizes = {1, *doublings(batch_size, greatest), *(n for n in native if n <= greatest)}
        return sorted(sizes)

    def _next_pass(self) -> _Pass | None:
        """Wait for a free place and for frames, and take the most urgent. None: stop."""
        while True:
            with self._wake:
                while not (self._closing or self._has_room() and (self._again or self._queue)):
                    self._wake.wait()
                if self._closing:
                    return None
                if self._again:
                    return self._begin(self._again.popleft())
                batch = self._queue.next_batch(
                    self._device_free_s(), self._costs, self._guard.ceiling
                )
                if batch.jobs:
                    taken = self._begin(_Pass([job.work for job in batch.jobs]))
            self._drop(batch.late, "late")
            if batch.jobs:
                return taken

    def _has_room(self) -> bool:
        """A retry runs alone: other batches may have used up the memory."""
        return len(self._passes) < (1 if self._again else self._most_passes)

    def _begin(self, batch: _Pass) -> _Pass:
        batch.begun_s, batch.unfinished = self._clock(), len(batch.works)
        self._passes.append(batch)
        return batch

    def _device_free_s(self) -> float:
        """When the device can start another batch."""
        now_s = self._clock()
        if not self._passes or not self._finisher.on_device:
            return now_s
        busy_since_s = self._taken_up_s(self._passes[0])
        return max(
            now_s, busy_since_s + sum(self._costs.estimate(len(p.works)) for p in self._passes)
        )

    def _make(self, batch: _Pass) -> None:
        """Generate, and pass the result to the finishers."""
        works = batch.works
        try:
            if self._is_short:
                self._is_short = False
                self._give_back_memory()
            images = self._generate(batch)
        except Exception as error:
            self._fail(batch, works, error)
            self._finished(batch, len(works))
            return
        self._batches[len(works)] += 1
        if self._finisher.on_device:
            self._finishers.submit(self._finish, batch, works, images)
            return
        for row, work in enumerate(works):
            self._finishers.submit(self._finish, batch, [work], images[row : row + 1])

    def _generate(self, batch: _Pass) -> Any:
        """Patches for the finishers, or composed pictures on a device."""
        works = batch.works
        started = time.perf_counter()
        blocks = self._condition(works)
        encoded = time.perf_counter()
        if blocks and not self._finisher.on_device:  # there this is only the time to queue them
            batch.features_s = encoded - started
            self._costs.observe_windows(blocks, batch.features_s)
        images = self._model.generate(
            self._finisher.inputs(works), [w.source.condition[w.row] for w in works]
        )
        if len(images) != len(works):
            raise RuntimeError(f"the model made {len(images)} frames of {len(works)}")
        on_device = self._finisher.on_device
        images = self._finisher.compose(works, images) if on_device else to_numpy(images)
        self._stages.measure("features", encoded - started, len(works))
        self._stages.measure("generate", time.perf_counter() - encoded, len(works))
        return images

    def _condition(self, works: Sequence[FrameWork]) -> int:
        """Make the conditions of the chunks that this batch is the first to touch, in one call.

        Returns how many blocks of features that took.
        """
        new = list({id(w.source): w for w in works if w.source.condition is None}.values())
        if not new:
            return 0
        made, blocks = self._conditions.make([(w.spec.number, w.source.chunk) for w in new])
        for work, condition in zip(new, made, strict=True):
            work.source.condition = condition
        return blocks

    def _watch_memory(self) -> None:
        """Read the device's memory; release caches while it is short."""
        now_s = self._clock()
        if now_s - self._read_s < MEMORY_READ_S:
            return
        self._read_s = now_s
        self._memory_share = self._model.memory_used()
        if self._guard.update(now_s, self._memory_share):
            _log.warning(
                "%s: %.0f %% of its memory is in use: batches of at most %d",
                self.name,
                100 * self._memory_share,
                self._guard.ceiling,
            )
            self._give_back_memory()

    def _give_back_memory(self) -> None:
        self._finisher.evict()
        self._model.release()

    def _end(self) -> None:
        """Post waiting frames and retries: as cancelled, or as failed where it was given up."""
        with self._wake:
            self._drop(self._queue.clear(), self._reason)
            while self._passes:
                self._wake.wait()
            for batch in self._again:
                self._drop_works(batch.works, self._reason)

    @property
    def _reason(self) -> DropReason:
        """Why frames are dropped once it is closing."""
        return "failed" if self._problem else "cancelled"

    def _break(self, problem: str) -> None:
        """Stop for good, and post all frames without an outcome as failed."""
        with self._wake:
            self._closing, self._problem = True, problem
            self._wake.notify()
        self._drop_works(list(self._unsettled.values()), "failed")

    def _prepare(self, avatar: PreparedAvatar) -> None:
        try:
            self._finisher.prepare(avatar)
        except Exception as error:  # its first frame tries again
            _log.warning("%s: avatar %s was not copied yet: %s", self.name, avatar.id, error)
        finally:
            self._preparing.discard(id(avatar))

    # The finishers' threads.

    def _finish(self, batch: _Pass, works: Sequence[FrameWork], images: Any) -> None:
        try:
            started = time.perf_counter()
            on_device = self._finisher.on_device
            pictures = images if on_device else self._finisher.compose(works, images)
            composed = time.perf_counter()
            encoded = self._finisher.encode(works, pictures)
            if len(encoded) != len(works):
                raise RuntimeError(f"{len(encoded)} pictures were encoded of {len(works)}")
        except Exception as error:
            self._fail(batch, works, error)
        else:
            self._stages.measure("paste", composed - started, len(works))
            self._stages.measure("encode", time.perf_counter() - composed, len(works))
            for work, data in zip(works, encoded, strict=True):
                self._settle(work, work.rendered(data))
        finally:
            self._finished(batch, len(works))

    # Any thread.

    def _finished(self, batch: _Pass, frames: int) -> None:
        """Count ended frames of a batch. After the last one the device has a free place."""
        with self._wake:
            batch.unfinished -= frames
            if batch.unfinished:
                return
            now_s = self._clock()
            if not batch.has_failed:
                taken_s = now_s - self._taken_up_s(batch) - batch.features_s
                self._costs.observe(len(batch.works), max(0.0, taken_s))
            self._freed_s = now_s
            self._passes.remove(batch)
            self._wake.notify()

    def _taken_up_s(self, batch: _Pass) -> float:
        """When the device started this batch: not before the one in front of it had ended."""
        return max(batch.begun_s, self._freed_s)

    def _fail(self, batch: _Pass, works: Sequence[FrameWork], error: Exception) -> None:
        """Retry frames in smaller batches, or drop one that has failed alone."""
        batch.has_failed = True
        if out_of_memory := is_out_of_memory(error):
            self._guard.failed(self._clock(), len(batch.works))
            self._is_short = True
        if batch.is_retry:
            index = works[0].frame_index
            _log.error("%s: frame %d could not be made", self.name, index, exc_info=error)
            self._drop_works(works, "failed")
            return
        size = (len(works) + 1) // 2 if out_of_memory else 1
        _log.warning(
            "%s: a batch of %d failed (%s): again by %d", self.name, len(works), error, size
        )
        pieces = [
            _Pass(works[start : start + size], is_retry=size == 1)
            for start in range(0, len(works), size)
        ]
        with self._wake:
            self._again.extendleft(reversed(pieces))

    def _drop(self, jobs: Sequence[FrameJob[FrameWork]], reason: DropReason) -> None:
        self._drop_works([job.work for job in jobs], reason)

    def _drop_works(self, works: Sequence[FrameWork], reason: DropReason) -> None:
        for work in works:
            self._settle(work, work.spec.dropped(work.frame_index, reason))

    def _settle(self, work: FrameWork, outcome: FrameOutcome) -> None:
        """Post a frame's outcome, unless it has one: at the end two threads may settle a frame."""
        if self._unsettled.pop(id(work), None) is not None:  # in one step, for any thread
            self._post(work.spec.number, outcome)


def _with_costs(jobs: Sequence[FrameJob[FrameWork]]) -> list[FrameJob[FrameWork]]:
    """Say of each frame what it shares with the others of its chunk: the audio features."""
    chunks = {id(job.work.source): job.work.source.chunk for job in jobs}
    costs = {id: ChunkCost(c.blocks.start, len(c.blocks)) for id, c in chunks.items()}
    return [replace(job, chunk=costs[id(job.work.source)]) for job in jobs]
