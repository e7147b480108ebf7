"""Data between a session and the renderer.

Every frame that enters the renderer leaves it exactly once: as a `RenderedFrame` or as a
`DroppedFrame`. Counters rely on that.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from wsavatar.render import encoders

__all__ = ["DropReason", "DroppedFrame", "FrameOutcome", "RenderedFrame", "VideoFormat"]

DropReason = Literal["cancelled", "late", "overload", "failed"]


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """The frames that a client asked for."""

    fps: Fraction = Fraction(25)
    region: Literal["full", "mouth"] = "full"
    quality: int = 85
    max_width: int | None = None
    encoder: str = encoders.DEFAULT
    """Encoder of the frames: a name of `wsavatar.render.encoders.ENCODERS`."""


@dataclass(frozen=True, slots=True)
class RenderedFrame:
    """One picture, encoded. ``region`` is (x, y, w, h) in the avatar's own pixels, and ``size``
    (w, h) in the picture's: fewer where ``max_width`` asks for fewer."""

    generation: int
    frame_index: int
    pts_us: int
    region: tuple[int, int, int, int]
    size: tuple[int, int]
    codec: str
    """The encoder's name."""
    data: bytes


@dataclass(frozen=True, slots=True)
class DroppedFrame:
    """A frame that is not delivered, and why."""

    generation: int
    frame_index: int
    pts_us: int
    reason: DropReason


FrameOutcome = RenderedFrame | DroppedFrame
