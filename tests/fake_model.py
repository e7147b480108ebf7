"""A model that draws its frames' numbers, and what the renderer's tests do with it."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import asynccontextmanager, contextmanager
from fractions import Fraction
from unittest.mock import patch

import cv2
import numpy as np

from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.config import RenderSettings
from wsavatar.faces.avatar_face import AvatarFace
from wsavatar.media.pictures import DecodedPictures
from wsavatar.render.encoders import raw_picture
from wsavatar.render.finish.host import HostFinisher
from wsavatar.render.jobs import DroppedFrame, FrameOutcome, RenderedFrame, VideoFormat
from wsavatar.render.pool import FacePool
from wsavatar.speech.chunker import Chunk, Chunker, FeatureGrid

GRID = FeatureGrid(block_positions=5, left_positions=10, right_positions=5)
SIZE, CROP = 64, 32
LIVE = 1e9
"""Due so far off that nothing is late."""


class OutOfMemoryError(RuntimeError):
    """Named as torch names it."""


class FakeModel:
    """Draws each frame in one grey: 8 times its number. Can be held, and made to fail."""

    def __init__(self, device: str = "fake") -> None:
        self.device = device
        self.windows = GRID
        self.batch_sizes: tuple[int, ...] = ()
        self.warmed: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.progress = threading.Condition()
        self.batches: list[list[int]] = []
        self.heard: list[tuple[int, int]] = []
        """(stream, first frame) of every chunk whose conditions were made."""
        self.bad_frames: set[int] = set()
        self.fail_next: list[str] = []
        self.out_of_memory_next: list[str] = []
        self.greatest_that_fits = 64
        self.releases = 0
        self.finisher: FakeDeviceFinisher | None = None

    def conditions(self) -> FakeModel:
        return self

    def make(self, chunks: Sequence[tuple[int, Chunk]]) -> tuple[list[np.ndarray], int]:
        """A frame's condition is its number."""
        if chunks:
            self.maybe_fail("conditions")
        self.heard += [(stream, chunk.first_frame) for stream, chunk in chunks]
        made = []
        for _, chunk in chunks:
            assert chunk.windows.shape[1] == GRID.window_samples
            numbers = np.arange(chunk.first_frame, chunk.first_frame + chunk.frame_count)
            made.append(np.tile(numbers[:, None, None], (1, 20, 3)).astype(np.float32))
        return made, sum(len(chunk.blocks) for _, chunk in chunks)

    def warm_up(self, batch_sizes) -> None:
        self.maybe_fail("warm_up")
        self.warmed = list(batch_sizes)

    def generate(self, inputs, conditions) -> np.ndarray:
        assert len(inputs) == len(conditions)
        assert all(row.shape == (8, 4, 4) and row.dtype == np.float16 for row in inputs)
        numbers = [int(row[0, 0]) for row in conditions]
        self.entered.set()
        assert self.gate.wait(30)
        with self.progress:
            self.batches.append(numbers)
            self.progress.notify_all()
        self.maybe_fail("generate")
        if len(numbers) > self.greatest_that_fits:
            raise OutOfMemoryError(f"{len(numbers)} frames do not fit")
        if self.bad_frames & set(numbers):
            raise RuntimeError("a bad frame")
        grey = (8 * np.array(numbers)).astype(np.uint8)[:, None, None, None]
        return np.broadcast_to(grey, (len(numbers), CROP, CROP, 3)).copy()

    def wait_until_made(self, frames: int) -> None:
        with self.progress:
            assert self.progress.wait_for(lambda: sum(map(len, self.batches)) >= frames, 30)

    def memory_used(self) -> float:
        return 0.0

    def release(self) -> None:
        self.releases += 1

    def maybe_fail(self, stage: str) -> None:
        if stage in self.out_of_memory_next:
            self.out_of_memory_next.remove(stage)
            raise OutOfMemoryError(f"{stage} ran out of memory on purpose")
        if stage in self.fail_next:
            self.fail_next.remove(stage)
            raise RuntimeError(f"{stage} failed on purpose")


