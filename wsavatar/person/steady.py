"""Masks of a clip that do not flicker where its picture stands still."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

__all__ = ["steady"]

_LONG_SIDE = 480
"""Longest side at which two pictures are compared."""
_STILL, _MOVED = 2.5, 8.0
"""Levels of 255 by which blurred light differs: up to the first by noise, from the second on by
movement."""
_LEAST = 0.08
"""How much of a new mask is taken where nothing moves."""


def steady(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
    """Pictures uint8 [H, W, 3] and their masks uint8 [H, W], in order, to masks uint8 [H, W].

    Where the picture stands still a mask is the mean over the last dozen; where it moves, its own.
    Keeps one picture and one mask. A change of size begins anew.
    """
    seen: np.ndarray | None = None
    kept: np.ndarray | None = None
    for picture, mask in pairs:
        light = _light(picture)
        if seen is None or kept is None or kept.shape != mask.shape:
            seen, kept = light, mask.astype(np.float32)
        else:
            take = _change(seen, light)
            seen = seen + take[..., None] * (light - seen)
            whole = cv2.resize(take, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
            kept = kept + whole * (mask - kept)
        yield np.rint(kept).astype(np.uint8)


def _light(picture: np.ndarray) -> np.ndarray:
    """The picture small and blurred, float32 [h, w, 3] from 0 to 255."""
    scale = min(1.0, _LONG_SIDE / max(picture.shape[:2]))
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    light: np.ndarray = cv2.GaussianBlur(small.astype(np.float32), (0, 0), 1.5)
    return light


def _change(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """How much of the new mask to take, float32 [h, w] from `_LEAST` to 1."""
    apart = np.abs(now - before).max(2)
    apart = cv2.dilate(apart, np.ones((9, 9), np.uint8))
    share = np.clip((apart - _STILL) / (_MOVED - _STILL), 0, 1)
    take: np.ndarray = cv2.blur(_LEAST + (1 - _LEAST) * share, (5, 5)).astype(np.float32)
    return take
