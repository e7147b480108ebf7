"""The ``bench`` command: what each stage takes here, frames per second, and first-frame latency.

Stages are timed one after another on one thread; throughput and latency are those of the renderer
itself, `FacePool`, with its worker, queue and finishers, exactly as the server runs it. Figures are
medians over repetitions. It knows how to measure, not what is fast.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from wsavatar import machine
from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.chunker import Chunk, Chunker, FeatureGrid
from wsavatar.config import RenderSettings, Settings
from wsavatar.musetalk.configured import model_directory
from wsavatar.render.finish import make_finisher, to_numpy
from wsavatar.render.jobs import DroppedFrame, FrameOutcome, VideoFormat
from wsavatar.render.pool import FacePool
from wsavatar.render.work import ChunkWork, FaceModel, FrameWork, StreamSpec

__all__ = ["BenchError", "Report", "Throughput", "add_arguments", "measure", "run"]

REPETITIONS = 3
LATENCY_CHUNKS = 20
LATENCY_CHUNK_S = 0.5


class BenchError(RuntimeError):
    """The figures would mean nothing; the message says why."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """Frames per second end to end, at one batch size."""

    batch_size: int
    frames_per_s: float


@dataclass(frozen=True, slots=True)
class Latency:
    """From a complete chunk to its first JPEG on the event loop, in milliseconds."""

    chunk_s: float
    chunks: int
    median_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of one run. ``stages_ms`` are a frame's, at the greatest batch size."""

    machine: dict[str, Any]
    model: dict[str, Any]
    avatar: dict[str, Any]
    batch_size: int
    frames: int
    repetitions: int
    stages_ms: dict[str, float]
    throughput: tuple[Throughput, ...]
    first_frame: Latency


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``bench``."""
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="greatest batch, 1 to 64; measured at 1, 2, 4, … N (default: render.batch_size)",
    )
    parser.add_argument("--avatar", metavar="ID", help="whose face (default: avatars.default)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=6.0,
        metavar="S",
        help="seconds of audio a repetition renders, 1 to 600 (default: 6)",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads (default: model.cpu_threads)"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Measure and print. Raises BenchError for arguments out of range or frames that failed."""
    from wsavatar.assembly import load_models
    from wsavatar.avatars.store import AvatarStore

    batch_size = settings.render.batch_size if args.batch_size is None else args.batch_size
    if not 1 <= batch_size <= 64:
        raise BenchError(f"--batch-size {batch_size}: from 1 to 64")
    if not 1 <= args.seconds <= 600:
        raise BenchError(f"--seconds {args.seconds:g}: from 1 to 600")
    if args.threads is not None:
        chosen = settings.model.model_copy(update={"cpu_threads": max(0, args.threads)})
        settings = settings.model_copy(update={"model": chosen})
    models = load_models(settings, _say)
    store = AvatarStore(settings.avatars, models[0])
    avatar_id = args.avatar or store.default_id
    _say(f"preparing avatar {avatar_id}")
    report = measure(
        models,
        store.get(avatar_id),
        settings.render,
        batch_size,
        args.seconds,
        directory=model_directory(settings),
        say=_say,
    )
    print(json.dumps(asdict(report), indent=2) if args.json else _table(report))
    return 0