class FakeDeviceFinisher(HostFinisher):
    """Takes whole batches and answers for them later, as a device does. Fails with its model."""

    on_device = True

    def __init__(self, model: FakeModel, settings: RenderSettings) -> None:
        super().__init__(settings)
        self.model, model.finisher = model, self
        self.gate = threading.Event()
        self.gate.set()
        self.evictions = 0
        self.scope_of: int | None = None
        """The thread in whose scope it is."""
        self.held = 0
        """Batches that are composed and not yet encoded."""
        self.held_before: list[int] = []
        """How many there were when each batch was composed."""

    @contextmanager
    def scope(self):
        self.scope_of = threading.get_ident()
        yield
        self.scope_of = None

    def inputs(self, works):
        assert self.scope_of == threading.get_ident()
        return super().inputs(works)

    def compose(self, works, patches):
        assert self.scope_of == threading.get_ident()
        self.model.maybe_fail("compose")
        pictures = super().compose(works, patches)
        with self.model.progress:
            self.held_before.append(self.held)
            self.held += 1
            self.model.progress.notify_all()
        return pictures

    def encode(self, works, pictures) -> list[bytes]:
        assert self.gate.wait(30)
        try:
            self.model.maybe_fail("encode")
            return super().encode(works, pictures)
        finally:
            with self.model.progress:
                self.held -= 1

    def wait_until_held(self, batches: int) -> None:
        with self.model.progress:
            assert self.model.progress.wait_for(lambda: self.held >= batches, 30)

    def evict(self) -> None:
        self.evictions += 1


def make_avatar(frames: int = 5) -> PreparedAvatar:
    """Its i-th picture is red 40 * i around a crop at (16, 20)."""
    pictures = np.zeros((frames, SIZE, SIZE, 3), np.uint8)
    pictures[..., 0] = 40 * np.arange(frames)[:, None, None]
    box = np.tile(np.array([16, 20, 48, 52], np.int32), (frames, 1))
    mask = np.full((32, 32), 255, np.uint8)
    face = AvatarFace(box, box, (mask,) * frames, np.zeros((frames, 8, 4, 4), np.float16))
    return PreparedAvatar(
        "a", "A", SIZE, SIZE, 25.0, DecodedPictures(pictures), (16, 20, 32, 32), face
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
        async with asyncio.timeout(30):
            while len(self.outcomes) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.outcomes

    @property
    def indices(self) -> list[int]:
        return [outcome.frame_index for outcome in self.outcomes]

    def reasons(self) -> Counter[str]:
        return Counter(o.reason for o in self.outcomes if isinstance(o, DroppedFrame))


def make_pool(
    *models: FakeModel, on_device: bool = False, clock=lambda: 0.0, **settings: int
) -> FacePool:
    """``on_device``: the models paste and encode by themselves, in a `FakeDeviceFinisher`."""
    if not on_device:
        return FacePool(models, RenderSettings(**settings), clock=clock)
    with patch("wsavatar.render.worker.make_finisher", FakeDeviceFinisher):
        return FacePool(models, RenderSettings(**settings), clock=clock)


@asynccontextmanager
async def running(*models: FakeModel, **options):
    """A started pool of `make_pool`."""
    pool = make_pool(*models, **options)
    await pool.start()
    try:
        yield pool
    finally:
        for model in models:
            model.gate.set()
            if model.finisher is not None:
                model.finisher.gate.set()
        async with asyncio.timeout(30):
            await pool.close()


def open_stream(pool: FacePool, seen: Collector, video: VideoFormat | None = None, first: int = 0):
    return pool.open_stream(make_avatar(), video or VideoFormat(), 7, first, seen)


def picture(frame: FrameOutcome) -> np.ndarray:
    assert isinstance(frame, RenderedFrame)
    if frame.codec == "raw":
        return raw_picture(frame.data, frame.size)
    decoded = cv2.imdecode(np.frombuffer(frame.data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
