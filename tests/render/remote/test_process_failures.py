"""What happens to frames, and to the others, when a device's process dies, hangs or errs."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from tests.device_processes import (
    avatar_named,
    is_up,
    jobs_of,
    load,
    load_broken,
    load_hanging,
    load_mistaken,
    processes,
    spawn,
    two_seconds,
    until,
)
from tests.fake_model import (
    LIVE,
    Collector,
    chunks,
    open_stream,
)
from wsavatar.config import RenderSettings
from wsavatar.render.jobs import DroppedFrame
from wsavatar.render.pool import FacePool
from wsavatar.render.remote.device_channel import Channel, Done, Work
from wsavatar.render.remote.device_process import (
    BROKEN_AFTER,
    BROKEN_EXIT_CODE,
    DevicePlan,
    _DeviceProcess,
)


async def test_a_process_that_dies_loses_its_own_frames_only(tmp_path: Path, caplog) -> None:
    """Its frames fail, once each; the other device serves on; it is started again and serves."""
    gate, doom = spawn.Event(), tmp_path / "doom"
    doom.touch()
    async with processes(partial(load, gate, doom), load, batch_size=4) as pool:
        seen = Collector()
        stream = open_stream(pool, seen)
        first, second = chunks(1.0)[:2]
        stream.submit(first, LIVE)  # goes to p0
        stream.submit(second, LIVE)
        gate.set()
        await seen.wait_for(first.frame_count + second.frame_count)
        failed = [o.frame_index for o in seen.outcomes if isinstance(o, DroppedFrame)]
        assert failed == list(range(first.frame_count))
        assert seen.reasons() == {"failed": first.frame_count}

        await until(lambda: is_up(pool, "p0", starts=2))
        again = await two_seconds(pool)
        assert not again.reasons()
    deaths = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(deaths) == 1 and "exit code -9" in deaths[0].getMessage()


async def test_chunks_pass_over_a_process_that_is_down() -> None:
    """While a device waits to be started again, every chunk goes to the others."""
    async with processes(load, load, restart_s=3600) as pool:
        os.kill(pool._workers[1].pid, signal.SIGKILL)
        await until(lambda: not is_up(pool, "p1"))
        seen = await two_seconds(pool)
        assert not seen.reasons()
        assert pool.stats()["devices"]["p1"]["process_starts"] == 1


async def test_a_device_that_only_fails_is_started_anew() -> None:
    """After so many failures in a row a process gives up: some CUDA errors end only with it."""
    async with processes(load_broken, batch_size=4) as pool:
        seen = Collector()
        stream = open_stream(pool, seen)
        count = 0
        for chunk in chunks(4.0):
            stream.submit(chunk, LIVE)
            count += chunk.frame_count
        assert count > BROKEN_AFTER
        await seen.wait_for(count)
        assert seen.reasons() == {"failed": count}
        await until(lambda: is_up(pool, "p0", starts=2))


async def test_a_device_that_hangs_is_given_up(tmp_path: Path, caplog) -> None:
    """A process whose device ends no batch ends itself: its frames fail, and another serves."""
    hang = tmp_path / "hang"
    hang.touch()
    async with processes(partial(load_hanging, hang), hung_s=5.0) as pool:
        await fails_and_serves_again(pool, mended=hang.unlink)
    assert f"exit code {BROKEN_EXIT_CODE}" in caplog.text


async def test_a_silent_process_is_killed(caplog) -> None:
    """One that was stopped, or can run no thread of its own, is as good as dead."""
    async with processes(load, hung_s=5.0) as pool:
        os.kill(pool._workers[0].pid, signal.SIGSTOP)
        await fails_and_serves_again(pool)
    assert "silent for 5 s" in caplog.text


async def test_a_process_that_was_sent_nonsense_is_replaced(tmp_path: Path, caplog) -> None:
    """An invalid message ends the process, and its frames are settled."""
    hang = tmp_path / "hang"
    hang.touch()
    async with processes(partial(load_hanging, hang)) as pool:
        message, _ = Work.of(jobs_of(13))

        def nonsense() -> None:
            pool._workers[0]._channel.post(message)  # without its windows

        await fails_and_serves_again(pool, hang.unlink, nonsense)
    assert f"exit code {BROKEN_EXIT_CODE}" in caplog.text


async def test_a_worker_that_breaks_ends_its_process() -> None:
    """An error of the worker's own fails its frames and has the process started anew."""
    async with processes(load_mistaken) as pool:
        seen = Collector()
        first = chunks(0.5)[0]
        open_stream(pool, seen).submit(first, LIVE)
        await seen.wait_for(first.frame_count)
        assert seen.reasons() == {"failed": first.frame_count}
        await until(lambda: is_up(pool, "p0", starts=2))


async def fails_and_serves_again(
    pool: FacePool,
    mended: Callable[[], None] = lambda: None,
    broken: Callable[[], None] = lambda: None,
) -> None:
    """The only process owes frames: they fail with it. The next makes what it is asked for."""
    lost, seen = Collector(), Collector()
    first = chunks(0.5)[0]
    open_stream(pool, lost).submit(first, LIVE)
    broken()
    await lost.wait_for(first.frame_count)
    assert lost.reasons() == {"failed": first.frame_count}
    mended()
    await until(lambda: is_up(pool, "p0", starts=2))
    open_stream(pool, seen).submit(first, LIVE)
    await seen.wait_for(first.frame_count)
    assert not seen.reasons()


def test_an_avatar_that_cannot_be_prepared_there_fails_its_frames() -> None:
    """Whatever goes wrong once it was read: each frame that waited for it has its outcome."""
    ours, theirs = spawn.Pipe()
    plan = DevicePlan("p", load, RenderSettings(), finishers=1)
    process = _DeviceProcess(theirs, plan)
    process._get_avatar = avatar_named
    process._worker = SimpleNamespace()  # prepares nothing
    message, blobs = Work.of(jobs_of(13))
    process._take(message, [bytes(blob) for blob in blobs])
    answers = Channel(ours, "test")
    outcomes: list[Done] = []
    while len(outcomes) < 13:
        assert answers.wait(30)
        outcomes += [one for one, _ in answers.receive() if isinstance(one, Done)]
    assert {outcome.reason for outcome in outcomes} == {"failed"}
    process._channel.finish()
    answers.finish()
