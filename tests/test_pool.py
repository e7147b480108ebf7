"""The renderer's promises: one outcome a frame, in order, whatever fails or is cancelled."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import sys
import threading
from collections import Counter
from contextlib import asynccontextmanager
from fractions import Fraction
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.chunker import Chunk, Chunker, FeatureGrid
from wsavatar.config import RenderSettings
from wsavatar.render.jobs import DroppedFrame, FrameOutcome, RenderedFrame, VideoFormat
from wsavatar.render.pool import FacePool, PoolError

GRID = FeatureGrid(block_positions=5, left_positions=10, right_positions=5)
SIZE, CROP = 64, 32
LIVE = 1e9
"""Due so far off that nothing is late."""


class FakeModel:
    """Draws each frame in one grey: 8 times its number. Can be held, and made to fail."""

    def __init__(self, device: str = "fake") -> None:
        self.device = device
        self.spec = SimpleNamespace(grid=GRID)
        self.warmed: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.progress = threading.Condition()
        self.batches: list[list[int]] = []
        self.encoded_blocks: list[int] = []
        self.bad_frames: set[int] = set()
        self.fail_next: list[str] = []

    def encode_audio(self, windows: np.ndarray) -> np.ndarray:
        assert windows.dtype == np.float32 and windows.shape[1] == GRID.window_samples
        self._maybe_fail("encode_audio")
        self.encoded_blocks.append(len(windows))
        return np.zeros((len(windows) * GRID.block_positions, 2, 3), np.float32)

    def condition(self, features: np.ndarray, chunk: Chunk, fps: Fraction) -> np.ndarray:
        assert len(features) == len(chunk.windows) * GRID.block_positions
        numbers = np.arange(chunk.first_frame, chunk.first_frame + chunk.frame_count)
        return np.broadcast_to(numbers[:, None, None], (len(numbers), 20, 3)).astype(np.float32)

    def warm_up(self, batch_sizes) -> None:
        self._maybe_fail("warm_up")
        self.warmed = list(batch_sizes)

    def generate(self, latents, condition) -> np.ndarray:
        assert len(latents) == len(condition)
        assert all(row.shape == (8, 4, 4) and row.dtype == np.float16 for row in latents)
        numbers = [int(row[0, 0]) for row in condition]
        self.entered.set()
        assert self.gate.wait(10)
        with self.progress:
            self.batches.append(numbers)
            self.progress.notify_all()
        self._maybe_fail("generate")
        if self.bad_frames & set(numbers):
            raise RuntimeError("a bad frame")
        grey = (8 * np.array(numbers)).astype(np.uint8)[:, None, None, None]
        return np.broadcast_to(grey, (len(numbers), CROP, CROP, 3)).copy()

    def wait_until_made(self, frames: int) -> None:
        with self.progress:
            assert self.progress.wait_for(lambda: sum(map(len, self.batches)) >= frames, 10)

    def _maybe_fail(self, stage: str) -> None:
        if stage in self.fail_next:
            self.fail_next.remove(stage)
            raise RuntimeError(f"{stage} failed on purpose")


def make_avatar(frames: int = 5) -> PreparedAvatar:
    """Its i-th picture is red 40 * i around a crop at (16, 20)."""
    pictures = np.zeros((frames, SIZE, SIZE, 3), np.uint8)
    pictures[..., 0] = 40 * np.arange(frames)[:, None, None]
    box = np.tile(np.array([16, 20, 48, 52], np.int32), (frames, 1))
    return PreparedAvatar(
        id="a",
        name="A",
        width=SIZE,
        height=SIZE,
        fps=25.0,
        frames=pictures,
        crop_boxes=box,
        paste_boxes=box,
        masks=tuple(np.full((32, 32), 255, np.uint8) for _ in range(frames)),
        latents=np.zeros((frames, 8, 4, 4), np.float16),
        region=(16, 20, 32, 32),
    )


def chunks(seconds: float, chunk_s: float = 0.5, fps: Fraction = Fraction(25)) -> list[Chunk]:
    chunker = Chunker(GRID, fps, int(16_000 * chunk_s))
    return chunker.push(np.zeros(int(16_000 * seconds), np.float32)) + chunker.flush()


class Collector:
    """An `on_frame` that remembers, and can be waited for."""

    def __init__(self) -> None:
        self.outcomes: list[FrameOutcome] = []
        self._arrived = asyncio.Event()

    def __call__(self, outcome: FrameOutcome) -> None:
        self.outcomes.append(outcome)
        self._arrived.set()

    async def wait_for(self, count: int) -> list[FrameOutcome]:
        async with asyncio.timeout(10):
            while len(self.outcomes) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.outcomes

    @property
    def indices(self) -> list[int]:
        return [outcome.frame_index for outcome in self.outcomes]

    def reasons(self) -> Counter[str]:
        return Counter(o.reason for o in self.outcomes if isinstance(o, DroppedFrame))


@asynccontextmanager
async def running(*models: FakeModel, clock=lambda: 0.0, **settings: int):
    pool = FacePool(models, RenderSettings(**settings), clock=clock)
    await pool.start()
    try:
        yield pool
    finally:
        for model in models:
            model.gate.set()
        async with asyncio.timeout(10):
            await pool.close()


def open_stream(pool: FacePool, seen: Collector, video: VideoFormat | None = None, first: int = 0):
    return pool.open_stream(make_avatar(), video or VideoFormat(), 7, first, seen)


def picture(frame: FrameOutcome) -> np.ndarray:
    assert isinstance(frame, RenderedFrame)
    decoded = cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


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


async def test_quality_is_the_clients() -> None:
    """A lower quality gives a smaller JPEG."""
    sizes = []
    async with running(FakeModel()) as pool:
        for quality in (20, 95):
            seen = Collector()
            open_stream(pool, seen, VideoFormat(quality=quality)).submit(chunks(0.5)[0], LIVE)
            sizes.append(len((await seen.wait_for(2))[1].jpeg))
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
    assert model.encoded_blocks == [len(chunk.windows)]


async def test_a_batch_mixes_sessions_and_gives_each_its_own_frames() -> None:
    """Two sessions' frames made in one batch never cross."""
    model = FakeModel()
    async with running(model, batch_size=8, max_batch_size=8) as pool:
        one, two = Collector(), Collector()
        first = chunks(0.5)[0]
        model.gate.clear()
        open_stream(pool, Collector()).submit(first, LIVE)
        await asyncio.to_thread(model.entered.wait, 10)  # the worker is busy: the rest queues up
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
    from wsavatar.render import worker

    real = worker.jpeg.encode
    calls = iter(range(1000))

    def fails_once(rgb: np.ndarray, quality: int) -> bytes:
        if next(calls) == 1:
            raise ValueError("on purpose")
        return real(rgb, quality)

    monkeypatch.setattr(worker.jpeg, "encode", fails_once)
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


async def test_every_device_is_warm_before_the_first_user() -> None:
    """`start` returns once each model has run at the batch sizes it will meet."""
    models = [FakeModel("a"), FakeModel("b")]
    async with running(*models, batch_size=4, max_batch_size=8):
        assert [model.warmed for model in models] == [[1, 4, 8], [1, 4, 8]]


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


async def test_a_finished_video_loses_nothing() -> None:
    """Frames due at infinity are never late, whatever the clock says."""
    async with running(FakeModel(), clock=lambda: 1e12) as pool:
        seen = Collector()
        stream = open_stream(pool, seen)
        for chunk in chunks(3.0):
            stream.submit(chunk, math.inf)
        await seen.wait_for(75)
    assert not seen.reasons()


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
    assert set(device["stage_ms"]) == {"features", "generate", "paste", "jpeg"}
    assert json.loads(json.dumps(stats)) == stats


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
