"""Puts what a mask cuts out of a picture before another background, without a halo of the old one.

At soft edges a pixel is a mixture of both. The person's share is estimated from the sure pixels
near it (a fast form of https://arxiv.org/abs/2006.14970). Pure numpy and OpenCV; it knows neither
persons nor avatars.
"""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["ALIGNED", "REACH", "cut_out", "laid_over", "put_before"]

ALIGNED = 4
"""Side of the cells in which colours are averaged. A part of a picture that is cut on this grid,
with `REACH` pixels more on each side, gives the same pixels as the whole one."""
REACH = 64
_NEAR, _FAR = 7, 25
"""Cells around a pixel that are looked at; the far ones count where there are no near ones."""
_FAR_WEIGHT = 1e-3
_SURE = 8
"""Levels from 0 and from 255 at which a mask is certain."""


def cut_out(picture: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """RGB uint8 [H, W, 3] and its mask uint8 [H, W] to RGBA [H, W, 4], not premultiplied.

    Nothing is left of the background: where alpha is 0, pixels have the colours of the edge near
    them, or are black.
    """
    cut = cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA)
    cut[..., 3] = alpha
    above, below, is_near = _around(picture, alpha)
    is_seen = is_near | (alpha > 0)
    cut[..., :3][~is_seen] = 0
    mixed = np.flatnonzero((alpha < 255) & is_seen)
    cut.reshape(-1, 4)[mixed, :3] = _separated(picture, alpha, above, below, mixed)
    return cut


def laid_over(picture: np.ndarray, alpha: np.ndarray, background: np.ndarray) -> np.ndarray:
    """RGB uint8 [H, W, 3]: what the mask uint8 [H, W] names of ``picture``, over ``background``."""
    mixed = np.flatnonzero((alpha > 0) & (alpha < 255))
    colours = np.empty((0, 3), np.float32)
    if len(mixed):
        above, below, _ = _around(picture, alpha)
        colours = _separated(picture, alpha, above, below, mixed)
    return _blended(picture, alpha, background, mixed, colours)


def put_before(cut: np.ndarray, background: np.ndarray) -> np.ndarray:
    """RGB uint8 [H, W, 3]: what was `cut_out`, [H, W, 4], over ``background``."""
    picture, alpha = np.ascontiguousarray(cut[..., :3]), np.ascontiguousarray(cut[..., 3])
    mixed = np.flatnonzero((alpha > 0) & (alpha < 255))
    colours = picture.reshape(-1, 3)[mixed].astype(np.float32)
    return _blended(picture, alpha, background, mixed, colours)


def _blended(
    picture: np.ndarray,
    alpha: np.ndarray,
    background: np.ndarray,
    mixed: np.ndarray,
    colours: np.ndarray,
) -> np.ndarray:
    """``picture`` over ``background``; the pixels ``mixed`` have the foreground's ``colours``."""
    made = background.copy()
    cv2.copyTo(picture, _within(alpha, 255, 255), made)
    share = alpha.reshape(-1)[mixed, None] * np.float32(1 / 255)
    pixels = made.reshape(-1, 3)
    pixels[mixed] = np.rint(colours * share + pixels[mixed] * (1 - share))
    return made


def _separated(
    picture: np.ndarray,
    alpha: np.ndarray,
    above: np.ndarray,
    below: np.ndarray,
    pixels: np.ndarray,
) -> np.ndarray:
    """float32 [n, 3]: the colours of the foreground alone in some pixels.

    As near to those around it as the mixture allows: equation 5 of the paper.
    """
    share = alpha.reshape(-1)[pixels, None] * np.float32(1 / 255)
    expected = above.reshape(-1, 3)[pixels].astype(np.float32)
    rest = below.reshape(-1, 3)[pixels] * (1 - share)
    left = picture.reshape(-1, 3)[pixels] - share * expected - rest
    separated: np.ndarray = np.clip(expected + share * left, 0, 255)
    return separated


def _around(picture: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The colours of the foreground and of the background around each pixel, uint8 [H, W, 3];
    and whether there is any foreground near it."""
    height, width = alpha.shape
    below, right = -height % ALIGNED, -width % ALIGNED
    if below or right:  # incomplete cells
        picture, alpha = (
            cv2.copyMakeBorder(array, 0, below, 0, right, cv2.BORDER_REPLICATE)
            for array in (picture, alpha)
        )
    whole = width + right, height + below
    size = whole[0] // ALIGNED, whole[1] // ALIGNED
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    sure = [
        cv2.resize(_within(alpha, low, high), size, interpolation=cv2.INTER_AREA) == 255
        for low, high in ((256 - _SURE, 255), (0, _SURE - 1))
    ]
    colours = [cv2.resize(_spread(small, cells), whole)[:height, :width] for cells in sure]
    reach = cv2.dilate(np.uint8(255) * sure[0], np.ones((_NEAR, _NEAR), np.uint8))
    is_near = cv2.resize(reach, whole, interpolation=cv2.INTER_NEAREST)[:height, :width] > 0
    return colours[0], colours[1], is_near


def _within(alpha: np.ndarray, low: int, high: int) -> np.ndarray:
    """uint8: 255 where the mask has these values, else 0."""
    return cv2.inRange(alpha, np.array(low), np.array(high))


def _spread(picture: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """uint8: the mean colours of those cells around each cell."""
    weights = cells.astype(np.float32)
    known = picture * weights[..., None]
    total = np.zeros_like(known)
    count = np.full(weights.shape, 1e-6, np.float32)
    for side, share in ((_NEAR, 1.0), (_FAR, _FAR_WEIGHT)):
        total += share * cv2.boxFilter(known, -1, (side, side), borderType=cv2.BORDER_CONSTANT)
        count += share * cv2.boxFilter(weights, -1, (side, side), borderType=cv2.BORDER_CONSTANT)
    mean: np.ndarray = np.rint(total / count[..., None]).astype(np.uint8)
    return mean
