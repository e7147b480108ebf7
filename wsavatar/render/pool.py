"""All devices behind one interface: chunks go in and frames come out on the event loop, in order.

It owns the workers, the distribution of chunks, the return to the event loop, and the order of each
stream. It knows neither the protocol nor how a face is made.

The event loop never waits here: submitting is a few list operations, and finished frames come back
by `loop.call_soon_threadsafe`, several at a time.

Every frame submitted has exactly one outcome, and a stream's outcomes come in the order of its
frames, even with two devices: a frame that is early waits in the stream for its predecessors. That
buffer is bounded by the stream's frames in flight.

Chunks go to the devices in turn. If the next device is far behind the least busy one (a slower
device, or one with other users), the chunk goes to the latter; otherwise the slow device would drop
frames while another idles.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Protocol, get_args

from wsavatar.avatars.avatar import AvatarInfo, PreparedAvatar
from wsavatar.config import RenderSettings
from wsavatar.errors import WsavatarError
from wsavatar.faces.base import Chunk, FaceModel, SpeechChunker, SpeechWindows
from wsavatar.render.encoders import encoder_for
from wsavatar.render.jobs import DroppedFrame, DropReason, FrameOutcome, VideoFormat
from wsavatar.render.load import Capacity
from wsavatar.render.scheduler import FrameJob
from wsavatar.render.work import ChunkWork, FrameWork, StreamSpec
from wsavatar.render.worker import FaceWorker, Post

__all__ = ["FacePool", "FrameStream", "MakeWorker", "PoolError", "Worker", "finisher_threads"]

_log = logging.getLogger(__name__)

OnFrame = Callable[[FrameOutcome], None]

WATCH_S = 1.0
FAR_BEHIND_CHUNKS = 2


class PoolError(WsavatarError, RuntimeError):
    """A device could not be started; the message says which and why."""


class FrameStream:
    """One response's frames. All methods run on the event loop and return at once."""

    def __init__(self, pool: FacePool, spec: StreamSpec, on_frame: OnFrame) -> None:
        self._pool = pool
        self._spec = spec
        self._on_frame = on_frame
        self._in_flight: deque[int] = deque()  # frame indices, in order
        self._early: dict[int, FrameOutcome] = {}  # done before their predecessors
        self._next_index = 0
        self._open = True

    @property
    def frames_in_flight(self) -> int:
        """Frames submitted without an outcome yet."""
        return len(self._in_flight)

    def submit(self, chunk: Chunk, due_s: float) -> None:
        """Render a chunk whose first frame is due at ``due_s`` (`time.monotonic`; inf: never late).

        Chunks must be in order. On a closed stream their frames are dropped as cancelled, after
        this call. Raises ValueError for a chunk out of order.
        """
        if chunk.first_frame < self._next_index:
            raise ValueError(f"frame {chunk.first_frame} came after frame {self._next_index - 1}")
        indices = range(chunk.first_frame, chunk.first_frame + chunk.frame_count)
        self._next_index = indices.stop
        self._in_flight.extend(indices)
        if self._open:
            self._pool._submit(self._spec, chunk, due_s)
        else:
            outcomes = [self._spec.dropped(index, "cancelled") for index in indices]
            self._pool._call_soon(self._receive_all, outcomes)

    def cancel(self) -> None:
        """Drop every frame not yet delivered; their outcomes are delivered before this returns."""
        self._open = False
        self._pool._cancel(self._spec.number)
        self._early.clear()
        while self._in_flight:
            self._deliver(self._spec.dropped(self._in_flight.popleft(), "cancelled"))

    def close(self) -> None:
        """Nothing more will be submitted. Frames in flight are still delivered."""
        self._open = False
        self._pool._forget_if_done(self._spec.number)

    def _receive_all(self, outcomes: Sequence[FrameOutcome]) -> None:
        for outcome in outcomes:
            self._receive(outcome)

    def _receive(self, outcome: FrameOutcome) -> None:
        """Take an outcome from a worker; deliver those that are next in order."""
        self._early[outcome.frame_index] = outcome
        while self._in_flight and self._in_flight[0] in self._early:
            self._deliver(self._early.pop(self._in_flight.popleft()))
        if not self._in_flight:
            self._early.clear()  # cancelled meanwhile: these had their outcome

    def _deliver(self, outcome: FrameOutcome) -> None:
        self._pool._count(outcome)
        try:
            self._on_frame(outcome)
        except Exception:  # an error of one session must not affect others
            _log.exception("a stream's on_frame failed at frame %d", outcome.frame_index)


