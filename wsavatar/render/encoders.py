"""Encoders of finished pictures: one class and one registry line for each format.

An encoder here encodes single pictures, in any order and on any thread. A format whose pictures
depend on each other (H.264) needs them in order, after the frames' delivery. This module knows
neither avatars nor frame numbers.
"""

from __future__ import annotations

import io
from typing import Protocol

import cv2
import numpy as np
from PIL import Image

from wsavatar.errors import WsavatarError
from wsavatar.media import jpeg

__all__ = ["DEFAULT", "ENCODERS", "Encoder", "EncoderError", "encoder_for", "raw_picture"]

DEFAULT = "jpeg"


class EncoderError(WsavatarError, ValueError):
    """Unknown encoder; the message names the known ones."""


class Encoder(Protocol):
    """Encodes single pictures. Stateless and thread-safe."""

    def encode(self, picture: np.ndarray, quality: int) -> bytes:
        """uint8 [h, w, 3] RGB, or with alpha [h, w, 4], to bytes. ``quality``: 1 to 100, for lossy
        formats. Raises ValueError for alpha that the format cannot have."""


class _Jpeg:
    """Baseline JPEG, 4:2:0."""

    def encode(self, picture: np.ndarray, quality: int) -> bytes:
        return jpeg.encode(picture, quality)


class _WebP:
    """Lossy WebP, by the fastest method: another takes several times as long for a third fewer
    bytes. Alpha is right within a level, which takes half the time of exact alpha."""

    def encode(self, picture: np.ndarray, quality: int) -> bytes:
        data = io.BytesIO()
        Image.fromarray(picture).save(data, "WEBP", quality=quality, method=0, alpha_quality=90)
        return data.getvalue()


class _Png:
    """Lossless."""

    def encode(self, picture: np.ndarray, quality: int) -> bytes:
        order = cv2.COLOR_RGBA2BGRA if picture.shape[2] == 4 else cv2.COLOR_RGB2BGR
        options = [cv2.IMWRITE_PNG_COMPRESSION, 1]
        ok, data = cv2.imencode(".png", cv2.cvtColor(picture, order), options)
        if not ok:
            raise ValueError(f"OpenCV could not encode a picture of {picture.shape}")
        return data.tobytes()


class _Raw:
    """Uncompressed pixels, row by row: red, green, blue, with alpha that too, a byte each. See
    `raw_picture`."""

    def encode(self, picture: np.ndarray, quality: int) -> bytes:
        return picture.tobytes()


ENCODERS: dict[str, Encoder] = {
    "jpeg": _Jpeg(),
    "webp": _WebP(),
    "png": _Png(),
    "raw": _Raw(),
}
"""By name, as in `VideoFormat.encoder` and `RenderedFrame.codec`."""


def encoder_for(name: str) -> Encoder:
    """The encoder of this name. Raises EncoderError."""
    if name not in ENCODERS:
        raise EncoderError(f"unknown encoder {name[:32]!r}; known are {', '.join(ENCODERS)}")
    return ENCODERS[name]


def raw_picture(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """The picture of ``size`` (w, h) from bytes of encoder "raw": uint8 [h, w, 3], with alpha
    [h, w, 4], read-only."""
    width, height = size
    return np.frombuffer(data, np.uint8).reshape(height, width, -1)
