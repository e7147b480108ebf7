"""The worker's view of its work: a stream, a chunk, a frame.

Plain data. It knows neither queues nor threads nor how a face is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from wsavatar.avatars.avatar import AvatarInfo, PreparedAvatar, cycle_index
from wsavatar.faces.base import Chunk
from wsavatar.render.jobs import DroppedFrame, DropReason, RenderedFrame, VideoFormat

__all__ = ["ChunkWork", "FrameWork", "StreamSpec"]


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """Values that are equal for all frames of a stream."""

    number: int
    avatar: AvatarInfo
    """Prepared, where its frames are made; where they are only asked for it need not be."""
    video: VideoFormat
    generation: int
    first_cycle_index: int

    @property
    def prepared(self) -> PreparedAvatar:
        """The avatar, where its frames are made."""
        assert isinstance(self.avatar, PreparedAvatar)
        return self.avatar

    @property
    def region(self) -> tuple[int, int, int, int]:
        """The part of the picture that is sent: (x, y, w, h) in the avatar's pixels."""
        if self.video.region == "mouth":
            return self.prepared.region
        return 0, 0, self.avatar.width, self.avatar.height

    @property
    def picture_size(self) -> tuple[int, int]:
        """(w, h) of the pictures sent: the region, reduced where `VideoFormat.max_width` asks."""
        _, _, w, h = self.region
        if self.video.max_width is None or self.video.max_width >= self.avatar.width:
            return w, h
        # The same scale for full pictures and mouths, so that both are equally sharp.
        scale = self.video.max_width / self.avatar.width
        return max(1, round(w * scale)), max(1, round(h * scale))

    def source_index(self, frame_index: int) -> int:
        """Index of the avatar's frame for a video frame, for any two frame rates."""
        rate = Fraction(self.avatar.fps).limit_denominator(1001) / self.video.fps
        return cycle_index(
            self.first_cycle_index + int(frame_index * rate), self.avatar.frame_count
        )

    def pts_us(self, frame_index: int) -> int:
        return round(frame_index * 1_000_000 / self.video.fps)

    def dropped(self, frame_index: int, reason: DropReason) -> DroppedFrame:
        return DroppedFrame(self.generation, frame_index, self.pts_us(frame_index), reason)


@dataclass(slots=True, eq=False)
class ChunkWork:
    """A chunk and its conditions, once the worker has computed them."""

    chunk: Chunk
    condition: Any = None


@dataclass(frozen=True, slots=True)
class FrameWork:
    """One frame of a chunk. Chunks are queued as frames: one queue, one policy, one bound."""

    spec: StreamSpec
    source: ChunkWork
    row: int

    @property
    def frame_index(self) -> int:
        return self.source.chunk.first_frame + self.row

    @property
    def source_index(self) -> int:
        """Index of the avatar's frame for this one."""
        return self.spec.source_index(self.frame_index)

    def rendered(self, data: bytes) -> RenderedFrame:
        """The outcome, once the picture is encoded."""
        return RenderedFrame(
            generation=self.spec.generation,
            frame_index=self.frame_index,
            pts_us=self.spec.pts_us(self.frame_index),
            region=self.spec.region,
            size=self.spec.picture_size,
            codec=self.spec.video.encoder,
            data=data,
        )
