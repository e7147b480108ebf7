"""Which frames look alike to the model, so that what it makes of one serves for all of them.

Pure arithmetic on landmarks and pictures; it knows no files, no model and no sessions.
"""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["AlikeFrames"]

Box = tuple[int, int, int, int]

_APART = 0.5 / 256
"""Of the crop's sides: points that lie no further apart are at the same place. Half a pixel at
most, 0.2 on average: less than a box moves that is rounded to whole pixels."""
_DIFFERENT = 1.5
"""Levels, root mean square: of crops that differ less the light and the eyes are the same."""
_SIDE = 32
"""Of the small pictures that are compared: a camera's noise is gone in them."""


class AlikeFrames:
    """The frames of an avatar of up to ``count``, one after the other."""

    def __init__(self, count: int) -> None:
        self._points = np.empty((count, 68, 2), np.float32)
        self._looks = np.empty((count, _SIDE, _SIDE, 3), np.float32)
        self._frames: list[int] = []

    def first_like(self, frame: int, seen: np.ndarray, points: np.ndarray, crop: Box) -> int:
        """The earlier frame that looks most like this one in its crop; itself, if none does.

        ``seen`` uint8 [h, w, 3]: the crop of a picture with landmarks [68, 2]. Only frames that
        were their own first are compared with, so nothing drifts.
        """
        x1, y1, x2, y2 = crop
        placed = ((points - (x1, y1)) / (x2 - x1, y2 - y1)).astype(np.float32)
        look = cv2.resize(seen, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        known = len(self._frames)
        apart = np.square(self._points[:known] - placed).sum(axis=2).max(axis=1, initial=0)
        for number in np.argsort(apart, kind="stable"):
            if apart[number] > _APART**2:
                break
            if np.square(self._looks[number] - look).mean() <= _DIFFERENT**2:
                return self._frames[int(number)]
        self._points[known], self._looks[known] = placed, look
        self._frames.append(frame)
        return frame
