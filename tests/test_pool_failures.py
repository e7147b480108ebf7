"""What fails, comes too late or is cancelled: still one outcome a frame, and nobody else's loss."""

from __future__ import annotations

import asyncio
import math
import random
import threading

import numpy as np
import pytest

from tests.fake_model import LIVE, Collector, FakeModel, chunks, make_avatar, open_stream, running
from wsavatar.config import RenderSettings
from wsavatar.render.jobs import DroppedFrame, FrameOutcome, VideoFormat
from wsavatar.render.pool import FacePool, PoolError


async def test_a_failing_batch_costs_only_its_bad_frame() -> None:
    """A frame that fails twice is dropped as failed; its batch and the worker live on."""
    model = FakeModel()
    model.bad_frames = {2, 9}
    async with running(model, batch_size=4) as pool:
        seen = Collector()
        stream = open_stream(pool, seen)
        for chunk in chunks(1.0):
            stream.submit(chunk, LIVE)
        await seen.wait_for(25)
        assert pool.stats()["frames_dropped"]["failed"] == 2
    assert seen.indices == list(range(25))
    failed = [o.frame_index for o in seen.outcomes if isinstance(o, DroppedFrame)]
    assert failed == [2, 9]


@pytest.mark.parametrize("stage", ["encode_audio", "generate"])
async def test_a_hiccup_of_the_device_costs_nothing(stage: str) -> None:
    """Where the second try works, every frame is rendered."""
    model = FakeModel()
    async with running(model) as pool:
        model.fail_next = [stage]
        seen = Collector()
        chunk = chunks(0.5)[0]
        open_stream(pool, seen).submit(chunk, LIVE)
        await seen.wait_for(chunk.frame_count)
    assert not seen.reasons()


async def test_a_frame_that_cannot_be_pasted_is_dropped_as_failed(monkeypatch) -> None:
    """A failure after the model ends that frame alone."""
    from wsavatar.render import finish

    real = finish.jpeg.encode
    calls = iter(range(1000))

    def fails_once(rgb: np.ndarray, quality: int) -> bytes:
        if next(calls) == 1:
            raise ValueError("on purpose")
        return real(rgb, quality)

    monkeypatch.setattr(finish.jpeg, "encode", fails_once)
    async with running(FakeModel()) as pool:
        seen = Collector()
        chunk = chunks(0.5)[0]
        open_stream(pool, seen).submit(chunk, LIVE)
        await seen.wait_for(chunk.frame_count)
    assert seen.reasons() == {"failed": 1}
    assert seen.indices == list(range(chunk.frame_count))


async def test_a_model_that_cannot_run_is_told_at_the_start() -> None:
    """`start` fails with the device and the cause, and leaves no thread behind."""
    model = FakeModel("cuda:3")
    model.fail_next = ["warm_up"]
    pool = FacePool([model], RenderSettings())
    with pytest.raises(PoolError, match="cuda:3.*warm_up failed on purpose"):
        await pool.start()
    assert not [t for t in threading.enumerate() if t.name == "face-cuda:3"]


async def test_cancel_ends_every_frame_at_once() -> None:
    """When cancel returns, all outcomes have come; nothing comes after."""
    model = FakeModel()
    async with running(model) as pool:
        seen = Collector()
        stream = open_stream(pool, seen)
        model.gate.clear()
        for chunk in chunks(2.0):
            stream.submit(chunk, LIVE)
        stream.cancel()
        assert seen.indices == list(range(50)) and seen.reasons() == {"cancelled": 50}
        model.gate.set()
        other = Collector()
        open_stream(pool, other).submit(chunks(0.5)[0], LIVE)
        await other.wait_for(1)
        assert len(seen.outcomes) == 50
        assert sum(map(len, model.batches)) < 20, "a cancelled stream cost the device frames"


async def test_submitting_to_a_stream_that_is_over_drops_the_frames() -> None:
    """The caller that lost a race with an interruption still gets one outcome a frame."""
    async with running(FakeModel()) as pool:
        seen = Collector()
        stream = open_stream(pool, seen)
        stream.cancel()
        stream.submit(chunks(0.5)[0], LIVE)
        assert seen.outcomes == []  # never inside the call
        await seen.wait_for(chunks(0.5)[0].frame_count)
        assert set(seen.reasons()) == {"cancelled"}
        assert stream.frames_in_flight == 0