class Worker(Protocol):
    """One device as the pool sees it: `FaceWorker` or `ProcessWorker`."""

    name: str

    @property
    def problem(self) -> str: ...

    def __len__(self) -> int: ...

    def start(self, started: Callable[[BaseException | None], None]) -> None: ...

    def submit(self, jobs: Sequence[FrameJob[FrameWork]]) -> None: ...

    def prepare(self, avatar: AvatarInfo) -> None: ...

    def cancel(self, stream: int) -> None: ...

    def close(self) -> None: ...

    def join(self) -> None: ...

    def stats(self) -> dict[str, Any]: ...


MakeWorker = Callable[[Post], Worker]


def finisher_threads(workers: int) -> int:
    """Threads for paste and encode of each of so many workers, by this machine's cores."""
    spare = max(1, (os.cpu_count() or 1) - 1)
    return max(1, min(8, spare // workers))


class FacePool:
    """One worker for each device. Chunks go to them in turn, except to one that is far behind.

    The workers run ``models`` in this process, or are what ``workers`` make, called once each with
    where outcomes go; then ``windows`` are their model's. Avatars ``at_hand`` go to the devices at
    the start.
    """

    def __init__(
        self,
        models: Sequence[FaceModel],
        settings: RenderSettings,
        *,
        workers: Sequence[MakeWorker] = (),
        windows: SpeechWindows | None = None,
        at_hand: Sequence[PreparedAvatar] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if bool(models) == bool(workers):
            raise ValueError("a pool needs models, or workers in their place")
        self._windows = models[0].windows if models else windows
        self._at_hand = tuple(at_hand)
        self._opening_frames = settings.batch_size
        self._mailbox = _Mailbox(self._receive)
        self._here = [  # in this process; others watch over themselves
            FaceWorker(
                str(model.device),
                model,
                settings,
                self._mailbox.post,
                finishers=finisher_threads(len(models)),
                clock=clock,
            )
            for model in models
        ]
        self._workers: list[Worker] = [make(self._mailbox.post) for make in workers]
        self._workers += self._here
        self._watching: asyncio.Task[None] | None = None
        self.use_devices(len(self._workers))
        self._streams: dict[int, FrameStream] = {}
        self._numbers = itertools.count(1)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rendered = 0
        self._dropped: Counter[DropReason] = Counter()
        self.capacity = Capacity(clock)
        """Whether more frames are wanted than the devices render; also calls back on changes."""

    async def start(self) -> None:
        """Start every worker and warm up the models. Raises PoolError if a device cannot run."""
        self._loop = asyncio.get_running_loop()
        self._mailbox.open(self._loop)
        ready = [asyncio.Event() for _ in self._workers]
        failures: list[str] = []
        for worker, event in zip(self._workers, ready, strict=True):
            worker.start(self._starter(worker, event, failures))
        try:
            await asyncio.gather(*(event.wait() for event in ready))
        except asyncio.CancelledError:
            for worker in self._workers:
                worker.close()
            raise
        if failures:
            await self.close()
            raise PoolError("; ".join(failures))
        for avatar in self._at_hand:
            self._prepare(avatar)
        self._watching = asyncio.create_task(self._watch(), name="watch devices")

    async def close(self) -> None:
        """Stop. Frames in flight are dropped as cancelled; returns when every thread has ended."""
        if self._watching is not None:
            self._watching.cancel()
        for stream in list(self._streams.values()):
            stream.cancel()
        for worker in self._workers:
            worker.close()
        await asyncio.gather(*(asyncio.to_thread(worker.join) for worker in self._workers))

    def open_chunker(
        self, fps: Fraction, chunk_ms: int, first_ms: int | None = None
    ) -> SpeechChunker:
        """For one response's audio, as the model wants it. Raises ValueError for an unfit rate."""
        if self._windows is None:
            raise RuntimeError("a pool of workers needs their model's windows to cut audio")
        return self._windows.open_chunker(fps, chunk_ms, first_ms or chunk_ms)

    def open_stream(
        self,
        avatar: AvatarInfo,
        video: VideoFormat,
        generation: int,
        first_cycle_index: int,
        on_frame: OnFrame,
    ) -> FrameStream:
        """Begin a response's frames. ``on_frame`` runs on the loop, once a frame, in order.

        Raises EncoderError where the format names no encoder.
        """
        if self._loop is None:
            raise RuntimeError("the pool was not started")
        encoder_for(video.encoder)
        spec = StreamSpec(next(self._numbers), avatar, video, generation, first_cycle_index)
        stream = self._streams[spec.number] = FrameStream(self, spec, on_frame)
        self._prepare(avatar)
        return stream

    def _prepare(self, avatar: AvatarInfo) -> None:
        for worker in self._workers:
            worker.prepare(avatar)

    def use_devices(self, count: int) -> None:
        """Use only the first ``count`` devices from now on, for measurements."""
        self._used = self._workers[:count]
        self._turn = itertools.cycle(self._used)

    def health(self) -> dict[str, str]:
        """By device: why it renders no frames now; empty if it does. Thread-safe."""
        return {worker.name: worker.problem for worker in self._workers}

    def stats(self) -> dict[str, Any]:
        """Counters since the start and current gauges, as plain data. Call it on the event loop.

        By device: what `FaceWorker.stats` says, or `ProcessWorker.stats`.
        """
        load = self.capacity.load()
        return {
            "streams": len(self._streams),
            "frames_in_flight": sum(s.frames_in_flight for s in self._streams.values()),
            "frames_rendered": self._rendered,
            "frames_per_s": load.frames_per_s_made,
            "frames_per_s_wanted": load.frames_per_s_wanted,
            "over_capacity": load.over,
            "frames_dropped": {reason: self._dropped[reason] for reason in get_args(DropReason)},
            "devices": {worker.name: worker.stats() for worker in self._workers},
        }

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            for worker in self._here:
                worker.watch()
            self.capacity.check()

    # For FrameStream.

    def _submit(self, spec: StreamSpec, chunk: Chunk, due_s: float) -> None:
        source = ChunkWork(chunk)
        interval_s = float(1 / spec.video.fps)
        jobs = []
        for row in range(chunk.frame_count):
            opens = chunk.first_frame + row < self._opening_frames
            work = FrameWork(spec, source, row)
            jobs.append(FrameJob(spec.number, due_s + row * interval_s, work, opens))
        self._next_worker(chunk.frame_count).submit(jobs)

    def _next_worker(self, frames: int) -> Worker:
        worker = next(self._turn)
        least_busy = min(self._used, key=len)
        is_behind = len(worker) > len(least_busy) + FAR_BEHIND_CHUNKS * frames
        return least_busy if is_behind else worker

    def _cancel(self, number: int) -> None:
        self._streams.pop(number, None)
        for worker in self._workers:
            worker.cancel(number)

    def _forget_if_done(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is not None and not stream._open and not stream.frames_in_flight:
            del self._streams[number]

    def _call_soon(
        self, call: Callable[[Sequence[FrameOutcome]], None], outcomes: Sequence[FrameOutcome]
    ) -> None:
        assert self._loop is not None
        self._loop.call_soon(call, outcomes)

    def _count(self, outcome: FrameOutcome) -> None:
        if isinstance(outcome, DroppedFrame):
            self._dropped[outcome.reason] += 1
            if outcome.reason in ("late", "overload"):
                self.capacity.lost()
        else:
            self._rendered += 1
            self.capacity.made()

    # From the workers, by way of the mailbox.

    def _receive(self, number: int, outcome: FrameOutcome) -> None:
        stream = self._streams.get(number)
        if stream is not None:  # a cancelled stream's frames had their outcome then
            stream._receive(outcome)
            self._forget_if_done(number)

    def _starter(
        self, worker: Worker, event: asyncio.Event, failures: list[str]
    ) -> Callable[[BaseException | None], None]:
        def on_loop(error: BaseException | None) -> None:
            if error is not None:
                _log.error("device %s cannot run the model", worker.name, exc_info=error)
                failures.append(f"device {worker.name} cannot run the model: {error}")
            event.set()

        loop = asyncio.get_running_loop()

        def from_worker(error: BaseException | None) -> None:
            try:
                loop.call_soon_threadsafe(on_loop, error)
            except RuntimeError:
                _log.debug("the event loop is closed: device %s was not awaited", worker.name)

        return from_worker


class _Mailbox:
    """Passes outcomes from any thread to the event loop, with one wake-up for several.

    Bounded by the frames in flight: each is posted once.
    """

    def __init__(self, receive: Callable[[int, FrameOutcome], None]) -> None:
        self._receive = receive
        self._lock = threading.Lock()
        self._posted: list[tuple[int, FrameOutcome]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def post(self, number: int, outcome: FrameOutcome) -> None:
        with self._lock:
            self._posted.append((number, outcome))
            if len(self._posted) > 1:
                return  # a wake-up is on its way
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._empty)
        except RuntimeError:
            _log.debug("the event loop is closed: frame %d is not delivered", outcome.frame_index)

    def _empty(self) -> None:
        with self._lock:
            posted, self._posted = self._posted, []
        for number, outcome in posted:
            self._receive(number, outcome)
