"""From a decoded video frame to the picture that is shown: upright, square pixels, opaque, SDR.

This module knows neither files nor timestamps.
"""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from wsavatar.errors import WsavatarError
from wsavatar.media.tone import HDR_TRANSFERS, to_sdr

__all__ = [
    "BACKGROUND",
    "MAX_SIDE",
    "SWS_ACCURATE",
    "FrameConverter",
    "VideoError",
    "fitted",
    "to_rgb",
]

MAX_SIDE = 4096
BACKGROUND = (204, 204, 204)
"""The neutral grey behind transparent pictures."""
# libswscale's own rounding darkens a picture by about one level each way. AREA, FULL_CHR_H_INT,
# FULL_CHR_H_INP and ACCURATE_RND together end that (mean error 1.2 -> 0.05 over a round trip).
SWS_ACCURATE = 0x20 | 0x2000 | 0x4000 | 0x40000
_SWS_LANCZOS = 0x200 | 0x2000 | 0x4000 | 0x40000


class VideoError(WsavatarError, ValueError):
    """A file cannot be read or written as video; the message names it and says why."""


def fitted(width: int, height: int, max_side: int) -> tuple[int, int]:
    """The size, scaled down if a side is longer than ``max_side``."""
    longest = max(width, height)
    if longest <= max_side:
        return width, height
    return (
        max(round(width * max_side / longest), 1),
        max(round(height * max_side / longest), 1),
    )


def to_rgb(
    frame: av.VideoFrame, size: tuple[int, int] | None = None, format: str = "rgb24"
) -> av.VideoFrame:
    """A decoded frame in RGB, scaled to ``size`` (w, h) if that is another. Any thread may call."""
    size = size or (frame.width, frame.height)
    is_scaled = size != (frame.width, frame.height)
    # A converter of its own: that of the frame is not made for two threads.
    return VideoReformatter().reformat(
        frame,
        *size,
        format=format,
        interpolation=_SWS_LANCZOS if is_scaled else SWS_ACCURATE,
    )


class FrameConverter:
    """Converts the frames of one video. Its first frame fixes the size of all.

    ``alpha``: an alpha channel is kept, as a fourth one of the pictures.
    """

    def __init__(
        self, path: Path, pixel_aspect: Fraction, max_side: int, *, alpha: bool = False
    ) -> None:
        self._path = path
        self._aspect = pixel_aspect
        self._max_side = max_side
        self._keeps_alpha = alpha
        self._first: tuple[int, int, int] | None = None
        self._turns, self._is_mirrored = 0, False
        self._lying = (0, 0)
        self.size = self.decoded_size = (0, 0)

    def check(self, frame: Any) -> None:
        """Raise VideoError for a frame that is too large, or not as large as the first."""
        this = (frame.width, frame.height, _quarter_turns(frame))
        if self._first is None:
            self._first = this
            self._measure(frame)
        elif this != self._first:
            width, height, _ = self._first
            raise VideoError(
                f"{self._path}: its picture size changes from {width}x{height} to "
                f"{frame.width}x{frame.height}; cut it there"
            )

    def _measure(self, frame: Any) -> None:
        width, height = frame.width, frame.height
        self._turns, self._is_mirrored = _orientation(frame)
        # Square pixels by enlarging, so that no detail is lost.
        wider, higher = max(self._aspect, Fraction(1)), max(1 / self._aspect, Fraction(1))
        square = round(width * wider), round(height * higher)
        if max(square) > MAX_SIDE:
            raise VideoError(
                f"{self._path}: {square[0]}x{square[1]} is over {MAX_SIDE} pixels a side; "
                "scale it down"
            )
        self._lying = fitted(*square, self._max_side)
        lying, decoded = self._lying, (width, height)
        self.size = (lying[1], lying[0]) if self._turns % 2 else lying
        self.decoded_size = (height, width) if self._turns % 2 else decoded

    def picture(self, frame: Any) -> np.ndarray:
        """A frame that was checked, uint8 [H, W, 3] RGB, or [H, W, 4] with its alpha."""
        picture = self._converted(frame)
        if self._is_mirrored:
            picture = picture[:, ::-1]
        return np.ascontiguousarray(np.rot90(picture, self._turns))

    def _converted(self, frame: Any) -> np.ndarray:
        transfer = int(getattr(frame, "color_trc", 0) or 0)
        if transfer in HDR_TRANSFERS:
            return to_sdr(to_rgb(frame, self._lying, "rgb48le").to_ndarray(), transfer)
        if any(component.is_alpha for component in frame.format.components):
            layered = to_rgb(frame, self._lying, "rgba").to_ndarray()
            alpha = layered[..., 3:].astype(np.float32) / 255
            mixed = layered[..., :3] * alpha + np.array(BACKGROUND) * (1 - alpha)
            layered[..., :3] = np.rint(mixed)
            return np.asarray(layered if self._keeps_alpha else layered[..., :3])
        return np.asarray(to_rgb(frame, self._lying).to_ndarray())


def _orientation(frame: Any) -> tuple[int, bool]:
    """Quarter turns counter-clockwise, and whether the frame is mirrored sideways before them.

    Phones store portrait video lying down, and some what a front camera sees in a mirror. A frame
    that was asked for its side data is freed by the garbage collector alone, so ask one of a video.
    """
    turns = _quarter_turns(frame)
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know every kind that its FFmpeg has
        return turns, False
    if matrix is not None:
        a, b, _, c, d = np.frombuffer(matrix, dtype=np.int32, count=5).astype(float)
        if a * d < b * c:
            return round(-math.atan2(-b, -a) / (math.pi / 2)) % 4, True
    return turns, False


def _quarter_turns(frame: Any) -> int:
    """Those of a frame that is not mirrored, counter-clockwise."""
    return round(getattr(frame, "rotation", 0) / 90) % 4
