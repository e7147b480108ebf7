"""Finished pictures to the bytes that a client asked for: one class and one registry line a format.

An encoder here makes each picture by itself, in any order and on any thread. A format whose
pictures depend on each other (H.264) is made where they come in order, behind
`wsavatar.render.player`. It knows neither avatars nor frames' numbers.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from wsavatar.errors import WsavatarError
from wsavatar.media import jpeg

__all__ = ["DEFAULT", "ENCODERS", "Encoder", "EncoderError", "encoder_for", "raw_picture"]

DEFAULT = "jpeg"


class EncoderError(WsavatarError, ValueError):
    """There is no such encoder; the message says which there are."""


class Encoder(Protocol):
    """Makes bytes of single pictures. Holds no state: any thread may call."""

    def encode(self, picture: np.ndarray, quality: int) -> bytes:
        """uint8 [h, w, 3] RGB to bytes. ``quality``: 1 to 100, for formats that lose something."""


class _Jpeg:
    """Baseline JPEG, 4:2:0."""

    def encode(self, picture: np.ndarray, quality: int) -> bytes:
        return jpeg.encode(picture, quality)


class _Raw:
    """The pixels as they are, row by row: red, green, blue, a byte each. See `raw_picture`."""

    def encode(self, picture: np.ndarray, quality: int) -> bytes:
        return picture.tobytes()


ENCODERS: dict[str, Encoder] = {
    "jpeg": _Jpeg(),
    "raw": _Raw(),
}
"""By the name that `VideoFormat.encoder` asks for and `RenderedFrame.codec` says."""


def encoder_for(name: str) -> Encoder:
    """Raises EncoderError for a name that is not registered."""
    if name not in ENCODERS:
        raise EncoderError(f"no encoder {name[:32]!r}; there are {', '.join(ENCODERS)}")
    return ENCODERS[name]


def raw_picture(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """The picture that "raw" made of ``size`` (w, h): uint8 [h, w, 3], read-only."""
    width, height = size
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)
