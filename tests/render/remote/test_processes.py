"""A process for each device: the pool's promises hold across the pipe."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

from tests.device_processes import (
    is_there,
    jobs_of,
    load,
    load_and_die,
    load_nothing,
    make_pool,
    processes,
    spawn,
    started,
    until,
)
from tests.fake_model import (
    LIVE,
    Collector,
    FakeModel,
    chunks,
    make_avatar,
    open_stream,
    picture,
    running,
)
from wsavatar.config import RenderSettings, Settings, load_settings
from wsavatar.render.jobs import DroppedFrame, FrameOutcome, VideoFormat
from wsavatar.render.pool import PoolError
from wsavatar.render.remote.device_channel import Work
from wsavatar.render.remote.processes import ProcessWorker
from wsavatar.resources import embedded_weights, resource_dir
from wsavatar.serve.assembly import load_engine, works_in_processes


async def test_processes_make_the_frames_that_threads_make() -> None:
    """Two processes give what one thread gives: the same bytes, numbers and order."""
    video = VideoFormat(region="mouth", quality=70)
    shown: list[list[FrameOutcome]] = []
    async with processes(load, load) as pool, running(FakeModel()) as reference:
        for one in (pool, reference):
            seen = Collector()
            stream = open_stream(one, seen, video, first=3)
            for chunk in chunks(2.0):
                stream.submit(chunk, math.inf)
            shown.append(list(await seen.wait_for(50)))
            stream.close()
        devices = pool.stats()["devices"]
    assert shown[0] == shown[1]
    assert [frame.frame_index for frame in shown[0]] == list(range(50))
    assert set(devices) == {"p0", "p1"}


async def test_due_times_mean_the_same_in_every_process() -> None:
    """What is long past due here is dropped as late there; what is due soon is made."""
    async with processes(load) as pool:
        late, fine = Collector(), Collector()
        first = chunks(0.5)[0]
        open_stream(pool, fine).submit(first, time.monotonic() + 60)
        await fine.wait_for(first.frame_count)
        open_stream(pool, late).submit(first, time.monotonic() - 60)
        await late.wait_for(first.frame_count)
    assert not fine.reasons()
    assert late.reasons()["late"] >= first.frame_count - 4  # but for a probe


async def test_cancelling_reaches_the_process() -> None:
    """Cancelled frames are not made there, and the next stream is served."""
    gate = spawn.Event()
    async with processes(partial(load, gate), batch_size=4, max_batch_size=4) as pool:
        gone, seen = Collector(), Collector()
        stream = open_stream(pool, gone)
        for chunk in chunks(2.0):
            stream.submit(chunk, LIVE)
        stream.cancel()
        assert gone.reasons() == {"cancelled": 50}
        first = chunks(0.5)[0]
        open_stream(pool, seen).submit(first, LIVE)
        gate.set()
        await seen.wait_for(first.frame_count)
        await until(lambda: not len(pool._workers[0]))  # the cancelled ones have come back, too
    assert len(gone.outcomes) == 50
    assert not seen.reasons()


async def test_an_unreadable_avatar_affects_its_own_streams_only() -> None:
    """Its frames are dropped as failed; who speaks through another avatar is served."""
    async with processes(load) as pool:
        bad, good = Collector(), Collector()
        first = chunks(0.5)[0]
        unknown = replace(make_avatar(), id="unknown")
        pool.open_stream(unknown, VideoFormat(), 7, 0, bad).submit(first, LIVE)
        open_stream(pool, good).submit(first, LIVE)
        await good.wait_for(first.frame_count)
        await bad.wait_for(first.frame_count)
    assert bad.reasons() == {"failed": first.frame_count}
    assert not good.reasons()


@pytest.mark.parametrize(
    ("loading", "told"), [(load_nothing, "no weights here"), (load_and_die, "exit code -9")]
)
async def test_a_process_that_cannot_start_reports_the_reason(loading, told: str) -> None:
    """`start` raises PoolError with the process's own words, or how it ended; all others end."""
    pool = make_pool(load, loading)
    async with asyncio.timeout(180):
        with pytest.raises(PoolError, match=f"p1.*{told}"):
            await pool.start()
    assert not any(is_there(worker.pid) for worker in pool._workers)


async def test_closing_ends_a_process_that_does_not_listen() -> None:
    """A process stuck in its device is killed after the grace; its frames are cancelled."""
    posted: list[FrameOutcome] = []
    gate = spawn.Event()  # never set
    worker = ProcessWorker(
        "stuck",
        partial(load, gate),
        RenderSettings(),
        lambda number, outcome: posted.append(outcome),
        finishers=1,
        grace_s=0.1,
    )
    await started(worker)
    jobs = jobs_of(13)
    worker.submit(jobs)
    worker.close()
    async with asyncio.timeout(60):
        await asyncio.to_thread(worker.join)
    assert not is_there(worker.pid)
    assert [o.frame_index for o in posted] == list(range(len(jobs)))
    assert {o.reason for o in posted if isinstance(o, DroppedFrame)} == {"cancelled"}
    worker.submit(jobs[:1])  # nothing is lost afterwards either
    assert isinstance(posted[-1], DroppedFrame) and posted[-1].reason == "cancelled"


