"""The edges of lips in a picture: whether there are any, and where those of an open mouth are,
nearer than landmarks know them.

Pure arithmetic on a picture and its iBUG-68 landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

__all__ = ["COLUMNS", "Lips", "MouthPlace", "lips_of", "shows_lips"]

COLUMNS = np.linspace(-1, 1, 121)
"""u of every column of `Lips`, from the left corner to the right one."""
_ROW = 1 / 60
_TOP, _BOTTOM = [48, 49, 50, 51, 52, 53, 54], [48, 59, 58, 57, 56, 55, 54]
_UPPER, _LOWER = [60, 61, 62, 63, 64], [60, 67, 66, 65, 64]
_FAR = 0.13  # of half the mouth's width: so far a landmark may be off
_MARGIN = 0.03  # so much more is between the lips: what shines through at their edge
_THINNEST = 0.02
_CORNER = 0.2  # so far from a corner margins begin
_STEP_COST, _MOST_STEPS = 0.35, 3  # rows from one column to the next
_REDDER, _LIGHTER, _OTHER = 2.25, 0.7, 0.3
_LEAST_CONTRAST = 6.0  # levels: less is noise
_DEGREE, _STRAY = 5, 0.025
_NEAR_LIPS, _MIDDLE = 0.35, 0.6  # of half the mouth's width: where lips are seen at least
_FAINTEST = 0.1  # of the face's contrast


@dataclass(frozen=True, slots=True)
class MouthPlace:
    """Coordinates of a mouth: u is -1 and 1 at its corners, v goes down in the same unit."""

    middle: np.ndarray
    along: np.ndarray
    """Unit vector from the left corner to the right one."""
    half: float
    """Pixels of one unit."""

    @staticmethod
    def of(points: np.ndarray) -> MouthPlace:
        """That of landmarks [68, 2]."""
        left, right = points[48], points[54]
        half = max(float(np.linalg.norm(right - left)) / 2, 1.0)
        return MouthPlace((left + right) / 2.0, (right - left) / (2 * half), half)

    def place(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """u and v of pixels [..., 2]."""
        apart = (pixels - self.middle) / self.half
        x, y = self.along
        return apart[..., 0] * x + apart[..., 1] * y, apart[..., 1] * x - apart[..., 0] * y

    def pixels(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """[..., 2]."""
        x, y = self.along
        return self.middle + self.half * np.stack([u * x - v * y, u * y + v * x], axis=-1)


@dataclass(frozen=True, slots=True)
class Lips:
    """v of the edges of both lips in each of `COLUMNS`, downwards."""

    top: np.ndarray
    upper: np.ndarray
    """The upper lip's lower edge."""
    lower: np.ndarray
    """The lower lip's upper edge."""
    bottom: np.ndarray


def lips_of(picture: np.ndarray, points: np.ndarray, mouth: MouthPlace) -> Lips:
    """The lips in a picture, uint8 [H, W, 3], with landmarks [68, 2].

    The outer edges are the landmarks'; the inner ones follow the picture near them.
    """
    upper, lower = (_curve(*mouth.place(points[line]), degree=3) for line in (_UPPER, _LOWER))
    rows = np.arange(upper.min() - 0.3, max(lower.max(), upper.max()) + 0.3, _ROW)
    down = _steps_down(picture, mouth, rows[:, None] + 0 * COLUMNS)
    upper = _followed(upper, rows, _lip_begins(-down))
    lower = _followed(lower, rows, _lip_begins(down))
    inside = np.clip((1 - np.abs(COLUMNS)) / _CORNER, 0, 1)
    gap = np.maximum(lower - upper + 2 * _MARGIN * inside, 0) * np.minimum(1, 2.5 * inside)
    middle = (upper + lower) / 2
    upper, lower = middle - gap / 2, middle + gap / 2
    top, bottom = (_curve(*mouth.place(points[line]), degree=4) for line in (_TOP, _BOTTOM))
    return Lips(
        np.minimum(top, upper - _THINNEST), upper, lower, np.maximum(bottom, lower + _THINNEST)
    )


