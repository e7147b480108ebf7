"""How the pixels of a face at rest move when its jaw opens, from its landmarks.

Pure arithmetic on iBUG-68 landmarks and pictures; it knows no files, no model and no sessions.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from wsavatar.faces.avatar_face import CELL, JAW_STEPS, Jaw, in_cells

__all__ = ["GRID_MARGIN", "jaw_of_face", "jaw_place"]

Box = tuple[int, int, int, int]

GRID_MARGIN = 8
"""Cells by which the grid goes beyond the crop: the neck moves a little below it."""

_JAW_SHARE = np.array(
    [0, 0, 0, 0, 0.02, 0.25, 0.53, 0.66, 0.67, 0.66, 0.53, 0.25, 0.02, 0, 0, 0, 0]
)
"""Movement of points 0-16 over that of the lower lip: optical flow of the model's pictures of six
people, who differ by 0.05."""
_LOWER_LIP = [55, 56, 57, 58, 59, 65, 66, 67]
_CORNERS = [48, 54, 60, 64]
_CORNER_SHARE, _CHIN_SHARE = 0.25, 0.9
_BESIDE = ((4, 48), (5, 48), (12, 54), (11, 54), (6, 59), (10, 55))  # cheeks: jaw and lip points
_OUTSIDE = ((0.10, 0.62), (0.32, 0.0), (0.60, 0.0))
"""(Distance from the jaw over the face's height, movement over the jaw's): neck and background."""
_SOFTNESS = 0.02
"""Of the face's height: how far a point's movement goes over to its neighbours'."""
_LEAST_SHARE = 0.02
"""Less than this does not move, so that little of the picture is touched."""
_LIPS_END, _LIPS_FADE = 0.05, 0.25
"""Of the mouth's width: margin of the lips, and width of the passage to `Jaw.away` 255."""


def jaw_of_face(landmarks: np.ndarray, crop: Box, redrawn: np.ndarray, first_row: int) -> Jaw:
    """The jaw of one frame (its arrays have no ``n``).

    ``landmarks`` [68, 2] in the picture; ``redrawn`` uint8 [S, S, 3]: the model's own picture of
    the crop, drawn from ``first_row`` on.
    """
    size = len(redrawn)
    points = _in_patch(landmarks, crop, size)  # in the patch's pixels from here on
    columns, rows = size // CELL, (size - first_row) // CELL
    reach = _reach(points, columns, rows, first_row)
    down = _down(points)
    in_patch = reach[:rows, GRID_MARGIN:-GRID_MARGIN].astype(np.float32) / 255
    share = cv2.resize(in_patch, (size, size - first_row))
    moved = [step * CELL * down for step in JAW_STEPS]
    looks = [in_cells(_moved(redrawn[first_row:], share, by)) for by in moved]
    away = [_away_from_lips(points - (0, first_row), by, columns, rows) for by in moved]
    box, step = jaw_place(landmarks, crop, size, first_row)
    return Jaw(boxes=box, down=step, reach=reach, looks=np.stack(looks), away=np.stack(away))


def jaw_place(
    landmarks: np.ndarray, crop: Box, size: int, first_row: int
) -> tuple[np.ndarray, np.ndarray]:
    """`Jaw.boxes` and `Jaw.down` of one frame, for a patch of ``size`` pixels a side."""
    x1, y1, x2, y2 = crop
    scale = _scale(crop, size)
    margin = GRID_MARGIN * CELL / scale
    box = (x1 - margin[0], y1 + first_row / scale[1], x2 + margin[0], y2 + margin[1])
    down = CELL * _down(_in_patch(landmarks, crop, size)) / scale
    return np.round(box).astype(np.int32), down.astype(np.float32)


def _scale(crop: Box, size: int) -> np.ndarray:
    """(x, y): pixels of the patch for one of the picture."""
    x1, y1, x2, y2 = crop
    return np.array([size / (x2 - x1), size / (y2 - y1)])


def _in_patch(landmarks: np.ndarray, crop: Box, size: int) -> np.ndarray:
    moved: np.ndarray = (landmarks - crop[:2]) * _scale(crop, size)
    return moved