async def test_frames_over_the_limit_of_a_process_are_overload() -> None:
    """What is on its way is bounded: twice the queue's bound, then the newest frames drop."""
    posted: list[FrameOutcome] = []
    gate = spawn.Event()
    settings = RenderSettings(max_queued_frames=16)
    worker = ProcessWorker(
        "full",
        partial(load, gate),
        settings,
        lambda number, outcome: posted.append(outcome),
        finishers=1,
        grace_s=0.1,
    )
    await started(worker)
    os.kill(worker.pid, signal.SIGSTOP)  # it answers nothing, so that nothing is settled
    worker.submit(jobs_of(13))
    worker.submit(jobs_of(13, stream=2))
    assert posted == [] and len(worker) == 26
    worker.submit(jobs_of(13, stream=3))
    assert len(worker) == 32
    assert [o.reason for o in posted if isinstance(o, DroppedFrame)] == ["overload"] * 7
    assert [o.frame_index for o in posted] == list(range(6, 13)), "not the newest"
    worker.close()
    async with asyncio.timeout(60):
        await asyncio.to_thread(worker.join)
    assert len(posted) == 39


async def test_ctrl_c_does_not_reach_the_processes(capfd) -> None:
    """Ctrl-C reaches every process; they go on, silently, until the server ends them."""
    async with processes(load) as pool:
        os.kill(pool._workers[0].pid, signal.SIGINT)
        seen = Collector()
        first = chunks(0.5)[0]
        open_stream(pool, seen).submit(first, LIVE)
        await seen.wait_for(first.frame_count)
        assert not seen.reasons()
        assert pool.stats()["devices"]["p0"]["process_starts"] == 1
    assert "Traceback" not in capfd.readouterr().err


async def test_ctrl_c_while_a_process_imports_is_no_traceback(capfd) -> None:
    """Interrupts are held back from a process until it ignores them."""
    pool = make_pool(load)
    starting = asyncio.create_task(pool.start())
    async with asyncio.timeout(180):
        await until(lambda: pool._workers[0].pid is not None)
        os.kill(pool._workers[0].pid, signal.SIGINT)
        await starting
        await pool.close()
    assert "Traceback" not in capfd.readouterr().err


async def test_a_cancelled_start_leaves_no_process() -> None:
    """Where the server stops while models load, their processes end too."""
    pool = make_pool(load, load)
    starting = asyncio.create_task(pool.start())
    async with asyncio.timeout(180):
        await until(lambda: all(worker.pid is not None for worker in pool._workers))
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await asyncio.gather(*(asyncio.to_thread(worker.join) for worker in pool._workers))
    assert starting.cancelled()
    assert not any(is_there(worker.pid) for worker in pool._workers)


def test_a_chunk_is_the_same_on_the_other_side() -> None:
    """Windows, frames, due times and openings survive; a chunk's frames still share it."""
    jobs = jobs_of(13)
    message, blobs = Work.of(jobs)
    made = message.jobs(make_avatar(), message.source([bytes(blob) for blob in blobs]))
    assert [(j.stream, j.due_s, j.opens, j.work.row) for j in made] == [
        (j.stream, j.due_s, j.opens, j.work.row) for j in jobs
    ]
    assert len({id(job.work.source) for job in made}) == 1
    before, after = jobs[0].work.source.chunk, made[0].work.source.chunk
    assert np.array_equal(before.windows, after.windows) and after.windows.dtype == np.float32
    assert replace(after, windows=before.windows) == before
    assert len(message.chunk) < 1000, "the windows do not go through the pickle"
    assert [job.work.frame_index for job in made] == [job.work.frame_index for job in jobs]


@pytest.mark.parametrize(
    ("devices", "processes", "expected"),
    [
        (("cuda:0", "cuda:1"), "auto", True),
        (("cuda:0",), "auto", False),
        (("cpu", "cpu"), "auto", False),
        (("cuda:0", "cuda:1"), "one", False),
        (("cpu", "cpu"), "per_device", True),
    ],
)
def test_several_gpus_get_a_process_each(devices, processes: str, expected: bool) -> None:
    """By default processes stand where one process would hold several GPUs up."""
    model = Settings().model.model_copy(update={"devices": devices, "processes": processes})
    settings = Settings().model_copy(update={"model": model})
    assert works_in_processes(settings) is expected


@pytest.mark.slow
@pytest.mark.skipif(
    not embedded_weights().is_dir() or not any(resource_dir("avatars").glob("*/avatar.json")),
    reason="the embedded model or its avatars are not in this source tree",
)
async def test_the_embedded_model_speaks_in_two_processes() -> None:
    """Nothing faked: settings to engine to JPEGs, with avatars that the processes read."""
    settings = load_settings(
        "embedded",
        {
            "model.devices": ("cpu", "cpu"),
            "model.processes": "per_device",
            "model.cpu_threads": 1,
        },
    )
    engine = await asyncio.to_thread(load_engine, settings)
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * 16_000).astype(np.float32)
    chunker = engine.renderer.open_chunker(Fraction(25), 500)
    seen = Collector()
    await engine.renderer.start()
    try:
        # A device's process prepares the avatar, so they come first.
        avatar = await asyncio.to_thread(engine.avatars.get, engine.avatars.default_id)
        stream = engine.renderer.open_stream(avatar, VideoFormat(), 7, 0, seen)
        for chunk in chunker.push(noise) + chunker.flush():
            stream.submit(chunk, math.inf)
        await until(lambda: len(seen.outcomes) == 50)
    finally:
        await engine.renderer.close()
    assert seen.indices == list(range(50)) and not seen.reasons()
    assert picture(seen.outcomes[0]).shape == (avatar.height, avatar.width, 3)
    devices = engine.renderer.stats()["devices"].values()
    assert all(device["process_starts"] == 1 for device in devices)
