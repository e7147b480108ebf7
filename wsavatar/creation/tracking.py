"""Follows one person's face through a video: which of several, lost and found again.

Knows detectors by their interface, and neither files nor avatars' folders.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from wsavatar.avatars.format import AvatarError
from wsavatar.avatars.landmarks import check_landmarks
from wsavatar.landmarks.base import Face, LandmarkDetector

__all__ = ["FaceFollower", "choose_face", "filled", "has_moved", "is_turned", "whole"]

_STILL = 0.015
"""Of the face's size. Two frames apart, points that move less are where their mean says, to 0.3 %
of that size."""


def choose_face(faces: Sequence[Face], number: int | None) -> tuple[Face, str]:
    """The wanted one of ``faces``, the largest first, and a note where there are several, else "".

    ``number``, from 1, must be among them; None: the largest.
    """
    taken = number or 1
    others = [str(other) for other in range(1, len(faces) + 1) if other != taken]
    if not others:
        return faces[0], ""
    which = "the largest was taken" if number is None else f"number {number} was taken"
    options = "the other" if len(others) == 1 else "another"
    note = f"{len(faces)} faces: {which}; --face {' or '.join(others[:4])} takes {options}."
    return faces[taken - 1], note


def whole(faces: Iterable[Face], picture: np.ndarray) -> list[Face]:
    """Those of ``faces`` that an avatar can have: upright, and hardly out of the picture."""
    height, width = picture.shape[:2]
    return [face for face in faces if _is_whole(face, width, height)]


def _is_whole(face: Face, width: int, height: int) -> bool:
    try:
        check_landmarks(face.points[None], width, height, "")
    except AvatarError:
        return False
    return True


def is_turned(detector: LandmarkDetector, picture: np.ndarray) -> bool:
    """Whether there is a whole face in the picture once it is turned by quarters."""
    for quarters in (1, 3, 2):
        turned = np.ascontiguousarray(np.rot90(picture, quarters))
        if whole(detector.find(turned), turned):
            return True
    return False


class FaceFollower:
    """One person's face, picture after picture."""

    def __init__(self, detector: LandmarkDetector, face: Face) -> None:
        self._detector = detector
        self._last = face
        self._lost = False

    def find(self, picture: np.ndarray) -> Face | None:
        """The face in the next picture; None where it is not to be seen."""
        followed = None if self._lost else self._detector.follow(picture, self._last)
        if followed is None:
            followed = self._again(self._detector.find(picture))
        found = next(iter(whole([followed] if followed else [], picture)), None)
        self._lost = found is None
        if found is not None:
            self._last = found
        return found

    def _again(self, faces: Sequence[Face]) -> Face | None:
        """Of the faces found, the one that is where the lost one was, and about as large."""
        centre, size = self._last.points.mean(axis=0), self._last.size
        near = [
            (float(np.linalg.norm(face.points.mean(axis=0) - centre)), face)
            for face in faces
            if 0.5 < face.size / size < 2
        ]
        if not near:
            return None
        distance, face = min(near, key=lambda pair: pair[0])
        return face if distance < size else None


def has_moved(before: np.ndarray, face: Face) -> bool:
    """Whether any of its points, float [68, 2], moved much since."""
    return bool(np.linalg.norm(face.points - before, axis=1).max() > _STILL * face.size)


def filled(points: Sequence[np.ndarray | None]) -> np.ndarray:
    """Points of every frame, float32 [n, 68, 2]: those of frames without a face lie between their
    neighbours', or are those of the nearest at the ends."""
    seen = [i for i, found in enumerate(points) if found is not None]
    known = np.stack([found for found in points if found is not None]).reshape(len(seen), -1)
    every = np.arange(len(points))
    columns = [np.interp(every, seen, known[:, column]) for column in range(known.shape[1])]
    return np.stack(columns, axis=1).reshape(len(points), 68, 2).astype(np.float32)
