"""Fits a coarse mask to the edges of its picture (fast guided filter, He and Sun 2015).

Twice: over wide squares the colours around decide where the coarse mask is unsure; over narrow ones
the edge takes the picture's detail.
"""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["fitted"]

_WIDE, _WIDE_SIDE = 1 / 14, 384
_NARROW, _NARROW_SIDE = 1 / 110, 768
"""Half the side of the squares, in parts of the picture's long side; and the longest side at which
the filter's coefficients are found, which are smooth."""
_GAIN = 2.5
"""How much surer the wide filter's alpha is made."""
_EVEN = 1e-4
"""Variance of colour (0 to 1) below which a square counts as even."""
_HAZE = 0.1
"""Alpha up to which there is nothing, and how much below 1 there is all."""


def fitted(picture: np.ndarray, alpha: np.ndarray, seen: float = 1.0) -> np.ndarray:
    """A coarse alpha, float32 [h, w] from 0 to 1, at the size of its picture, uint8 [H, W, 3].

    Near the coarse edge the alpha follows the picture's colours; elsewhere it stays as it is.
    ``seen``: the share of the picture's long side that the alpha was found in at once.
    Gives float32 [H, W] from 0 to 1.
    """
    small = _reduced(picture, _WIDE_SIDE)
    coarse = cv2.resize(alpha, small.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    radius = max(1, round(_WIDE * seen * max(coarse.shape)))
    slope, offset = _coefficients(small, coarse, radius)
    sure = 0.5 + _GAIN * ((slope * small).sum(-1) + offset - 0.5)
    unsure = np.clip(2 * _edge(coarse, radius, 1), 0, 1)
    coarse = coarse + unsure * (np.clip(sure, 0, 1) - coarse)
    return _detailed(picture, coarse, seen)


def _detailed(picture: np.ndarray, alpha: np.ndarray, seen: float) -> np.ndarray:
    whole = picture.shape[1::-1]
    small = _reduced(picture, _NARROW_SIDE)
    coarse = cv2.resize(alpha, small.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    radius = max(1, round(_NARROW * seen * max(coarse.shape)))
    slope, offset = _coefficients(small, coarse, radius)
    made: np.ndarray = cv2.resize(offset, whole, interpolation=cv2.INTER_LINEAR)
    for channel in range(3):
        factor = cv2.resize(slope[..., channel], whole, interpolation=cv2.INTER_LINEAR)
        made += factor * (picture[..., channel] * np.float32(1 / 255))
    near = _edge(coarse, radius, 2 * radius + 1)
    near = cv2.resize(near, whole, interpolation=cv2.INTER_LINEAR)
    coarse = cv2.resize(coarse, whole, interpolation=cv2.INTER_LINEAR)
    made = coarse + near * (np.clip(made, 0, 1) - coarse)
    fit: np.ndarray = np.clip((made - _HAZE) / (1 - 2 * _HAZE), 0, 1)
    return fit


def _reduced(picture: np.ndarray, long_side: int) -> np.ndarray:
    """The picture from 0 to 1 with sides of at most ``long_side``."""
    height, width = picture.shape[:2]
    scale = min(1.0, long_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _coefficients(
    picture: np.ndarray, alpha: np.ndarray, radius: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of the linear function of the colour that is the alpha, around each pixel: slope, offset."""
    side = (2 * radius + 1, 2 * radius + 1)

    def mean(x: np.ndarray) -> np.ndarray:
        blurred: np.ndarray = cv2.blur(x, side, borderType=cv2.BORDER_REFLECT)
        return blurred

    colour, level = mean(picture), mean(alpha)
    together = mean(picture * alpha[..., None]) - colour * level[..., None]
    spread = {
        (i, k): mean(picture[..., i] * picture[..., k])
        - colour[..., i] * colour[..., k]
        + (_EVEN if i == k else 0)
        for i in range(3)
        for k in range(i, 3)
    }
    slope = _solved(spread, together)
    offset = level - (slope * colour).sum(-1)
    return mean(slope), mean(offset)


def _solved(matrix: dict[tuple[int, int], np.ndarray], right: np.ndarray) -> np.ndarray:
    """Solution [h, w, 3] of symmetric 3x3 equations at each pixel, by cofactors."""
    a, b, c = matrix[0, 0], matrix[0, 1], matrix[0, 2]
    d, e, f = matrix[1, 1], matrix[1, 2], matrix[2, 2]
    aa, ab, ac = d * f - e * e, c * e - b * f, b * e - c * d
    bb, bc, cc = a * f - c * c, b * c - a * e, a * d - b * b
    x, y, z = right[..., 0], right[..., 1], right[..., 2]
    determinant = a * aa + b * ab + c * ac
    rows = (aa * x + ab * y + ac * z, ab * x + bb * y + bc * z, ac * x + bc * y + cc * z)
    made: np.ndarray = np.stack(rows, -1) / determinant[..., None]
    return made


def _edge(alpha: np.ndarray, radius: int, grow: int) -> np.ndarray:
    """1 near where the alpha is neither 0 nor 1, 0 elsewhere, soft between."""
    between = ((alpha > 0.06) & (alpha < 0.94)).astype(np.uint8)
    wide = cv2.dilate(between, np.ones((grow, grow), np.uint8)).astype(np.float32)
    near: np.ndarray = cv2.blur(wide, (2 * radius + 1, 2 * radius + 1))
    return near