def _curve(u: np.ndarray, v: np.ndarray, degree: int) -> np.ndarray:
    return np.asarray(np.polynomial.Polynomial.fit(u, v, degree)(COLUMNS))


def shows_lips(picture: np.ndarray, points: np.ndarray) -> bool:
    """Whether a picture, uint8 [H, W, 3], has lips where landmarks [68, 2] have them.

    Along the whole mouth the colour changes then, by much of what it does in the whole face; on a
    mask before the mouth it does not.
    """
    mouth = MouthPlace.of(points)
    seam = sum(_curve(*mouth.place(points[line]), degree=3) for line in (_UPPER, _LOWER)) / 2
    near = np.arange(-_NEAR_LIPS, _NEAR_LIPS, _ROW)[:, None]
    steps = _steps_down(picture, mouth, seam + near)[:, np.abs(COLUMNS) < _MIDDLE].mean(axis=1)
    face = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillConvexPoly(face, np.round(cv2.convexHull(points)).astype(np.int32), 1)
    contrast = float(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[face > 0].std())
    clearest = float(np.max(np.linalg.norm(steps, axis=1)))
    return clearest > _FAINTEST * max(contrast, _LEAST_CONTRAST)


def _steps_down(picture: np.ndarray, mouth: MouthPlace, v: np.ndarray) -> np.ndarray:
    """float32 [rows, columns, 3]: how far the Lab colour changes downwards, at v [rows, columns] of
    `COLUMNS`."""
    if mouth.half * _ROW > 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), 0.6 * mouth.half * _ROW)
    places = mouth.pixels(np.broadcast_to(COLUMNS, v.shape), v).astype(np.float32)
    seen = cv2.remap(
        picture,
        places[..., 0],
        places[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    mean = cv2.blur(cv2.cvtColor(seen, cv2.COLOR_RGB2LAB).astype(np.float32), (3, 2))
    steps = np.zeros_like(mean)
    steps[2:-2] = mean[4:] - mean[:-4]
    return steps


def _lip_begins(steps: np.ndarray) -> np.ndarray:
    """How much it looks as if a lip began there, [rows, columns], about 0 to 1: it is redder than
    teeth, and lighter than the dark between them."""
    lightness, red = steps[..., 0], steps[..., 1]
    seen = _REDDER * np.maximum(red, 0) + _LIGHTER * np.maximum(lightness, 0)
    seen += _OTHER * np.abs(lightness)
    contrast = max(float(np.percentile(seen, 98)), _LEAST_CONTRAST)
    return np.asarray(np.minimum(seen / contrast, 1))


def _followed(line: np.ndarray, rows: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The smooth line near ``line`` along which most is ``seen``; it ends in the corners."""
    off = (rows[:, None] - line) / _FAR
    found = rows[_cheapest_path(1 - seen + 0.5 * off**2 + 10 * (np.abs(off) > 1))]
    u, v = np.r_[COLUMNS, -1, 1], np.r_[found, 0, 0]
    certain = np.r_[np.ones(len(COLUMNS)), 30, 30]
    weights = certain
    for _ in range(6):  # strays count less and less
        fitted = np.polynomial.Polynomial.fit(u, v, _DEGREE, w=np.sqrt(weights))
        weights = certain / np.maximum(np.abs(fitted(u) - v) / _STRAY, 1)
    return np.asarray(fitted(COLUMNS))


def _cheapest_path(costs: np.ndarray) -> np.ndarray:
    """The row of each column, int, of the path from left to right that costs least."""
    count, columns = costs.shape
    moves = np.arange(-_MOST_STEPS, _MOST_STEPS + 1)
    total = costs[:, 0]
    came: list[np.ndarray] = []
    for column in range(1, columns):
        padded = np.pad(total, _MOST_STEPS, constant_values=np.inf)
        ways = np.stack([padded[_MOST_STEPS + move :][:count] for move in moves])
        ways += _STEP_COST * np.abs(moves)[:, None]
        best = ways.argmin(axis=0)
        came.append(np.arange(count) + moves[best])
        total = ways.min(axis=0) + costs[:, column]
    path = [int(np.argmin(total))]
    for before in reversed(came):
        path.append(int(before[path[-1]]))
    return np.array(path[::-1])
