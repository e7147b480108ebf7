"""Interface of landmark detectors: from a picture to the 68 points of each face in it.

Pure data; nothing here knows a network, a file or an avatar.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

__all__ = ["Face", "LandmarkDetector"]


@dataclass(frozen=True, slots=True)
class Face:
    """One face in a picture.

    ``points`` are the iBUG-68 landmarks, float32 [68, 2], x and y in pixels of the picture; those
    of a face at the border may lie outside. ``score``: from 0 to 1, how sure it is a face whose
    points fit.
    """

    points: np.ndarray
    score: float

    @property
    def size(self) -> float:
        """Longer side of the points' bounding box, in pixels."""
        return float(np.ptp(self.points, axis=0).max())


class LandmarkDetector(Protocol):
    """Finds faces. Thread-safe. Pictures are uint8 [H, W, 3] RGB, upright."""

    def find(self, picture: np.ndarray, /) -> list[Face]:
        """All faces of a picture, the largest first; empty: there is none."""

    def follow(self, picture: np.ndarray, face: Face, /) -> Face | None:
        """``face`` of the picture before, in this one; None: it is lost.

        Faster than `find`, and always the same person while two faces do not cross.
        """
