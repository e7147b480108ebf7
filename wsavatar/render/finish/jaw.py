"""Reads off a patch how far its jaw is open, and where the frame's own pixels can be shown.

Pure numpy and OpenCV. `device_jaw` has the same arithmetic for a batch on a device.
"""

from __future__ import annotations

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

_MEAN = np.full((1, 3), 1 / 3, np.float32)
LEAST_BEND = 1e-6
"""Of a parabola: a straight line's lowest point is at its end."""


def read_jaw(patch: np.ndarray, jaw: Jaw) -> tuple[float, np.ndarray, np.ndarray]:
    """The lower lip's movement in cells, the frame's share in each cell, and the patch's light.

    The share is float32 [R, C]; the light, float32 [R, C, 3], is to be added to the frame's pixels.

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
    share = np.exp(-np.square(moved / levels))
    light = np.clip(apart, -LIGHT_LEVELS, LIGHT_LEVELS)
    light *= share[..., None]
    return opened, share, light


def move_pixels(picture: np.ndarray, reach: np.ndarray, by: np.ndarray) -> np.ndarray:
    """``picture`` uint8 [h, w, 3] or [h, w, 4] with its pixels moved with the jaw.

    ``reach`` float32 [h, w], 0 to 255: the share of ``by`` (x, y), in pixels, by which each moves.
    """
    height, width = reach.shape
    unit = np.float32(-1 / SUBPIXELS)
    x, y = (np.rint(reach * np.float32(step * SUBPIXELS / 255)) * unit for step in by)
    x += np.arange(width, dtype=np.float32)
    y += np.arange(height, dtype=np.float32)[:, None]
    # OpenCV moves four channels in half the time of three.
    has_alpha = picture.shape[2] == 4
    four = picture if has_alpha else cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA)
    moved = cv2.remap(four, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return moved if has_alpha else cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB)
