"""Measures the renderer: single stages, and the whole as the server runs it.

Stages are timed one after another on one thread, with the model and the finisher of the worker.
Throughput, first frame and scaling are those of `FacePool`, with its workers, queues and threads.
Figures are medians over repetitions.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.bench.report import BenchError, FirstFrame, Scaling, StageTimes, Throughput
from wsavatar.bench.timing import is_cuda, stopwatch
from wsavatar.config import RenderSettings
from wsavatar.faces.base import Chunk, FaceModel, SpeechWindows
from wsavatar.render.finish.finisher import Finisher, make_finisher
from wsavatar.render.jobs import DroppedFrame, FrameOutcome, VideoFormat
from wsavatar.render.pool import FacePool
from wsavatar.render.work import ChunkWork, FrameWork, StreamSpec

__all__ = [
    "REPETITIONS",
    "BenchInput",
    "batch_sizes",
    "frames_per_s",
    "make_conditions",
    "measure_first_frame",
    "measure_scaling",
    "measure_stages",
    "measure_throughput",
    "started_pool",
]

REPETITIONS = 3
BATCHES = 50
"""Batches of a repetition, if the audio is long enough."""
CHUNK_MS = 500
LATENCY_CHUNKS = 40
_LATENCY_DUE_S = 5.0
"""A finite due time, so that batches form as in a conversation; large, so that nothing is late."""


@dataclass(frozen=True, slots=True)
class BenchInput:
    """What is measured: an avatar, render settings and the chunks of its speech."""

    avatar: PreparedAvatar
    settings: RenderSettings
    windows: SpeechWindows
    chunks: tuple[Chunk, ...]

    @classmethod
    def of(
        cls,
        avatar: PreparedAvatar,
        settings: RenderSettings,
        windows: SpeechWindows,
        seconds: float,
    ) -> BenchInput:
        """With ``seconds`` of noise; all audio costs the same."""
        chunker = windows.open_chunker(Fraction(settings.fps), CHUNK_MS)
        chunks = [*chunker.push(_noise(round(seconds * chunker.sample_rate))), *chunker.flush()]
        return cls(avatar, settings, windows, tuple(chunks))

    @property
    def video(self) -> VideoFormat:
        """Full pictures at the configured rate and quality."""
        return VideoFormat(fps=Fraction(self.settings.fps), quality=self.settings.jpeg_quality)

    @property
    def frames(self) -> int:
        return sum(chunk.frame_count for chunk in self.chunks)

    def at_batch(self, size: int) -> RenderSettings:
        """The settings with exactly this batch size and a queue for all frames."""
        return self.settings.model_copy(
            update={"batch_size": size, "max_batch_size": size, "max_queued_frames": 1_000_000}
        )

    def chunks_for(self, frames: int) -> list[Chunk]:
        """The first chunks that have ``frames`` frames together, or all chunks."""
        taken: list[Chunk] = []
        for chunk in self.chunks:
            if sum(one.frame_count for one in taken) >= frames:
                break
            taken.append(chunk)
        return taken


def batch_sizes(greatest: int) -> list[int]:
    """1, 2, 4, … and ``greatest``."""
    return sorted({*(2**n for n in range(greatest.bit_length())), greatest})


def make_conditions(model: FaceModel, inputs: BenchInput, frames: int) -> list[FrameWork]:
    """At least ``frames`` frames with their audio conditions, or all frames."""
    spec = StreamSpec(0, inputs.avatar, inputs.video, 0, 0)
    works: list[FrameWork] = []
    for chunk in inputs.chunks_for(frames):
        source = ChunkWork(chunk)
        _make_condition(model, source)
        works += [FrameWork(spec, source, row) for row in range(chunk.frame_count)]
    return works


# -- stages ---------------------------------------------------------------------------------------


def measure_stages(model: FaceModel, inputs: BenchInput, size: int) -> StageTimes:
    """Time each stage: on a CUDA device by events, JPEG and everything on a CPU by the wall clock.

    Only full batches run, if the audio is long enough for one.
    """
    finisher = make_finisher(model, inputs.settings)
    rows = list(_stage_passes(model, finisher, inputs, size))
    return StageTimes(
        size,
        **{stage: round(statistics.median(row[stage] for row in rows), 3) for stage in rows[0]},
    )


def _stage_passes(
    model: FaceModel, finisher: Finisher, inputs: BenchInput, size: int
) -> Iterator[dict[str, float]]:
    """Milliseconds a frame of each stage for each repetition, after a warm-up."""
    elapsed_ms = stopwatch(model.device)
    chunks = inputs.chunks_for(BATCHES * size)
    spec = StreamSpec(0, inputs.avatar, inputs.video, 0, 0)
    for repetition in range(-1, REPETITIONS):
        total = {"features": 0.0, "generate": 0.0, "paste": 0.0, "jpeg": 0.0}
        works: list[FrameWork] = []
        with finisher.scope():
            for chunk in chunks:
                source = ChunkWork(chunk)
                total["features"] += elapsed_ms(partial(_make_condition, model, source))
                works += [FrameWork(spec, source, row) for row in range(chunk.frame_count)]
        total["features"] /= len(works)
        batches = _full_batches(works, size)[: 2 if repetition < 0 else None]
        for batch in batches:
            for stage, ms in _time_batch(model, finisher, batch, elapsed_ms).items():
                total[stage] += ms / sum(map(len, batches))
        if repetition >= 0:
            yield total


def _time_batch(
    model: FaceModel,
    finisher: Finisher,
    batch: Sequence[FrameWork],
    elapsed_ms: Callable[[Callable[[], Any]], float],
) -> dict[str, float]:
    conditions = [work.source.condition[work.row] for work in batch]
    made: dict[str, Any] = {}

    def generate() -> None:
        made["patches"] = model.generate(finisher.inputs(batch), conditions)

    def paste() -> None:
        made["pictures"] = finisher.compose(batch, made["patches"])

    with finisher.scope():
        times = {"generate": elapsed_ms(generate), "paste": elapsed_ms(paste)}
    started = time.perf_counter()  # the device is idle: encoder and copy only
    finisher.encode(batch, made["pictures"])
    return times | {"jpeg": 1000 * (time.perf_counter() - started)}


def _make_condition(model: FaceModel, source: ChunkWork) -> None:
    (source.condition,), _ = model.conditions().make([(0, source.chunk)])


def _full_batches(works: Sequence[FrameWork], size: int) -> list[Sequence[FrameWork]]:
    batches = [works[start : start + size] for start in range(0, len(works), size)]
    return [batch for batch in batches if len(batch) == size] or batches


# -- the whole renderer ---------------------------------------------------------------------------


def measure_throughput(models: Sequence[FaceModel], inputs: BenchInput, size: int) -> Throughput:
    """Frames per second through the pool with all chunks queued at once.

    Raises BenchError where a frame failed, since it would count as a fast one.
    """
    device = models[0].device
    _reset_memory_peak(device)
    pool = FacePool(models, inputs.at_batch(size))
    speed = asyncio.run(_throughput(pool, inputs, BATCHES * size * len(models)))
    return Throughput(size, round(speed, 1), *_memory_peak_mib(device))


def measure_scaling(
    pool: FacePool,
    devices: int,
    inputs: BenchInput,
    size: int,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Scaling, ...]:
    """Throughput of the first 1, 2, 4, … and all devices of ``pool``, chunks going to them in turn.

    The pool has settings of `BenchInput.at_batch`; it is started and closed here. ``say`` gets each
    figure at once, so that an aborted run keeps what it has measured.
    """
    return tuple(asyncio.run(_scaled_throughputs(pool, devices, inputs, size, say)))


async def _scaled_throughputs(
    pool: FacePool, devices: int, inputs: BenchInput, size: int, say: Callable[[str], None]
) -> list[Scaling]:
    rows: list[Scaling] = []
    async with started_pool(pool):
        for count in batch_sizes(devices):
            pool.use_devices(count)
            speed = round(await frames_per_s(pool, inputs, BATCHES * size * count), 1)
            alone = rows[0].frames_per_s if rows else speed
            rows.append(Scaling(count, speed, round(speed / alone, 2)))
            named = "1 device" if count == 1 else f"{count} devices"
            say(f"{named}: {speed:.1f} frames/s, {rows[-1].ratio:.2f} times one")
    return rows


async def _throughput(pool: FacePool, inputs: BenchInput, frames: int) -> float:
    async with started_pool(pool):
        return await frames_per_s(pool, inputs, frames)


async def frames_per_s(pool: FacePool, inputs: BenchInput, frames: int) -> float:
    """Frames per second on a running pool, the median of repetitions."""
    chunks = inputs.chunks_for(frames)
    speeds = []
    for _ in range(REPETITIONS):
        arrivals = _Arrivals(sum(chunk.frame_count for chunk in chunks))
        stream = pool.open_stream(inputs.avatar, inputs.video, 0, 0, arrivals)
        started = time.perf_counter()
        for chunk in chunks:
            stream.submit(chunk, math.inf)
        await arrivals.all()
        speeds.append(arrivals.expected / (time.perf_counter() - started))
        stream.close()
    return statistics.median(speeds)


def measure_first_frame(model: FaceModel, inputs: BenchInput) -> FirstFrame:
    """Time from the last sample of a chunk to its first JPEG, one chunk at a time on an idle pool.

    Uses the configured batch size.
    """
    latencies = asyncio.run(_latencies(model, inputs))
    cuts = statistics.quantiles(latencies, n=20, method="inclusive")
    median = statistics.median(latencies)
    return FirstFrame(CHUNK_MS / 1000, len(latencies), round(median, 1), round(cuts[18], 1))


async def _latencies(model: FaceModel, inputs: BenchInput) -> list[float]:
    chunker = inputs.windows.open_chunker(inputs.video.fps, CHUNK_MS)
    step = CHUNK_MS * chunker.sample_rate // 1000
    samples = _noise(step * (LATENCY_CHUNKS + 2))
    latencies = []
    # However slow the machine, no frame is too late to be measured.
    settings = inputs.settings.model_copy(update={"max_lateness_ms": 3_600_000})
    async with started_pool(FacePool([model], settings)) as pool:
        arrivals = _Arrivals(0)
        stream = pool.open_stream(
            inputs.avatar, inputs.video, 0, 0, lambda outcome: arrivals(outcome)
        )
        for start in range(0, len(samples), step):
            started = time.perf_counter()
            chunks = chunker.push(samples[start : start + step])
            arrivals = _Arrivals(sum(chunk.frame_count for chunk in chunks))
            for chunk in chunks:
                stream.submit(chunk, time.monotonic() + _LATENCY_DUE_S)
            if arrivals.expected:
                await arrivals.all()
                latencies.append(1000 * (arrivals.first_s - started))
        stream.close()
    return latencies


@contextlib.asynccontextmanager
async def started_pool(pool: FacePool) -> AsyncIterator[FacePool]:
    """Start a pool, and close it after the measurement."""
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


class _Arrivals:
    """An ``on_frame`` that records the first frame and waits for the last one."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.first_s = 0.0
        self._count = 0
        self._dropped = 0
        self._done = asyncio.Event()

    def __call__(self, outcome: FrameOutcome) -> None:
        self._count += 1
        self._dropped += isinstance(outcome, DroppedFrame)
        if self._count == 1:
            self.first_s = time.perf_counter()
        if self._count >= self.expected:
            self._done.set()

    async def all(self) -> None:
        await self._done.wait()
        if self._dropped:
            raise BenchError(f"{self._dropped} of {self.expected} frames could not be rendered")


def _reset_memory_peak(device: Any) -> None:
    if is_cuda(device):
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def _memory_peak_mib(device: Any) -> tuple[int, int] | tuple[None, None]:
    if not is_cuda(device):
        return None, None
    import torch

    allocated = torch.cuda.max_memory_allocated(device)
    return allocated >> 20, torch.cuda.max_memory_reserved(device) >> 20


def _noise(count: int) -> np.ndarray:
    """Audio, float32 mono."""
    return np.random.default_rng(0).normal(0, 0.1, count).astype(np.float32)