def _down(points: np.ndarray) -> np.ndarray:
    """Unit vector from the nose's root to the chin."""
    along = points[8] - points[27]
    unit: np.ndarray = along / np.linalg.norm(along)
    return unit


def _reach(points: np.ndarray, columns: int, rows: int, first_row: int) -> np.ndarray:
    """`Jaw.reach`: between points of known movement, the mean weighted by distance."""
    places, shares = _known_movements(points)
    height = np.linalg.norm(points[8] - points[27])
    x = (np.arange(-GRID_MARGIN, columns + GRID_MARGIN) + 0.5) * CELL
    y = first_row + (np.arange(rows + GRID_MARGIN) + 0.5) * CELL
    across = (x[:, None] - places[:, 0]) ** 2
    along = (y[:, None] - places[:, 1]) ** 2
    squares = (along[:, None] + across).astype(np.float32) / np.float32(height**2)
    weights = 1 / np.square(squares + np.float32(_SOFTNESS**2))
    reach = (weights @ shares.astype(np.float32)) / weights.sum(axis=2)
    # Nothing moves at the grid's edges: there the picture goes on as it is.
    ramp = np.arange(reach.shape[1])
    reach *= np.minimum(1, np.minimum(ramp, ramp[::-1]) / GRID_MARGIN)
    ramp = np.arange(len(reach))
    reach *= np.minimum(1, np.minimum(ramp, ramp[::-1]) / GRID_MARGIN)[:, None]
    reach = np.maximum(reach - _LEAST_SHARE, 0) / (1 - _LEAST_SHARE)
    whole: np.ndarray = np.round(255 * reach).astype(np.uint8)
    return whole


def _known_movements(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places [m, 2] on and around the face, and how each moves over the lower lip's movement."""
    shares = np.zeros(68)
    shares[:17] = _JAW_SHARE
    shares[_LOWER_LIP] = 1
    shares[_CORNERS] = _CORNER_SHARE
    jaw = points[:17]
    outwards = jaw - points[30]
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
    height = np.linalg.norm(points[8] - points[27])
    beside = [(points[a] + points[b]) / 2 for a, b in _BESIDE]
    beside_shares = [(shares[a] + shares[b]) / 2 for a, b in _BESIDE]
    around = [jaw + outwards * height * distance for distance, _ in _OUTSIDE]
    around_shares = [_JAW_SHARE * share for _, share in _OUTSIDE]
    middle = (points[57] + points[8]) / 2
    return (
        np.concatenate([points, *around, beside, middle[None]]),
        np.concatenate([shares, *around_shares, beside_shares, [_CHIN_SHARE]]),
    )


def _moved(picture: np.ndarray, share: np.ndarray, by: np.ndarray) -> np.ndarray:
    """The picture with every pixel moved by its share of ``by`` pixels."""
    columns, rows = _grid(*picture.shape[:2])
    x, y = columns - np.float32(by[0]) * share, rows - np.float32(by[1]) * share
    return cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """x [1, width] and y [height, 1] of every pixel."""
    y, x = np.ogrid[:height, :width]
    return x.astype(np.float32), y.astype(np.float32)


def _away_from_lips(points: np.ndarray, by: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """uint8 [rows, columns]: `Jaw.away` where the lower lip is moved by ``by``, if downwards."""
    lips = points[48:60]
    moved = points.copy()
    if by[1] > 0:
        moved[_LOWER_LIP] += by
        moved[_CORNERS] += _CORNER_SHARE * by
    hull = cv2.convexHull(np.concatenate([lips, moved[48:60]]).astype(np.float32))
    outside = np.full((rows * CELL, columns * CELL), 255, np.uint8)
    cv2.fillConvexPoly(outside, np.round(hull).astype(np.int32), 0)
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, 3)
    width = np.linalg.norm(points[54] - points[48])
    t = np.clip((distance / width - _LIPS_END) / _LIPS_FADE, 0, 1)
    return in_cells(np.round(255 * t * t * (3 - 2 * t)).astype(np.uint8))
