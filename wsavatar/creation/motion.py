"""Gives a still picture life: the head sways and nods a little, the chest breathes.

Pure arithmetic on a picture and its iBUG-68 landmarks. The picture is warped by one smooth field of
displacements, which is zero at the picture's borders; the landmarks follow the same field.
"""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["HeadMotion", "warped"]

_CELL = 16  # pixels; the field is computed on such a grid and interpolated
_INVERSIONS = 4  # fixed-point steps; each divides the error by ten or more

# Amplitudes in widths of the face, in radians for the roll; and their half periods in the clip.
# Cosines of whole half periods stand still at both ends, so the clip can be played forward and
# backward without a jerk.
_SWAY = ((0.012, 1), (-0.005, 3))
_NOD = ((0.006, 2), (0.004, 5))
_ROLL = ((0.010, 2), (0.004, 3))
_TURN = ((-0.016, 1), (0.008, 4))
_BREATH = ((0.008, 3),)
_BORDER = 0.15  # of the shorter side: how far from the border the field begins to fade


class HeadMotion:
    """The field of displacements of one picture over time.

    ``points``: float [68, 2] in pixels; ``width``, ``height``: the picture's.
    """

    def __init__(self, points: np.ndarray, width: int, height: int) -> None:
        self._size = np.array([width, height], dtype=np.float64)
        low, high = points.min(axis=0), points.max(axis=0)
        self._face = high - low
        self._middle = (low + high) / 2
        self._chin = points[8].astype(np.float64)
        self._neck = self._chin + [0, 0.4 * self._face[1]]
        self._nose = points[30].astype(np.float64)
        columns, rows = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
        self._pixels = np.stack(np.meshgrid(columns, rows), axis=2)

    def displacement(self, at: np.ndarray, part: float) -> np.ndarray:
        """How far the points ``at`` [n, 2] have moved at ``part`` (0 to 1) of the clip."""
        at = at.astype(np.float64)
        head = _bump((at - self._head_centre) / (self._face * [1.0, 1.05]))
        nose = _bump((at - self._nose) / (self._face * [0.62, 0.62]))
        chest = _bump((at - self._chest_centre) / (self._face * [2.4, 1.6]))
        turned = (at - self._neck) @ np.array([[0.0, 1.0], [-1.0, 0.0]]) * _wave(_ROLL, part)
        width = self._face[0]
        moved = head[:, None] * (turned + width * np.array([_wave(_SWAY, part), _wave(_NOD, part)]))
        moved[:, 0] += nose * width * _wave(_TURN, part)
        moved[:, 1] += np.maximum(chest, head) * width * _wave(_BREATH, part)
        return np.asarray(moved * self._inside(at)[:, None])

    @property
    def _head_centre(self) -> np.ndarray:
        # The points end at the brows; a head goes on as far again as from the nose to the brows.
        return np.asarray(self._middle - [0, 0.2 * self._face[1]])

    @property
    def _chest_centre(self) -> np.ndarray:
        return np.asarray(self._chin + [0, 1.2 * self._face[1]])

    def _inside(self, at: np.ndarray) -> np.ndarray:
        """1 in the picture, 0 from its borders outwards, smooth between."""
        distance = np.minimum(at, self._size - 1 - at).min(axis=1)
        return _smooth(distance / (_BORDER * np.min(self._size)))

    def moved(self, points: np.ndarray, part: float) -> np.ndarray:
        """The landmarks at ``part`` of the clip, float32 [n, 2]."""
        moved: np.ndarray = points + self.displacement(points, part)
        return moved.astype(np.float32)

    def sources(self, part: float) -> np.ndarray:
        """For every pixel the place that it shows: float32 [H, W, 2]."""
        width, height = (int(side) for side in self._size)
        columns, rows = -(-width // _CELL), -(-height // _CELL)
        x = (np.arange(columns) + 0.5) * width / columns - 0.5
        y = (np.arange(rows) + 0.5) * height / rows - 0.5
        grid = np.stack(np.meshgrid(x, y), axis=2).reshape(-1, 2)
        back = np.zeros_like(grid)
        for _ in range(_INVERSIONS):
            back = self.displacement(grid - back, part)
        coarse = back.reshape(rows, columns, 2).astype(np.float32)
        field = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        return np.asarray(cv2.subtract(self._pixels, field))


def warped(picture: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """The picture with the pixels of those places. Cubic: a linear one would soften and sharpen."""
    return np.asarray(
        cv2.remap(
            picture,
            sources,
            np.empty(0),
            interpolation=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REFLECT,
        )
    )


def _wave(terms: tuple[tuple[float, int], ...], part: float) -> float:
    return sum(size * float(np.cos(np.pi * halves * part)) for size, halves in terms)


def _bump(offset: np.ndarray) -> np.ndarray:
    """1 at the centre and near it, 0 far from it: offsets [n, 2] in radii."""
    return np.asarray(np.exp(-((offset**2).sum(axis=1) ** 2)))


def _smooth(t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))
