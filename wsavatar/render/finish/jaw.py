"""Reads off a patch how far its jaw is open, and where the frame's own pixels can be shown.

Pure numpy and OpenCV. `device_jaw` has the same arithmetic for a batch on a device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from wsavatar.faces.avatar_face import CELL, JAW_STEPS, Jaw, in_cells

__all__ = [
    "AWAY_LEVELS",
    "LEAST_BEND",
    "LIGHT_LEVELS",
    "NEAR_CELLS",
    "STILL_LEVELS",
    "SUBPIXELS",
    "JawRead",
    "move_pixels",
    "read_jaw",
]

STILL_LEVELS = 12
"""On the lips: where a patch differs by this, of 255, from the model's picture of the face at rest,
moved, a third of what is shown is the frame's; where by less more, where by more hardly any. It
shrinks as the mouth opens: what is between the lips then may resemble them, but is not theirs."""
AWAY_LEVELS = 60
"""The same far from the lips. There a difference is the model's error, not the mouth's movement."""
LIGHT_LEVELS = 12
"""So far at most do the frame's pixels follow the patch: folds and shades of a moving cheek."""
NEAR_CELLS = 3
"""Side of the squares of cells over which differences are averaged: one may be alike by chance."""
SUBPIXELS = 32
"""Pixels are moved by whole numbers of this part of a pixel, as ``cv2.remap`` does."""
LEAST_BEND = 1e-6
"""Of a parabola: a straight line's lowest point is at its end."""

_MEAN = np.full((1, 3), 1 / 3, np.float32)
_Box = Sequence[int] | np.ndarray


@dataclass(frozen=True, slots=True)
class JawRead:
    """What a patch shows of its jaw."""

    opened: float
    """The lower lip's movement in cells."""
    share: np.ndarray
    """float32 [R, C]: the patch's share of what is shown in each drawn cell."""
    light: np.ndarray
    """float32 [R, C, 3]: of the patch, to be added to the frame's pixels."""

    def fields(self, jaw: Jaw, box: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """``share`` [h, w] and ``light`` [h, w, 3] of each pixel of ``box``, inside the jaw's."""
        left, top = (int(edge) for edge in jaw.boxes[:2])
        part = np.s_[box[1] - top : box[3] - top, box[0] - left : box[2] - left]
        rows, columns = self.share.shape
        side = (jaw.reach.shape[1] - columns) // 2
        around = (0, len(jaw.reach) - rows, side, side, cv2.BORDER_CONSTANT)
        share, light = (
            cv2.resize(cv2.copyMakeBorder(cells, *around), jaw.size)[part]
            for cells in (self.share, self.light)
        )
        return share, light


def read_jaw(patch: np.ndarray, jaw: Jaw) -> JawRead:
    """How far the jaw of a patch is open, and where the frame's own pixels can be shown.

    ``patch`` uint8 [S, S, 3], ``jaw`` of its frame. The movement is where the cells away from the
    lips differ least from `Jaw.looks`: the lowest point of a parabola through three of them.
    """
    rows, columns = jaw.away.shape[1:]
    cells = in_cells(patch[-rows * CELL :])
    steps = np.stack([cv2.absdiff(cells, look) for look in jaw.looks])
    margin = (jaw.reach.shape[1] - columns) // 2
    weights = jaw.reach[:rows, margin : margin + columns].astype(np.float32) * jaw.away[-1]
    costs = steps.reshape(len(steps), -1).astype(np.float32) @ np.repeat(weights.ravel(), 3)
    costs += np.square(JAW_STEPS)  # where nothing can be seen the jaw is at rest
    best = min(max(int(costs.argmin()), 1), len(costs) - 2)
    before, least, after = (float(cost) for cost in costs[best - 1 : best + 2])
    bend = max(before - 2 * least + after, LEAST_BEND)
    place = best + min(max((before - after) / (2 * bend), -1), 1)
    first = min(int(place), len(costs) - 2)
    part = place - first
    look, away = (
        cv2.addWeighted(array[first], 1 - part, array[first + 1], part, 0, dtype=cv2.CV_32F)
        for array in (jaw.looks, jaw.away)
    )
    apart = cells - look
    moved = cv2.transform(np.abs(apart), _MEAN)
    moved = cv2.blur(moved, (NEAR_CELLS, NEAR_CELLS), borderType=cv2.BORDER_CONSTANT)
    opened = place + JAW_STEPS[0]
    lips = STILL_LEVELS / (1 + max(opened, 0))
    levels = lips + np.float32((AWAY_LEVELS - lips) / 255) * away
    own = np.exp(-np.square(moved / levels))
    light = np.clip(apart, -LIGHT_LEVELS, LIGHT_LEVELS)
    light *= own[..., None]
    return JawRead(opened, 1 - own, light)


def move_pixels(picture: np.ndarray, jaw: Jaw, cells: float) -> None:
    """Move the pixels of ``picture`` as the jaw does when its lip moves by so many cells.

    ``picture`` uint8 [h, w, 3] or [h, w, 4]. Only the part that moves is touched. ``jaw`` is of one
    frame, its box in the picture's pixels.
    """
    by = np.float32(cells) * jaw.down
    steps = by * np.float32(SUBPIXELS / 255)
    whole = 0, 0, picture.shape[1], picture.shape[0]
    left, top, right, bottom = _within(_moving_part(jaw, float(np.abs(steps).max())), whole)
    if left >= right or top >= bottom:
        return
    far_x, far_y = (math.ceil(abs(float(one))) + 1 for one in by)
    around = left - far_x, top - far_y, right + far_x, bottom + far_y
    x, y, end_x, end_y = _within(around, _within(jaw.boxes, whole))
    # OpenCV moves four channels in half the time of three.
    has_alpha = picture.shape[2] == 4
    source = picture[y:end_y, x:end_x]
    source = source if has_alpha else cv2.cvtColor(source, cv2.COLOR_RGB2RGBA)
    columns, rows = jaw.boxes[:2]
    part = np.s_[top - rows : bottom - rows, left - columns : right - columns]
    reach = cv2.resize(jaw.reach.astype(np.float32), jaw.size)[part]
    across, down = (_places(reach, step) for step in steps)
    across += np.arange(left - x, right - x, dtype=np.float32)
    down += np.arange(top - y, bottom - y, dtype=np.float32)[:, None]
    moved = cv2.remap(source, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    moved = moved if has_alpha else cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB)
    picture[top:bottom, left:right] = moved


def _within(box: _Box, other: _Box) -> tuple[int, int, int, int]:
    """What two boxes have in common."""
    x1, y1, x2, y2 = (int(edge) for edge in box)
    left, top, right, bottom = (int(edge) for edge in other)
    return max(x1, left), max(y1, top), min(x2, right), min(y2, bottom)


def _moving_part(jaw: Jaw, step: float) -> tuple[int, int, int, int]:
    """Encloses the pixels that move by half a subpixel at least; (0, 0, 0, 0) if none does.

    ``step``: by how many subpixels a `Jaw.reach` of 1 moves.
    """
    x, y, w, h = cv2.boundingRect((jaw.reach * np.float32(step) >= 0.5).view(np.uint8))
    if not w:
        return 0, 0, 0, 0
    return jaw.pixels_of(x, y, w, h)


def _places(reach: np.ndarray, step: np.float32) -> np.ndarray:
    """From where each pixel comes, along one axis, less its own place; in pixels."""
    places: np.ndarray = reach * step
    np.rint(places, out=places)
    places *= np.float32(-1 / SUBPIXELS)
    return places
