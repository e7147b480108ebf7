"""Cuts a person out of a background of one strong colour, such as a green screen."""

from __future__ import annotations

import re

import cv2
import numpy as np

from wsavatar.errors import WsavatarError

__all__ = ["ColourKey", "KeyingError"]

_NEAR, _FAR = 0.3, 0.75
"""Distances of a colour's chroma from the key's, of the key's from grey: up to the first it is
background, from the second on it is not."""
_LEAST_CHROMA = 40.0


class KeyingError(WsavatarError, ValueError):
    """A colour that cannot be keyed; the message says why."""


class ColourKey:
    """Makes what has a colour's hue transparent. ``colour``: as ``#00b140``. Raises KeyingError."""

    def __init__(self, colour: str) -> None:
        match = re.fullmatch(r"#?([0-9a-fA-F]{6})", colour)
        if match is None:
            raise KeyingError(f"{colour[:32]!r} is no colour: write #00b140")
        rgb = np.frombuffer(bytes.fromhex(match[1]), np.uint8)
        self._chroma = _chroma(rgb[None, None])[0, 0]
        self._strength = float(np.hypot(*(self._chroma - 128)))
        if self._strength < _LEAST_CHROMA:
            raise KeyingError(f"{colour}: is too pale to tell a person from it; use green or blue")
        self._strongest = int(np.argmax(rgb))

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] RGB to [H, W, 4], not premultiplied.

        At edges the key's light on the person is taken away: its strongest colour is no stronger
        than the others.
        """
        distance = np.linalg.norm(_chroma(picture) - self._chroma, axis=2) / self._strength
        alpha = np.clip((distance - _NEAR) / (_FAR - _NEAR), 0, 1)
        cut = np.dstack([picture, np.rint(255 * alpha).astype(np.uint8)])
        others = [channel for channel in range(3) if channel != self._strongest]
        limit = np.maximum(picture[..., others[0]], picture[..., others[1]])
        near = distance < 1.5 * _FAR
        strongest = cut[..., self._strongest]
        strongest[near] = np.minimum(strongest, limit)[near]
        return cut


def _chroma(picture: np.ndarray) -> np.ndarray:
    """float32 [H, W, 2]."""
    return cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb)[..., 1:].astype(np.float32)
