"""The renderer's promises: one outcome a frame, in order, whoever else it serves."""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import threading
from fractions import Fraction
from queue import SimpleQueue
from typing import Any
from unittest.mock import patch

import pytest

from tests.fake_model import (
    LIVE,
    SIZE,
    Collector,
    FakeDeviceFinisher,
    FakeModel,
    chunks,
    make_avatar,
    open_stream,
    picture,
    running,
)
from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.config import RenderSettings
from wsavatar.render.encoders import EncoderError
from wsavatar.render.jobs import RenderedFrame, VideoFormat
from wsavatar.render.pool import FacePool


async def test_every_frame_of_a_chunk_comes_back_pasted_and_in_order() -> None:
    """A frame shows its own mouth on its own source picture, with its own pts."""
    async with running(FakeModel()) as pool:
        seen = Collector()
        stream = open_stream(pool, seen, first=2)
        for chunk in chunks(1.0):
            stream.submit(chunk, LIVE)
        frames = await seen.wait_for(25)
    assert seen.indices == list(range(25))
    assert [frame.pts_us for frame in frames] == [40_000 * i for i in range(25)]
    assert {frame.generation for frame in frames} == {7}
    for i in (0, 1, 7, 24):
        shown = picture(frames[i]).astype(int)
        assert shown.shape == (SIZE, SIZE, 3)
        assert abs(shown[36, 32] - 8 * i).max() <= 4
        assert abs(shown[4, 4, 0] - 40 * [0, 1, 2, 3, 4, 3, 2, 1][(2 + i) % 8]) <= 4
    assert frames[0].region == (0, 0, SIZE, SIZE)


async def test_the_cycle_runs_at_the_avatars_own_rate() -> None:
    """At 50 fps each of a 25 fps avatar's pictures is shown twice."""
    async with running(FakeModel()) as pool:
        seen = Collector()
        stream = open_stream(pool, seen, VideoFormat(fps=Fraction(50)))
        stream.submit(chunks(0.5, fps=Fraction(50))[0], LIVE)
        frames = await seen.wait_for(6)
    reds = [round(picture(frame)[4, 4, 0] / 40) for frame in frames[:6]]
    assert reds == [0, 0, 1, 1, 2, 2]
    assert [frame.pts_us for frame in frames[:3]] == [0, 20_000, 40_000]


async def test_mouth_region_sends_only_the_mouth() -> None:
    """In mouth mode the JPEG is the avatar's region, and says where it goes."""
    async with running(FakeModel()) as pool:
        seen = Collector()
        open_stream(pool, seen, VideoFormat(region="mouth")).submit(chunks(0.5)[0], LIVE)
        frames = await seen.wait_for(3)
    assert frames[2].region == (16, 20, 32, 32)
    shown = picture(frames[2]).astype(int)
    assert shown.shape == (32, 32, 3) and abs(shown - 16).max() <= 4


@pytest.mark.parametrize(("region", "side"), [("full", 32), ("mouth", 16)])
async def test_max_width_scales_the_picture_but_not_the_region(region: str, side: int) -> None:
    """Whole pictures and mouths shrink by one scale; the region stays in avatar pixels."""
    async with running(FakeModel()) as pool:
        seen = Collector()
        video = VideoFormat(region=region, max_width=32)
        open_stream(pool, seen, video).submit(chunks(0.5)[0], LIVE)
        frame = (await seen.wait_for(1))[0]
    assert picture(frame).shape == (side, side, 3)
    assert frame.region[2] == 2 * side


