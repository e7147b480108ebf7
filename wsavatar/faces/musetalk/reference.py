"""Which frame shows the model a mouth at rest. Pure arithmetic on iBUG-68 landmarks."""

from __future__ import annotations

import numpy as np

__all__ = ["mouth_references"]

_AT_REST = 0.03  # of the outer eye corners' distance: lips that close move less
_CLOSED = 0.05  # of the frames: the most closed mouths


def mouth_references(landmarks: np.ndarray) -> np.ndarray:
    """For each frame of landmarks [n, 68, 2] the frame that shows its mouth at rest: int [n].

    The frame itself where its inner lips are about as close as they ever are; else the nearest in
    time of which that is true, because a head turns little meanwhile. Official MuseTalk takes each
    frame's own, and a mouth that is open in the video shines through.
    """
    gap = np.linalg.norm(landmarks[:, 61:64] - landmarks[:, [67, 66, 65]], axis=2).mean(axis=1)
    eyes = np.linalg.norm(landmarks[:, 45] - landmarks[:, 36], axis=1)
    opening = gap / np.maximum(eyes, 1.0)
    at_rest = np.flatnonzero(opening <= np.quantile(opening, _CLOSED) + _AT_REST)
    frames = np.arange(len(landmarks))
    after = at_rest[np.searchsorted(at_rest, frames).clip(0, len(at_rest) - 1)]
    before = at_rest[(np.searchsorted(at_rest, frames, side="right") - 1).clip(0)]
    return np.asarray(np.where(after - frames < frames - before, after, before))
