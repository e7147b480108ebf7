"""What tests run in devices' processes, and what they do with them."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np

from tests.fake_model import GRID, LIVE, Collector, FakeModel, chunks, make_avatar, open_stream
from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.avatars.background import ORIGINAL
from wsavatar.config import RenderSettings
from wsavatar.render.jobs import VideoFormat
from wsavatar.render.pool import FacePool
from wsavatar.render.remote.device_channel import AvatarKey
from wsavatar.render.remote.device_process import Loaded
from wsavatar.render.remote.processes import ProcessWorker
from wsavatar.render.scheduler import FrameJob, FrameScheduler
from wsavatar.render.work import ChunkWork, FrameWork, StreamSpec

spawn = multiprocessing.get_context("spawn")


class FragileModel(FakeModel):
    """Can be held by an event, and dies with its process while ``doom`` is a file."""

    def __init__(self, gate: Event | None, doom: Path | None) -> None:
        super().__init__()
        self.held_by = gate
        self.doom = doom

    def generate(self, inputs, conditions) -> np.ndarray:
        assert self.held_by is None or self.held_by.wait(60)
        if self.doom is not None and self.doom.exists():
            self.doom.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(inputs, conditions)


def avatar_named(key: AvatarKey) -> PreparedAvatar:
    if key[:2] != ("a", ORIGINAL):
        raise KeyError(key.id)
    return make_avatar()


def load(gate: Event | None = None, doom: Path | None = None) -> Loaded:
    return Loaded(FragileModel(gate, doom), avatar_named)


def load_waiting(gate: Event) -> Loaded:
    """Reads no avatar before the gate opens."""

    def get_avatar(key: AvatarKey) -> PreparedAvatar:
        assert gate.wait(60)
        return avatar_named(key)

    return Loaded(FragileModel(None, None), get_avatar)


class HangingModel(FakeModel):
    """Hangs for ever while ``hang`` is a file, as a device does."""

    def __init__(self, hang: Path) -> None:
        super().__init__()
        self.hang = hang

    def generate(self, inputs, conditions) -> np.ndarray:
        if self.hang.exists():
            threading.Event().wait()
        return super().generate(inputs, conditions)


def load_hanging(hang: Path) -> Loaded:
    return Loaded(HangingModel(hang), avatar_named)


def load_nothing() -> Loaded:
    raise FileNotFoundError("no weights here")


def load_and_die() -> Loaded:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def load_broken() -> Loaded:
    """Every frame fails, as after an error that CUDA never forgets."""
    model = FakeModel()
    model.bad_frames = set(range(1000))
    return Loaded(model, avatar_named)


def load_mistaken() -> Loaded:
    """The worker's own thread fails as soon as a frame is there."""

    def mistaken(*args: object) -> None:
        raise ArithmeticError("on purpose")

    FrameScheduler.next_batch = mistaken
    return load()


def make_pool(
    *loads: Callable[[], Loaded], restart_s: float = 0.0, hung_s: float = 60.0, **settings: int
) -> FacePool:
    chosen = RenderSettings(**settings)
    make = partial(ProcessWorker, finishers=1, restart_s=restart_s, hung_s=hung_s)
    workers = [partial(make, f"p{number}", load, chosen) for number, load in enumerate(loads)]
    return FacePool((), chosen, workers=workers, windows=GRID)


@asynccontextmanager
async def processes(*loads: Callable[[], Loaded], **options) -> AsyncIterator[FacePool]:
    """A started pool with a process for each of ``loads``; afterwards all of them have ended."""
    pool = make_pool(*loads, **options)
    async with asyncio.timeout(180):
        await pool.start()
    try:
        yield pool
    finally:
        async with asyncio.timeout(60):
            await pool.close()
    assert not any(is_there(worker.pid) for worker in pool._workers)


def is_there(pid: int) -> bool:
    """Whether the process exists, be it as a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(is_so: Callable[[], bool], timeout_s: float = 120) -> None:
    """Processes are not on this loop: what they bring about is looked for."""
    async with asyncio.timeout(timeout_s):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def is_up(pool: FacePool, name: str, starts: int = 1) -> bool:
    """Whether the device's process was started so often, and is ready."""
    device = pool.stats()["devices"][name]
    return device["is_up"] and device["process_starts"] == starts


def jobs_of(count: int, stream: int = 1) -> list[FrameJob[FrameWork]]:
    """The frames of one chunk, the first four of them openings."""
    chunk = next(c for c in chunks(2.0)[1:] if c.frame_count >= count - 1)
    chunk = replace(chunk, first_frame=0, frame_count=count)
    spec = StreamSpec(stream, make_avatar(), VideoFormat(), 7, 2)
    source = ChunkWork(chunk)
    return [
        FrameJob(stream, math.inf if row % 2 else 1e9 + row, FrameWork(spec, source, row), row < 4)
        for row in range(count)
    ]


async def started(worker: ProcessWorker) -> None:
    is_ready = threading.Event()
    errors: list[BaseException | None] = []

    def ready(error: BaseException | None) -> None:
        errors.append(error)
        is_ready.set()

    worker.start(ready)
    assert await asyncio.to_thread(is_ready.wait, 60)
    assert errors == [None]


async def two_seconds(pool: FacePool) -> Collector:
    """What becomes of fifty frames of one stream."""
    seen = Collector()
    stream = open_stream(pool, seen)
    for chunk in chunks(2.0):
        stream.submit(chunk, LIVE)
    await seen.wait_for(50)
    return seen
