"""A still picture as a clip: the head's motion and blinks over time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from wsavatar.creation.blink import CLOSED_PARTS, EyeLids
from wsavatar.creation.motion import HeadMotion, warped

__all__ = ["FPS", "FRAME_COUNT", "living"]

FPS = 25
FRAME_COUNT = 150
"""6 s, which play forward and backward: 12 s until anything repeats. More would look the same, and
cost each model as much more time to prepare."""
_BLINKS_AT = (40, 92)  # frames: 1.8 to 4 s apart, forward and backward


def living(picture: np.ndarray, points: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`FRAME_COUNT` frames of a picture uint8 [H, W, 3] of a face with landmarks [68, 2].

    Each with its landmarks, float32 [68, 2]. The first and the last frame stand still. An alpha
    channel, [H, W, 4], moves with the picture.
    """
    height, width = picture.shape[:2]
    motion = HeadMotion(points, width, height)
    lids = EyeLids(np.ascontiguousarray(picture[..., :3]), points)
    closing = {
        start + number: part for start in _BLINKS_AT for number, part in enumerate(CLOSED_PARTS)
    }
    for number, part in enumerate(np.linspace(0, 1, FRAME_COUNT)):
        closed = closing.get(number, 0.0)
        shown = np.dstack([lids.closed(closed), picture[..., 3:]])
        moved = motion.moved(lids.moved(points, closed), float(part))
        yield warped(shown, motion.sources(float(part))), moved