@pytest.mark.parametrize("region", ["full", "mouth"])
async def test_raw_frames_are_the_finished_pictures(region: Any) -> None:
    """The encoder is the stream's choice: "raw" gives the pixels, in the size asked for."""
    async with running(FakeModel()) as pool:
        seen = Collector()
        video = VideoFormat(region=region, max_width=32, encoder="raw")
        open_stream(pool, seen, video).submit(chunks(0.5)[0], LIVE)
        for number, frame in enumerate((await seen.wait_for(4))[:4]):
            assert isinstance(frame, RenderedFrame) and frame.codec == "raw"
            assert picture(frame).shape == (*reversed(frame.size), 3)
            assert (picture(frame)[frame.size[1] // 2, frame.size[0] // 2] == 8 * number).all()


async def test_a_format_that_does_not_exist_is_refused_in_words() -> None:
    """Before any frame is made of it."""
    async with running(FakeModel()) as pool:
        with pytest.raises(
            EncoderError, match="unknown encoder 'tiff'; known are jpeg, webp, png, raw"
        ):
            open_stream(pool, Collector(), VideoFormat(encoder="tiff"))


async def test_quality_is_the_clients() -> None:
    """A lower quality gives a smaller JPEG."""
    sizes = []
    async with running(FakeModel()) as pool:
        for quality in (20, 95):
            seen = Collector()
            open_stream(pool, seen, VideoFormat(quality=quality)).submit(chunks(0.5)[0], LIVE)
            sizes.append(len((await seen.wait_for(2))[1].data))
    assert sizes[0] < sizes[1]


async def test_frames_come_as_each_batch_is_done() -> None:
    """The first batch is delivered while the rest of the chunk still waits."""
    model = FakeModel()
    async with running(model, batch_size=4) as pool:
        seen = Collector()
        model.gate.clear()
        open_stream(pool, seen).submit(chunks(1.0, chunk_s=1.0)[0], LIVE)
        model.gate.set()
        await seen.wait_for(4)
        assert seen.indices[:4] == [0, 1, 2, 3]
    assert model.batches[0] == [0, 1, 2, 3]


async def test_features_of_a_chunk_are_made_once() -> None:
    """However many batches a chunk takes, its audio is encoded once."""
    model = FakeModel()
    async with running(model, batch_size=2) as pool:
        seen = Collector()
        chunk = chunks(0.5)[0]
        open_stream(pool, seen).submit(chunk, LIVE)
        await seen.wait_for(chunk.frame_count)
    assert [first for _, first in model.heard] == [chunk.first_frame]


async def test_a_batch_mixes_sessions_and_gives_each_its_own_frames() -> None:
    """Two sessions' frames made in one batch never cross."""
    model = FakeModel()
    async with running(model, batch_size=8, max_batch_size=8) as pool:
        one, two = Collector(), Collector()
        first = chunks(0.5)[0]
        model.gate.clear()
        open_stream(pool, Collector()).submit(first, LIVE)
        await asyncio.to_thread(model.entered.wait, 30)  # the worker is busy: the rest queues up
        open_stream(pool, one).submit(first, 0)
        pool.open_stream(make_avatar(), VideoFormat(), 9, 0, two).submit(first, 0)
        model.gate.set()
        await one.wait_for(first.frame_count)
        await two.wait_for(first.frame_count)
    assert model.batches[1] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert {frame.generation for frame in one.outcomes} == {7}
    assert {frame.generation for frame in two.outcomes} == {9}
    assert one.indices == two.indices == list(range(first.frame_count))


async def test_two_devices_take_turns_and_the_order_holds() -> None:
    """Chunks alternate over the devices; what the faster one makes waits for the slower."""
    slow, fast = FakeModel("slow"), FakeModel("fast")
    async with running(slow, fast) as pool:
        seen = Collector()
        stream = open_stream(pool, seen)
        slow.gate.clear()
        for chunk in chunks(2.0):
            stream.submit(chunk, LIVE)
        await asyncio.to_thread(fast.wait_until_made, 20)
        assert seen.outcomes == []
        slow.gate.set()
        await seen.wait_for(50)
    assert seen.indices == list(range(50))
    assert slow.batches and fast.batches


async def test_a_device_that_falls_far_behind_is_passed_over() -> None:
    """While one device stalls, the other takes all chunks but the few that wait for the first."""
    stalled, other = FakeModel("stalled"), FakeModel("other")
    async with running(stalled, other) as pool:
        seen = Collector()
        stream = open_stream(pool, seen)
        stalled.gate.clear()
        sent = 0
        for chunk in chunks(10.0):
            stream.submit(chunk, LIVE)
            sent += chunk.frame_count
            queued = pool.stats()["devices"]["stalled"]["queued_frames"]
            assert queued <= 3 * 13
            await asyncio.to_thread(other.wait_until_made, sent - queued - 4)
        stalled.gate.set()
        await seen.wait_for(250)
    assert seen.indices == list(range(250)) and not seen.reasons()


async def test_every_device_is_warm_before_the_first_user() -> None:
    """`start` returns once each model has run at the batch sizes it will meet."""
    models = [FakeModel("a"), FakeModel("b")]
    async with running(*models, batch_size=4, max_batch_size=8):
        assert [model.warmed for model in models] == [[1, 4, 8], [1, 4, 8]]


async def test_avatars_at_hand_are_on_the_devices_before_the_first_user() -> None:
    """A device begins with their copies once it is warm; no stream need be opened for it."""
    prepared: SimpleQueue[str] = SimpleQueue()

    class Finisher(FakeDeviceFinisher):
        def prepare(self, avatar: PreparedAvatar) -> None:
            prepared.put(avatar.id)

    with patch("wsavatar.render.worker.make_finisher", Finisher):
        pool = FacePool([FakeModel()], RenderSettings(), at_hand=[make_avatar()])
    await pool.start()
    assert await asyncio.to_thread(prepared.get, timeout=30) == "a"
    await pool.close()


async def test_a_models_own_batch_sizes_are_warm_too() -> None:
    """Sizes that a model runs natively are warmed up, as far as batches may grow."""
    model = FakeModel()
    model.batch_sizes = (1, 2, 4, 8, 16)
    async with running(model, batch_size=4, max_batch_size=8):
        assert model.warmed == [1, 2, 4, 8]


async def test_a_device_that_pastes_by_itself_delivers_the_same_frames() -> None:
    """Whole batches through one finishing thread: pasted, complete, in order."""
    async with running(FakeModel(), on_device=True) as pool:
        seen = Collector()
        stream = open_stream(pool, seen, first=2)
        for chunk in chunks(1.0):
            stream.submit(chunk, LIVE)
        frames = await seen.wait_for(25)
    assert seen.indices == list(range(25))
    for i in (0, 7, 24):
        shown = picture(frames[i]).astype(int)
        assert abs(shown[36, 32] - 8 * i).max() <= 4
        assert abs(shown[4, 4, 0] - 40 * [0, 1, 2, 3, 4, 3, 2, 1][(2 + i) % 8]) <= 4


async def test_a_device_is_given_two_batches_and_the_third_is_chosen_late() -> None:
    """While two batches are on the device the next is not chosen: who comes then may be in it."""
    model = FakeModel()
    async with running(model, on_device=True) as pool:
        model.finisher.gate.clear()
        first, urgent = Collector(), Collector()
        open_stream(pool, first).submit(chunks(1.0, chunk_s=1.0)[0], LIVE)
        await asyncio.to_thread(model.finisher.wait_until_held, 2)
        open_stream(pool, urgent).submit(chunks(0.5)[0], 1.0)
        model.finisher.gate.set()
        await urgent.wait_for(chunks(0.5)[0].frame_count)
    assert model.batches[:3] == [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3]]
    assert max(model.finisher.held_before) == 1
    assert not urgent.reasons()


async def test_a_deep_queue_is_made_in_big_batches() -> None:
    """Two seconds of speech, due far off: after its opening it goes by eight and sixteen."""
    model = FakeModel()
    async with running(model, batch_size=4, max_batch_size=16) as pool:
        seen = Collector()
        open_stream(pool, seen).submit(chunks(2.0, chunk_s=2.0)[0], LIVE)
        await seen.wait_for(44)
        by_size = pool.stats()["devices"]["fake"]["batches_by_size"]
    assert len(model.batches[0]) == 4 and len(model.batches[1]) == 16
    assert by_size["4"] >= 1 and by_size["16"] >= 1


async def test_a_finished_video_loses_nothing() -> None:
    """Frames due at infinity are never late, whatever the clock says."""
    async with running(FakeModel(), clock=lambda: 1e12) as pool:
        seen = Collector()
        stream = open_stream(pool, seen)
        for chunk in chunks(3.0):
            stream.submit(chunk, math.inf)
        await seen.wait_for(75)
    assert not seen.reasons()


def test_the_rate_is_of_the_last_two_seconds_however_high() -> None:
    """10 000 frames in two seconds are 5000 a second, and none three seconds later."""
    now_s = [100.0]
    pool = FacePool([FakeModel()], RenderSettings(), clock=lambda: now_s[0])
    for _ in range(10_000):
        pool._count(RenderedFrame(0, 0, 0, (0, 0, 1, 1), (1, 1), "raw", b""))
    assert pool.stats()["frames_per_s"] == 5000
    now_s[0] += 3
    assert pool.stats()["frames_per_s"] == 0


async def test_stats_say_what_happened() -> None:
    """Counters and gauges agree with what the streams saw; closed streams leave no trace."""
    async with running(FakeModel()) as pool:
        seen = Collector()
        stream = open_stream(pool, seen)
        for chunk in chunks(1.0):
            stream.submit(chunk, LIVE)
        assert pool.stats()["frames_in_flight"] == 25
        stream.close()
        await seen.wait_for(25)
        stats = pool.stats()
    assert stats["frames_rendered"] == 25
    assert stats["frames_in_flight"] == 0 and stats["streams"] == 0
    assert stats["frames_per_s"] > 0
    assert stats["frames_dropped"] == {"cancelled": 0, "late": 0, "overload": 0, "failed": 0}
    device = stats["devices"]["fake"]
    assert device["queued_frames"] == 0 and device["batches"] >= 7
    assert sum(device["batches_by_size"].values()) == device["batches"]
    assert device["window_ms"] > 0, "on a CPU features are a cost of their own"
    assert device["batch_ceiling"] == 4 and device["memory_share"] == 0.0
    assert set(device["stage_ms"]) == {"features", "generate", "paste", "encode"}
    assert json.loads(json.dumps(stats)) == stats


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives each thread a priority")
async def test_making_frames_yields_to_the_event_loop_and_the_browser() -> None:
    """A model runs at a lower priority than the event loop, which keeps its own."""

    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    class Watched(FakeModel):
        def warm_up(self, batch_sizes) -> None:
            self.niceness = niceness()

    model, own = Watched(), niceness()
    async with running(model):
        assert model.niceness > own or own >= 10
        assert niceness() == own