async def test_late_frames_are_dropped_and_the_rest_is_rendered() -> None:
    """A chunk that comes too late loses the frames nobody could see any more."""
    async with running(FakeModel(), clock=lambda: 100.0, max_lateness_ms=100) as pool:
        seen = Collector()
        chunk = chunks(1.0, chunk_s=1.0)[0]
        open_stream(pool, seen).submit(chunk, 99.69)
        await seen.wait_for(chunk.frame_count)
        assert pool.stats()["frames_dropped"]["late"] == 6
    assert seen.indices == list(range(chunk.frame_count))
    assert [isinstance(o, DroppedFrame) for o in seen.outcomes[:7]] == [True] * 6 + [False]


async def test_overload_is_counted_against_the_greedy() -> None:
    """Beyond max_queued_frames the deepest stream loses its newest."""
    model = FakeModel()
    async with running(model, max_queued_frames=20) as pool:
        greedy, modest = Collector(), Collector()
        model.gate.clear()
        small = chunks(0.5)[0]
        open_stream(pool, modest).submit(small, 10)
        stream = open_stream(pool, greedy)
        for chunk in chunks(4.0):
            stream.submit(chunk, 10)
        model.gate.set()
        await greedy.wait_for(100)
        await modest.wait_for(small.frame_count)
    assert not modest.reasons()
    assert greedy.reasons()["overload"] >= 80
    assert greedy.indices == list(range(100))


async def test_close_while_busy_ends_every_frame_and_every_thread() -> None:
    """Closing drops what is in flight as cancelled and leaves no thread behind."""
    model = FakeModel("busy")
    pool = FacePool([model], RenderSettings(), clock=lambda: 0.0)
    await pool.start()
    seen = Collector()
    stream = open_stream(pool, seen)
    model.gate.clear()
    for chunk in chunks(2.0):
        stream.submit(chunk, LIVE)
    await asyncio.to_thread(model.entered.wait, 10)
    closing = asyncio.create_task(pool.close(), name="close")
    await asyncio.sleep(0)
    assert len(seen.outcomes) == 50
    model.gate.set()
    async with asyncio.timeout(10):
        await closing
    assert not [t for t in threading.enumerate() if "busy" in t.name]
    late = Collector()
    open_stream(pool, late).submit(chunks(0.5)[0], LIVE)
    await late.wait_for(chunks(0.5)[0].frame_count)
    assert set(late.reasons()) == {"cancelled"}


async def test_a_callback_that_fails_harms_no_other_stream(caplog) -> None:
    """One session's mistake is logged, and the other session's frames come."""
    async with running(FakeModel()) as pool:

        def broken(outcome: FrameOutcome) -> None:
            raise KeyError("mine")

        chunk = chunks(0.5)[0]
        pool.open_stream(make_avatar(), VideoFormat(), 1, 0, broken).submit(chunk, 0)
        seen = Collector()
        open_stream(pool, seen).submit(chunk, 1)
        await seen.wait_for(chunk.frame_count)
    assert "on_frame failed" in caplog.text


async def test_chunks_that_go_back_in_time_are_refused() -> None:
    """Submitting a frame twice is the caller's mistake, told at once."""
    async with running(FakeModel()) as pool:
        stream = open_stream(pool, Collector())
        first = chunks(0.5)[0]
        stream.submit(first, LIVE)
        with pytest.raises(ValueError, match="frame 0 came after"):
            stream.submit(first, LIVE)


@pytest.mark.parametrize("seed", range(8))
async def test_one_outcome_a_frame_whatever_happens(seed: int) -> None:
    """Faults, cancels, closes and overload at random points: nothing lost, doubled, reordered."""
    chance = random.Random(seed)
    models = [FakeModel(f"d{n}") for n in range(chance.randint(1, 3))]
    for model in models:
        model.bad_frames = set(chance.sample(range(25), 3))
    submitted: list[tuple[Collector, int]] = []
    async with running(*models, max_queued_frames=64, batch_size=3, max_batch_size=6) as pool:
        for _ in range(30):
            seen, count = Collector(), 0
            stream = open_stream(pool, seen)
            for chunk in chunks(chance.choice([0.3, 1.0]), chunk_s=chance.choice([0.1, 0.5])):
                stream.submit(chunk, chance.choice([0.0, LIVE, -0.5, math.inf]))
                count += chunk.frame_count
                if chance.random() < 0.3:
                    chance.choice(models).fail_next.append(
                        chance.choice(["generate", "encode_audio"])
                    )
                await asyncio.sleep(0)
                if chance.random() < 0.1:
                    stream.cancel()
            stream.close()
            submitted.append((seen, count))
        if chance.random() < 0.7:
            for seen, count in submitted:
                await seen.wait_for(count)
    for seen, count in submitted:
        assert seen.indices == list(range(count))
