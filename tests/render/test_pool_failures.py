"""What fails, comes too late or is cancelled: still one outcome a frame, and nobody else's loss."""

from __future__ import annotations

import asyncio
import math
import random
import threading
from itertools import count

import numpy as np
import pytest

from tests.fake_model import (
    LIVE,
    Collector,
    FakeModel,
    chunks,
    make_avatar,
    make_pool,
    open_stream,
    running,
)
from wsavatar.config import RenderSettings
from wsavatar.media import jpeg
from wsavatar.render import pool as pool_module
from wsavatar.render.jobs import DroppedFrame, FrameOutcome, VideoFormat
from wsavatar.render.pool import FacePool, PoolError


async def test_a_failing_batch_loses_only_its_bad_frame() -> None:
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


@pytest.mark.parametrize("stage", ["conditions", "generate"])
async def test_a_single_failure_of_the_device_loses_no_frame(stage: str) -> None:
    """Where the second try works, every frame is rendered."""
    model = FakeModel()
    async with running(model) as pool:
        model.fail_next = [stage]
        seen = Collector()
        chunk = chunks(0.5)[0]
        open_stream(pool, seen).submit(chunk, LIVE)
        await seen.wait_for(chunk.frame_count)
    assert not seen.reasons()


@pytest.mark.parametrize("failures", [1, 2])
async def test_a_frame_that_cannot_be_finished_is_made_once_more(monkeypatch, failures) -> None:
    """A failure after the model retries that frame; a second failure drops it alone."""
    real = jpeg.encode
    left = [failures]

    def fails_at_first(rgb: np.ndarray, quality: int) -> bytes:
        if left[0] and abs(int(rgb[36, 32, 1]) - 8 * 3) <= 2:  # frame 3
            left[0] -= 1
            raise ValueError("on purpose")
        return real(rgb, quality)

    monkeypatch.setattr(jpeg, "encode", fails_at_first)
    async with running(FakeModel()) as pool:
        seen = Collector()
        chunk = chunks(0.5)[0]
        open_stream(pool, seen).submit(chunk, LIVE)
        await seen.wait_for(chunk.frame_count)
    assert seen.indices == list(range(chunk.frame_count))
    failed = [o.frame_index for o in seen.outcomes if isinstance(o, DroppedFrame)]
    assert failed == [3] * (failures - 1)


async def test_a_device_that_hangs_is_found_without_being_asked(monkeypatch) -> None:
    """Its frames end as failed while it hangs, `health` says why, and the other goes on alone."""
    monkeypatch.setattr(pool_module, "WATCH_S", 0.001)
    hangs, works = FakeModel("one"), FakeModel("two")
    now_s = [0.0]
    async with running(hangs, works, clock=lambda: now_s[0]) as pool:
        hangs.gate.clear()
        seen = Collector()
        stream = open_stream(pool, seen)
        first, *later = chunks(2.0)
        stream.submit(first, LIVE)
        await asyncio.to_thread(hangs.entered.wait, 30)
        now_s[0] += 61
        await seen.wait_for(first.frame_count)
        assert seen.reasons() == {"failed": first.frame_count}
        assert "60 s" in pool.health()["one"] and pool.health()["two"] == ""
        for chunk in later:
            stream.submit(chunk, LIVE)
        await seen.wait_for(50)
        assert seen.reasons() == {"failed": first.frame_count}


# -- out of memory --------------------------------------------------------------------------------


@pytest.mark.parametrize("fits", [1, 2, 4])
async def test_a_batch_that_does_not_fit_is_made_in_halves(fits: int) -> None:
    """Out of memory loses nothing: batches are halved until they fit, and stay so for a while."""
    model = FakeModel()
    model.greatest_that_fits = fits
    async with running(model, batch_size=8, max_batch_size=8) as pool:
        seen = Collector()
        stream = open_stream(pool, seen)
        for chunk in chunks(1.0):
            stream.submit(chunk, LIVE)
        await seen.wait_for(25)
        device = pool.stats()["devices"]["fake"]
    assert not seen.reasons() and seen.indices == list(range(25))
    assert device["batch_ceiling"] == fits
    assert model.releases > 0
    too_big = [batch for batch in model.batches if len(batch) > fits]
    assert len(too_big) == 8 // fits - 1, "the ceiling did not hold for new batches"
    fitting = [batch for batch in model.batches if len(batch) <= fits]
    assert sum(fitting, []) == list(range(25)), "the most urgent did not go first"


async def test_a_frame_that_never_fits_is_dropped_as_failed() -> None:
    """Where not even one frame fits, each ends as failed, and the worker lives on."""
    model = FakeModel()
    model.greatest_that_fits = 0
    async with running(model) as pool:
        seen, after = Collector(), Collector()
        chunk = chunks(0.5)[0]
        open_stream(pool, seen).submit(chunk, LIVE)
        await seen.wait_for(chunk.frame_count)
        assert seen.reasons() == {"failed": chunk.frame_count}
        model.greatest_that_fits = 1
        open_stream(pool, after).submit(chunk, LIVE)
        await after.wait_for(chunk.frame_count)
    assert not after.reasons()