def measure(
    models: Sequence[FaceModel],
    avatar: PreparedAvatar,
    settings: RenderSettings,
    batch_size: int,
    seconds: float,
    *,
    directory: Path,
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Measure everything. Blocks, for about ten times ``seconds`` on a machine that keeps up."""
    video = VideoFormat(fps=Fraction(settings.fps), quality=settings.jpeg_quality)
    chunks = _speech(models[0].spec.grid, video.fps, seconds)
    frames = sum(chunk.frame_count for chunk in chunks)
    models[0].warm_up([batch_size])
    say("measuring the stages")
    stages = _medians(_stages(models[0], avatar, video, chunks, batch_size, settings))
    throughput = []
    for size in _batch_sizes(batch_size):
        say(f"measuring frames per second at batch {size}")
        speed = asyncio.run(_throughput(models, avatar, video, chunks, _at_batch(settings, size)))
        throughput.append(Throughput(size, round(speed, 1)))
    say("measuring the first frame")
    latency = asyncio.run(_latency(models, avatar, video, _at_batch(settings, batch_size)))
    return Report(
        machine=asdict(machine.describe()) | {"cuda": _cuda(models)},
        model=_model(models, directory),
        avatar={"id": avatar.id, "width": avatar.width, "height": avatar.height},
        batch_size=batch_size,
        frames=frames,
        repetitions=REPETITIONS,
        stages_ms=stages,
        throughput=tuple(throughput),
        first_frame=latency,
    )


# -- the measurements -----------------------------------------------------------------------------


def _stages(
    model: FaceModel,
    avatar: PreparedAvatar,
    video: VideoFormat,
    chunks: Sequence[Chunk],
    batch_size: int,
    settings: RenderSettings,
) -> Iterator[dict[str, float]]:
    """Milliseconds a frame of each stage, once a repetition."""
    spec = StreamSpec(0, avatar, video, 0, 0)
    elapsed_ms = _stopwatch(model)
    finisher = make_finisher(model, settings)
    for _ in range(REPETITIONS):
        total = {"features": 0.0, "generate": 0.0, "paste": 0.0, "jpeg": 0.0}

        works: list[FrameWork] = []
        for chunk in chunks:
            source = ChunkWork(chunk, video.fps)

            def features(source: ChunkWork = source) -> None:
                encoded = model.encode_audio(source.chunk.windows)
                source.condition = model.condition(encoded, source.chunk, source.fps)

            total["features"] += elapsed_ms(features)
            works += [FrameWork(spec, source, row) for row in range(chunk.frame_count)]
        for start in range(0, len(works), batch_size):
            batch = works[start : start + batch_size]
            latents = finisher.latents(batch)
            conditions = [w.source.condition[w.row] for w in batch]
            made: list[Any] = []

            def generate(
                latents: Any = latents,
                conditions: list[Any] = conditions,
                made: list[Any] = made,
            ) -> None:
                made.append(model.generate(latents, conditions))

            total["generate"] += elapsed_ms(generate)
            patches = to_numpy(made[0])
            started = time.perf_counter()
            pictures = finisher.compose(batch, patches)
            composed = time.perf_counter()
            finisher.encode(batch, pictures)
            total["paste"] += 1000 * (composed - started)
            total["jpeg"] += 1000 * (time.perf_counter() - composed)
        yield {stage: ms / len(works) for stage, ms in total.items()}


def _stopwatch(model: FaceModel) -> Callable[[Callable[[], None]], float]:
    """Times a call in milliseconds: by CUDA events on a CUDA device, else by the wall clock."""
    device = getattr(model, "device", None)
    if getattr(device, "type", "cpu") != "cuda":

        def by_clock(call: Callable[[], None]) -> float:
            started = time.perf_counter()
            call()
            return 1000 * (time.perf_counter() - started)

        return by_clock

    import torch

    new_event: Callable[..., Any] = torch.cuda.Event

    def by_events(call: Callable[[], None]) -> float:
        with torch.cuda.device(device):
            start, end = (new_event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end))

    return by_events


async def _throughput(
    models: Sequence[FaceModel],
    avatar: PreparedAvatar,
    video: VideoFormat,
    chunks: Sequence[Chunk],
    settings: RenderSettings,
) -> float:
    """Frames per second through the pool, the median of repetitions."""
    async with _Pool(models, settings) as pool:
        speeds = []
        for _ in range(REPETITIONS):
            arrivals = _Arrivals(sum(chunk.frame_count for chunk in chunks))
            stream = pool.open_stream(avatar, video, 0, 0, arrivals)
            started = time.perf_counter()
            for chunk in chunks:
                stream.submit(chunk, math.inf)
            await arrivals.all()
            speeds.append(arrivals.expected / (time.perf_counter() - started))
            stream.close()
        return statistics.median(speeds)


async def _latency(
    models: Sequence[FaceModel],
    avatar: PreparedAvatar,
    video: VideoFormat,
    settings: RenderSettings,
) -> Latency:
    """From the last sample of a chunk to its first frame, one chunk at a time, on an idle pool."""
    grid = models[0].spec.grid
    step = round(LATENCY_CHUNK_S * grid.sample_rate)
    chunker = Chunker(grid, video.fps, step)
    samples = _noise(step * (LATENCY_CHUNKS + 2))
    latencies = []
    async with _Pool(models, settings) as pool:
        arrivals = _Arrivals(0)
        stream = pool.open_stream(avatar, video, 0, 0, lambda outcome: arrivals(outcome))
        for start in range(0, len(samples), step):
            started = time.perf_counter()
            chunks = chunker.push(samples[start : start + step])
            arrivals = _Arrivals(sum(chunk.frame_count for chunk in chunks))
            for chunk in chunks:
                stream.submit(chunk, math.inf)
            if arrivals.expected:
                await arrivals.all()
                latencies.append(1000 * (arrivals.first_s - started))
        stream.close()
    cuts = statistics.quantiles(latencies, n=20, method="inclusive")
    return Latency(
        LATENCY_CHUNK_S,
        len(latencies),
        round(statistics.median(latencies), 1),
        round(cuts[18], 1),
    )


class _Pool:
    """A pool for the time of a measurement."""

    def __init__(self, models: Sequence[FaceModel], settings: RenderSettings) -> None:
        self._pool = FacePool(models, settings)

    async def __aenter__(self) -> FacePool:
        await self._pool.start()
        return self._pool

    async def __aexit__(self, *exc_info: object) -> None:
        await self._pool.close()


class _Arrivals:
    """An ``on_frame`` that knows when the first and the last came."""

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


# -- what is measured, and on what ----------------------------------------------------------------


def _speech(grid: FeatureGrid, fps: Fraction, seconds: float) -> list[Chunk]:
    chunker = Chunker(grid, fps, round(LATENCY_CHUNK_S * grid.sample_rate))
    return chunker.push(_noise(round(seconds * grid.sample_rate))) + chunker.flush()


def _noise(count: int) -> np.ndarray:
    """Audio, float32 mono. Every sound costs the same, so noise will do."""
    return np.random.default_rng(0).normal(0, 0.1, count).astype(np.float32)


def _batch_sizes(greatest: int) -> list[int]:
    """1, 2, 4, … and the greatest."""
    return sorted({*(2**n for n in range(greatest.bit_length())), greatest})


def _at_batch(settings: RenderSettings, size: int) -> RenderSettings:
    """The server's settings at exactly this batch, with room for all frames at once."""
    return settings.model_copy(
        update={"batch_size": size, "max_batch_size": size, "max_queued_frames": 1_000_000}
    )


def _medians(repetitions: Iterator[dict[str, float]]) -> dict[str, float]:
    rows = list(repetitions)
    return {stage: round(statistics.median(row[stage] for row in rows), 3) for stage in rows[0]}


def _cuda(models: Sequence[FaceModel]) -> list[str]:
    if not any(str(getattr(model, "device", "")).startswith("cuda") for model in models):
        return []
    return [device.title for device in machine.cuda_devices()]


def _model(models: Sequence[FaceModel], directory: Path) -> dict[str, Any]:
    return {
        "directory": str(directory),
        "version": str(getattr(models[0].spec, "version", "")),
        "devices": [str(getattr(model, "device", "")) for model in models],
        "dtype": str(getattr(models[0], "dtype", "")).removeprefix("torch."),
    }


def _say(text: str) -> None:
    print(f"{text} …", file=sys.stderr)


def _table(report: Report) -> str:
    this, model, avatar = report.machine, report.model, report.avatar
    cuda = f"; {', '.join(this['cuda'])}" if this["cuda"] else ""
    lines = [
        f"machine  {this['cpu']}, {this['cores']} cores{cuda}",
        f"model    {model['directory']}, {model['dtype']} on {', '.join(model['devices'])}",
        f"avatar   {avatar['id']}, {avatar['width']}x{avatar['height']}",
        f"audio    {report.frames} frames a repetition, medians of {report.repetitions}",
        "",
        f"stage, at batch {report.batch_size}     ms a frame",
    ]
    names = {"generate": "UNet and VAE", "jpeg": "JPEG"}
    lines += [f"  {names.get(k, k):<20}{ms:>10.2f}" for k, ms in report.stages_ms.items()]
    lines += [f"  {'one after another':<20}{sum(report.stages_ms.values()):>10.2f}", ""]
    lines += ["end to end            frames/s"]
    lines += [f"  batch {t.batch_size:<14}{t.frames_per_s:>10.1f}" for t in report.throughput]
    first = report.first_frame
    lines += [
        "",
        f"first frame after a complete {first.chunk_s:g} s chunk ({first.chunks} chunks)",
        f"  median{first.median_ms:>22.1f} ms",
        f"  p95{first.p95_ms:>25.1f} ms",
    ]
    return "\n".join(lines)
