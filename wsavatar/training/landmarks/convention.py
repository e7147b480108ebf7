"""Where a point lies by convention: the renderer's vertices, and MediaPipe's face mesh.

Both name the same 68 points, but not the same places of a face: MediaPipe's jaw begins higher,
for one. The networks learn MediaPipe's places, because landmarks that people have are mostly from
there. The table was measured once, as the median over the faces of 17 people whose points from
MediaPipe were known, with the two sides of a face made alike.
"""

from __future__ import annotations

import numpy as np

__all__ = ["as_mediapipe"]

# fmt: off
_DIFFERENCE = np.array([
    (7, 104), (7, 24), (15, 51), (-26, -69), (-3, -8), (67, 62), (17, 11), (-21, -17),
    (0, 1), (21, -17), (-17, 11), (-67, 62), (3, -8), (26, -69), (-15, 51), (-7, 24),
    (-7, 104), (54, 62), (16, 22), (19, 26), (23, 27), (17, 26), (-17, 26), (-23, 27),
    (-19, 26), (-16, 22), (-54, 62), (0, 36), (0, -3), (0, -36), (0, 9), (6, 33),
    (18, 16), (0, 25), (-18, 16), (-6, 33), (-7, 6), (-15, 6), (-18, 1), (-24, -7),
    (-21, -7), (-29, -7), (24, -7), (18, 1), (15, 6), (7, 6), (29, -7), (21, -7),
    (-18, -4), (-29, 10), (1, 13), (0, 9), (-1, 13), (29, 10), (18, -4), (37, -7),
    (25, -2), (0, -1), (-25, -2), (-37, -7), (-9, -4), (-41, 5), (0, 7), (41, 5),
    (9, -4), (46, -8), (0, -2), (-46, -8),
]) / 1000
# fmt: on
"""Renderer minus MediaPipe: parts of the vector from the left eye's outer corner (36) to the
right's (45), and parts of that from the nose bridge (27) to the chin (8)."""


def as_mediapipe(points: np.ndarray) -> np.ndarray:
    """The renderer's points [68, 2] moved to MediaPipe's places, in any pose of the head."""
    across, down = points[45] - points[36], points[8] - points[27]
    moved: np.ndarray = points - _DIFFERENCE[:, :1] * across - _DIFFERENCE[:, 1:] * down
    return moved
