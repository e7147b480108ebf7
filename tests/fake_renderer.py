"""A renderer that takes no time: each frame says in its bytes which it is."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from wsavatar.avatars.avatar import PreparedAvatar, cycle_index
from wsavatar.faces.base import Chunk
from wsavatar.render.encoders import encoder_for
from wsavatar.render.jobs import DroppedFrame, FrameOutcome, RenderedFrame, VideoFormat
from wsavatar.render.load import Capacity
from wsavatar.session.engine import AvatarInfo
from wsavatar.speech.chunker import Chunker, FeatureGrid

GRID = FeatureGrid()


@dataclass
class FakeStream:
    """A response's frames, each settled once, soon after it was submitted."""

    face: FakeRenderer
    avatar: PreparedAvatar
    video: VideoFormat
    generation: int
    first_cycle_index: int
    on_frame: Callable[[FrameOutcome], None]
    due_s: list[float] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    cancelled: bool = False
    closed: bool = False

    def submit(self, chunk: Chunk, due_s: float) -> None:
        frames = range(chunk.first_frame, chunk.first_frame + chunk.frame_count)
        self.due_s.append(due_s)
        self.indices += frames
        self.waiting += frames
        if not self.face.held:
            asyncio.get_running_loop().call_soon(self.render)

    def render(self, count: int | None = None) -> None:
        """Settle the oldest frames that wait."""
        ready, self.waiting = self.waiting[:count], self.waiting[len(self.waiting[:count]) :]
        for index in ready:
            self.on_frame(self._frame(index))

    def drop(self, count: int, reason: Any) -> None:
        ready, self.waiting = self.waiting[:count], self.waiting[count:]
        for index in ready:
            self.on_frame(DroppedFrame(self.generation, index, self._pts_us(index), reason))

    def cancel(self) -> None:
        self.cancelled = True
        self.drop(len(self.waiting), "cancelled")

    def close(self) -> None:
        self.closed = True

    def _pts_us(self, index: int) -> int:
        return round(index * 1_000_000 / self.video.fps)

    def _frame(self, index: int) -> RenderedFrame:
        source = cycle_index(self.first_cycle_index + index, self.avatar.frame_count)
        label = {"avatar": self.avatar.id, "index": index, "source": source}
        codec = self.video.encoder
        picture = encoder_for(codec).encode(self.avatar.pictures[source], 50)
        data = picture + json.dumps(label).encode() + bytes(self.face.padding)
        return RenderedFrame(
            self.generation, index, self._pts_us(index), (0, 0, 32, 32), (32, 32), codec, data
        )


class FakeRenderer:
    """A renderer that takes no time; while ``held``, frames wait for `FakeStream.render`."""

    def __init__(self, *, held: bool = False, padding: int = 0) -> None:
        self.held = held
        self.padding = padding
        self.streams: list[FakeStream] = []
        self.is_open = False
        self.problems = {"fake:0": "", "fake:1": ""}
        self.capacity = Capacity(time.monotonic)

    async def start(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    def open_chunker(self, fps: Fraction, chunk_ms: int, first_ms: int | None = None) -> Chunker:
        return GRID.open_chunker(fps, chunk_ms, first_ms)

    def open_stream(
        self,
        avatar: AvatarInfo,
        video: VideoFormat,
        generation: int,
        first_cycle_index: int,
        on_frame: Callable[[FrameOutcome], None],
    ) -> FakeStream:
        stream = FakeStream(self, avatar, video, generation, first_cycle_index, on_frame)
        self.streams.append(stream)
        return stream

    def health(self) -> dict[str, str]:
        return self.problems

    def stats(self) -> dict[str, int]:
        return {"streams": len(self.streams)}


def label_of(frame: bytes) -> dict[str, Any]:
    """What a `FakeRenderer` wrote behind a frame's picture."""
    text = frame[frame.rindex(b"\xff\xd9") + 2 :].rstrip(b"\0")
    label: dict[str, Any] = json.loads(text)
    return label


def frame_total(seconds: float, fps: int = 25) -> int:
    return -int(-Fraction(seconds).limit_denominator(1_000_000) * fps // 1)
