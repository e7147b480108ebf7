"""Blinks of a still picture: the upper lids slide down over the eyes, with their skin and lashes.

Pure arithmetic on a picture and its iBUG-68 landmarks. In each column of an eye the skin above the
lid is stretched down to where the lid is now, and ends in a line as dark as the lashes were; the
eye below it stays.
"""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["CLOSED_PARTS", "EyeLids"]

CLOSED_PARTS = (0.3, 0.8, 1.0, 1.0, 0.75, 0.4, 0.15)
"""How far the lids are closed in the frames of one blink, at 25 frames/s: 0.28 s."""

_EYES = (slice(36, 42), slice(42, 48))
_UPPER = (0, 1, 2, 3)  # of an eye's six points: from corner to corner
_LOWER = (0, 5, 4, 3)
_MIN_HEIGHT, _MIN_WIDTH = 3.0, 12.0  # pixels: smaller eyes have no lids to see
_MIN_ASPECT = 0.12  # height over width: below, the eyes are closed, or nearly
_SKIN_RANGE = 210  # levels
# In widths of the eye:
_LASHES = 0.1  # above the points, lashes and the lid's edge; skin is taken from above them
_SKIN = 0.5  # above the points: what is stretched
_BELOW = 0.03  # below the lower points: where the closed lid ends
_LINE = 0.035  # half thickness of the line of lashes
_DARK = 0.85  # opacity of that line


class EyeLids:
    """The lids of the face in a picture, uint8 [H, W, 3], with landmarks [68, 2].

    ``can_blink``: whether both eyes are open and large enough, and skin is above them, not the rim
    of glasses or hair, which would be stretched with it.
    """

    def __init__(self, picture: np.ndarray, points: np.ndarray) -> None:
        self._picture = picture
        self._eyes = [points[eye].astype(np.float64) for eye in _EYES]
        are_seen = all(_is_open(eye) and _is_inside(picture, eye) for eye in self._eyes)
        self.can_blink = are_seen and not any(_is_covered(picture, eye) for eye in self._eyes)

    def closed(self, part: float) -> np.ndarray:
        """The picture with the lids that part closed, from 0 to 1."""
        if part <= 0 or not self.can_blink:
            return self._picture
        shown = self._picture.copy()
        for eye in self._eyes:
            _close(shown, self._picture, eye, part)
        return shown

    def moved(self, points: np.ndarray, part: float) -> np.ndarray:
        """The landmarks with the lids that part closed, float32 [68, 2]."""
        moved = points.astype(np.float32)
        if part > 0 and self.can_blink:
            for eye in _EYES:
                for upper, lower in ((1, 5), (2, 4)):
                    at, to = moved[eye.start + upper], moved[eye.start + lower]
                    moved[eye.start + upper] = at + (to - at) * part
        return moved


def _is_open(eye: np.ndarray) -> bool:
    """Also that its points are where those of an upright face are, from left to right."""
    width = float(eye[3, 0] - eye[0, 0])
    height = float((eye[[5, 4]] - eye[[1, 2]])[:, 1].mean())
    is_in_order = bool((np.diff(eye[_UPPER, 0]) > 0).all())
    is_large = width >= _MIN_WIDTH and height >= max(_MIN_HEIGHT, _MIN_ASPECT * width)
    return is_in_order and is_large


def _is_inside(picture: np.ndarray, eye: np.ndarray) -> bool:
    margin = _SKIN * float(eye[3, 0] - eye[0, 0])
    size = picture.shape[1], picture.shape[0]
    return bool((eye > margin).all() and (eye < np.subtract(size, margin)).all())


def _is_covered(picture: np.ndarray, eye: np.ndarray) -> bool:
    """Whether both the blackest and the whitest are right above the eye, which skin never has."""
    width, upper = float(eye[3, 0] - eye[0, 0]), float(eye[[1, 2], 1].min())
    first, last = max(int(eye[1, 0]), 0), int(eye[2, 0]) + 1
    low, high = max(int(upper - _SKIN * width), 0), int(upper - _LASHES * width) + 1
    band = picture[low:high, first:last].mean(axis=2)
    return float(np.ptp(band)) > _SKIN_RANGE


def _close(shown: np.ndarray, picture: np.ndarray, eye: np.ndarray, part: float) -> None:
    """Draw one eye's lid into ``shown``, with the pixels of ``picture``."""
    width = float(eye[3, 0] - eye[0, 0])
    margin = 0.1 * width
    left, right = eye[0, 0] - margin, eye[3, 0] + margin
    first, last = max(int(left), 0), min(int(right) + 2, picture.shape[1])
    columns = np.arange(first, last, dtype=np.float64)
    upper = _curve(eye[_UPPER, :], columns)
    lower = np.maximum(_curve(eye[_LOWER, :], columns), upper)
    opened = np.clip((lower - upper) / (0.08 * width), 0, 1)  # 0 in the corners
    begun = min(3 * part, 1.0) * opened
    edge = upper + ((lower - upper) + _BELOW * width * opened) * part
    end, top = upper - _LASHES * width * begun, upper - _SKIN * width
    low, high = max(int(np.min(top)), 0), min(int(edge.max() + 0.1 * width) + 2, len(picture))
    rows = np.arange(low, high, dtype=np.float64)[:, None]
    # Skin from the top to the lashes is shown from the top to the edge; most moves what is lowest.
    way = np.clip((rows - top) / np.maximum(edge - top, 1), 0, 1)
    source = rows - (edge - end) * way**1.5
    lid = cv2.remap(
        picture,
        np.broadcast_to(columns, source.shape).astype(np.float32),
        source.astype(np.float32),
        interpolation=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    under = shown[low:high, first:last].astype(np.float64)
    soft = max(0.02 * width, 0.7)
    covers = np.clip((edge - rows) / soft + 0.5, 0, 1) * (rows >= top)
    mixed = under + (lid - under) * (covers * np.clip(begun * 4, 0, 1))[:, :, None]
    line = np.exp(-(((rows - edge) / max(_LINE * width, 0.7)) ** 2)) * _DARK * begun
    mixed += (_lash_colour(picture, columns, upper, width) - mixed) * line[:, :, None]
    shown[low:high, first:last] = np.round(mixed).astype(np.uint8)


def _lash_colour(
    picture: np.ndarray, columns: np.ndarray, upper: np.ndarray, width: float
) -> np.ndarray:
    """The darkest tenth of the pixels on the lid's edge, as one colour."""
    reach = max(round(_LASHES * width / 2), 1)
    rows = np.round(upper).astype(int)[None] + np.arange(-reach, reach + 1)[:, None]
    pixels = picture[rows.clip(0, len(picture) - 1), columns.astype(int)[None]].reshape(-1, 3)
    darkest = np.argsort(pixels.sum(axis=1))[: max(len(pixels) // 10, 1)]
    return np.asarray(pixels[darkest].mean(axis=0))


def _curve(points: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Rows of a smooth curve through four points, at those columns; straight on beyond them."""
    order = np.argsort(points[:, 0])
    x, y = points[order, 0], points[order, 1]
    cubic = np.polynomial.Polynomial.fit(x, y, 3, domain=[x[0], x[-1]])
    return np.asarray(cubic(np.clip(columns, x[0], x[-1])))