@pytest.mark.parametrize("stage", ["conditions", "generate", "compose", "encode"])
@pytest.mark.parametrize("kind", ["fail_next", "out_of_memory_next"])
async def test_a_single_failure_in_any_stage_loses_no_frame(stage: str, kind: str) -> None:
    """Whichever stage fails, on whichever thread: the batch is made again, and no frame is lost."""
    model = FakeModel()
    getattr(model, kind).append(stage)
    async with running(model, on_device=True, max_batch_size=8) as pool:
        seen = Collector()
        stream = open_stream(pool, seen)
        for chunk in chunks(2.0):
            stream.submit(chunk, LIVE)
        await seen.wait_for(50)
        ceiling = pool.stats()["devices"]["fake"]["batch_ceiling"]
    assert not seen.reasons() and seen.indices == list(range(50))
    short = kind == "out_of_memory_next"
    assert ceiling == (8 if not short else 2)
    assert (model.releases, model.finisher.evictions) == ((1, 1) if short else (0, 0))


async def test_what_ran_out_of_memory_is_made_again_alone_on_the_device() -> None:
    """The halves wait until no other batch uses memory of the device."""
    model = FakeModel()
    async with running(model, on_device=True) as pool:
        model.finisher.gate.clear()
        seen = Collector()
        stream = open_stream(pool, seen)
        model.out_of_memory_next = ["encode"]
        for chunk in chunks(1.0):
            stream.submit(chunk, LIVE)
        await asyncio.to_thread(model.finisher.wait_until_held, 2)
        model.finisher.gate.set()  # the first batch fails while the second is on the device
        await seen.wait_for(25)
    assert model.batches[:4] == [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1], [2, 3]]
    assert model.finisher.held_before[:4] == [0, 1, 0, 0]
    assert not seen.reasons()


async def test_full_memory_reduces_batches_and_free_memory_enlarges_them() -> None:
    """Above 90 % the ceiling falls to four frames, caches are given back; below 70 % it rises."""

    class Filled(FakeModel):
        used = 0.95

        def memory_used(self) -> float:
            return self.used

    model = Filled()
    ticks = count()  # seconds: each look at the clock takes one
    async with running(model, clock=lambda: next(ticks), max_batch_size=16) as pool:
        for used, ceiling in ((0.95, 4), (0.5, 16)):
            model.used = used
            for _ in range(100):
                seen = Collector()
                open_stream(pool, seen).submit(chunks(0.5)[0], LIVE)
                await seen.wait_for(chunks(0.5)[0].frame_count)
                assert not seen.reasons()
                device = pool.stats()["devices"]["fake"]
                if device["batch_ceiling"] == ceiling and device["memory_share"] == used:
                    break
            assert device["batch_ceiling"] == ceiling and device["memory_share"] == used
    assert model.releases >= 2


# -- the rest -------------------------------------------------------------------------------------


async def test_a_model_that_cannot_run_is_an_error_at_the_start() -> None:
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
    """A chunk that is submitted too late loses the frames that are past."""
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


async def test_closing_a_busy_device_waits_for_it_and_ends_every_thread() -> None:
    """What is on the device when it is closed ends, even if it fails; nothing is left behind."""
    model = FakeModel("busy")
    pool = make_pool(model, on_device=True)
    await pool.start()
    model.finisher.gate.clear()
    model.fail_next = ["encode"]
    seen = Collector()
    stream = open_stream(pool, seen)
    for chunk in chunks(2.0):
        stream.submit(chunk, LIVE)
    await asyncio.to_thread(model.finisher.wait_until_held, 2)
    closing = asyncio.create_task(pool.close(), name="close")
    await asyncio.sleep(0)
    model.finisher.gate.set()
    async with asyncio.timeout(30):
        await closing
    assert seen.indices == list(range(50)) and seen.reasons() == {"cancelled": 50}
    assert not [t for t in threading.enumerate() if "busy" in t.name]


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
    await asyncio.to_thread(model.entered.wait, 30)
    closing = asyncio.create_task(pool.close(), name="close")
    await asyncio.sleep(0)
    assert len(seen.outcomes) == 50
    model.gate.set()
    async with asyncio.timeout(30):
        await closing
    assert not [t for t in threading.enumerate() if "busy" in t.name]
    late = Collector()
    open_stream(pool, late).submit(chunks(0.5)[0], LIVE)
    await late.wait_for(chunks(0.5)[0].frame_count)
    assert set(late.reasons()) == {"cancelled"}


async def test_a_callback_that_fails_does_not_affect_other_streams(caplog) -> None:
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
    """Submitting a frame twice is an error at once."""
    async with running(FakeModel()) as pool:
        stream = open_stream(pool, Collector())
        first = chunks(0.5)[0]
        stream.submit(first, LIVE)
        with pytest.raises(ValueError, match="frame 0 came after"):
            stream.submit(first, LIVE)


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("seed", range(8))
async def test_one_outcome_a_frame_whatever_happens(seed: int, on_device: bool) -> None:
    """Faults, cancels, closes and overload at random points: nothing lost, doubled, reordered."""
    chance = random.Random(seed)
    stages = ["generate", "conditions"]
    if on_device:
        stages += ["compose", "encode"]
    models = [FakeModel(f"d{n}") for n in range(chance.randint(1, 3))]
    for model in models:
        model.bad_frames = set(chance.sample(range(25), 3))
    submitted: list[tuple[Collector, int]] = []
    sizes = {"max_queued_frames": 64, "batch_size": 3, "max_batch_size": 6}
    async with running(*models, on_device=on_device, **sizes) as pool:
        for _ in range(30):
            seen, count = Collector(), 0
            stream = open_stream(pool, seen)
            for chunk in chunks(chance.choice([0.3, 1.0]), chunk_s=chance.choice([0.1, 0.5])):
                stream.submit(chunk, chance.choice([0.0, LIVE, -0.5, math.inf]))
                count += chunk.frame_count
                if chance.random() < 0.3:
                    model = chance.choice(models)
                    kind = chance.choice([model.fail_next, model.out_of_memory_next])
                    kind.append(chance.choice(stages))
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
