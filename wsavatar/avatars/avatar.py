"""A prepared avatar: everything a frame needs that does not depend on the audio.

This module knows nothing of sessions or of how a face is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

__all__ = ["DETAIL_CELL", "AvatarInfo", "Detail", "PreparedAvatar", "cycle_index"]

DETAIL_CELL = 4
"""The side, in a crop's pixels, of the cells in which `Detail.redrawn` is kept."""


class AvatarInfo(Protocol):
    """What a session knows of an avatar that is ready to speak. ``fps``: of its idle cycle."""

    @property
    def id(self) -> str: ...

    @property
    def fps(self) -> float: ...

    @property
    def frame_count(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Detail:
    """What the model's VAE loses of each crop: pores, hair, the edge of a jaw.

    Of the rows that the model draws, the lower ones. ``lost`` is the crop less what the VAE makes
    of it. ``redrawn`` is what it makes, in means of squares of `DETAIL_CELL` pixels: a mouth drawn
    later has moved where it differs from that. One frame's has no ``n``.
    """

    lost: np.ndarray  # int8 [n, rows, S, 3]
    redrawn: np.ndarray  # uint8 [n, rows / DETAIL_CELL, S / DETAIL_CELL, 3]

    @property
    def nbytes(self) -> int:
        return self.lost.nbytes + self.redrawn.nbytes


@dataclass(frozen=True, slots=True)
class PreparedAvatar:
    """One avatar, ready to speak. Arrays are read-only; n is the number of source frames.

    Boxes are (x1, y1, x2, y2) in the avatar's pixels, x2 and y2 exclusive. ``crop_boxes`` is where
    the model's square crop comes from and goes back to; ``paste_boxes`` encloses it (MuseTalk's
    square 1.5 times the face box, clipped to the picture) and has the size of ``masks[i]``, uint8
    alpha. ``region`` (x, y, w, h) encloses every pixel any frame's mask can change, with even
    coordinates: what is sent in mouth-region mode.
    """

    id: str
    name: str
    width: int
    height: int
    fps: float
    frames: np.ndarray  # uint8 [n, H, W, 3] RGB, mouth at rest
    crop_boxes: np.ndarray  # int32 [n, 4]
    paste_boxes: np.ndarray  # int32 [n, 4]
    masks: tuple[np.ndarray, ...]  # n of uint8 [h, w]
    latents: np.ndarray  # float16 [n, 2C, h, w]: masked latents, then reference latents
    region: tuple[int, int, int, int]
    detail: Detail | None = None
    """None: what the VAE loses stays lost."""

    def detail_of(self, index: int) -> Detail | None:
        """One frame's, where it is kept."""
        if self.detail is None:
            return None
        return Detail(self.detail.lost[index], self.detail.redrawn[index])

    @property
    def frame_count(self) -> int:
        return len(self.frames)

    @property
    def nbytes(self) -> int:
        """Of memory, nearly all of it."""
        arrays = [self.frames, self.latents, *self.masks]
        kept = self.detail.nbytes if self.detail is not None else 0
        return sum(array.nbytes for array in arrays) + kept


def cycle_index(frame_index: int, frame_count: int) -> int:
    """Which source frame to show: forward, then backward, for ever, without showing an end twice.

    >>> [cycle_index(i, 4) for i in range(9)]
    [0, 1, 2, 3, 2, 1, 0, 1, 2]
    """
    if frame_count < 2:
        return 0
    period = 2 * (frame_count - 1)
    offset = frame_index % period
    return offset if offset < frame_count else period - offset
