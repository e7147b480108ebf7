"""An avatar's landmarks: reading them, and whether they can be a face in its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from wsavatar.avatars.format import MAX_FRAMES, AvatarError, AvatarFile, Points, read_bounded

__all__ = ["check_landmarks", "read_landmarks"]

_NORMALISED_BELOW = 2.0
_INNER = slice(27, 68)  # nose, eyes and mouth
_OUTSIDE = 0.25  # of the face's size
_EYES, _NOSE = ("the eyes", slice(36, 48)), ("the nose's base", slice(31, 36))
_MOUTH, _CHIN = ("the mouth", slice(48, 68)), ("the chin", slice(8, 9))
_ORDER = (
    (_EYES, "above", _NOSE, 1),
    (_NOSE, "above", _MOUTH, 1),
    (_MOUTH, "above", _CHIN, 1),
    (("the eye of points 36-41", slice(36, 42)), "left of", ("that of 42-47", slice(42, 48)), 0),
)
_POINTS = TypeAdapter(
    Annotated[Points, Field(min_length=1, max_length=MAX_FRAMES)],
    config=ConfigDict(allow_inf_nan=False),
)


def read_landmarks(folder: Path, avatar: AvatarFile) -> np.ndarray:
    """The avatar's landmarks, float32 [frame_count, 68, 2]. Raises AvatarError."""
    points = avatar.landmarks
    source = folder / (points if isinstance(points, str) else "avatar.json")
    if isinstance(points, str):
        try:
            points = _POINTS.validate_json(read_bounded(folder, points))
        except ValidationError as error:
            problem = error.errors(include_input=False)[0]
            where = "".join(f"[{part}]" for part in problem["loc"])
            raise AvatarError(f"{source}: landmarks{where}: {problem['msg']}") from error
    landmarks = np.asarray(points, dtype=np.float32)
    if len(landmarks) != avatar.frame_count:
        raise AvatarError(
            f"{source}: {len(landmarks)} frames of landmarks, avatar.json says {avatar.frame_count}"
        )
    check_landmarks(landmarks, avatar.width, avatar.height, str(source))
    return landmarks


def check_landmarks(landmarks: np.ndarray, width: int, height: int, source: str) -> None:
    """Raise AvatarError unless every frame's points [n, 68, 2] can be a face in the picture.

    Finite pixels; eyes, nose and mouth inside the picture, and the jaw not far out of it; the eyes
    above the nose, that above the mouth, that above the chin; the first eye left of the second.
    """
    if landmarks.ndim != 3 or landmarks.shape[1:] != (68, 2) or not len(landmarks):
        raise AvatarError(f"{source}: landmarks must be [n, 68, 2], not {list(landmarks.shape)}")
    wrong = np.argwhere(~np.isfinite(landmarks))
    if len(wrong):
        frame, point, axis = (int(index) for index in wrong[0])
        value = landmarks[frame, point, axis]
        raise AvatarError(f"{source}: frame {frame}, point {point}: {'xy'[axis]} is {value}")
    if landmarks.max() <= _NORMALISED_BELOW:
        raise AvatarError(
            f"{source}: its greatest number is {landmarks.max():g}: landmarks must be pixels, not "
            f"parts of the picture; multiply x by {width} and y by {height}"
        )
    _check_inside(landmarks, width, height, source)
    _check_order(landmarks, source)


def _check_inside(landmarks: np.ndarray, width: int, height: int, source: str) -> None:
    size = np.array([width, height])
    # A jaw may reach out of a close-up; so may brows.
    margin = _OUTSIDE * np.ptp(landmarks, axis=1, keepdims=True) * np.ones((1, 68, 1))
    margin[:, _INNER] = 0
    wrong = np.argwhere((landmarks < -margin) | (landmarks > size + margin))
    if len(wrong):
        frame, point, axis = (int(index) for index in wrong[0])
        raise AvatarError(
            f"{source}: frame {frame}, point {point}: {'xy'[axis]} is "
            f"{landmarks[frame, point, axis]:.1f}, outside the {width}x{height} picture"
        )


def _check_order(landmarks: np.ndarray, source: str) -> None:
    for upper, relation, lower, axis in _ORDER:
        near, far = (landmarks[:, points, axis].mean(axis=1) for _, points in (upper, lower))
        wrong = np.flatnonzero(near >= far)
        if len(wrong):
            frame = int(wrong[0])
            raise AvatarError(
                f"{source}: frame {frame}: {upper[0]} ({'xy'[axis]} {near[frame]:.1f}) must be "
                f"{relation} {lower[0]} ({'xy'[axis]} {far[frame]:.1f}); the iBUG-68 points are "
                "0-16 jaw, 17-26 brows, 27-35 nose, 36-47 eyes, 48-67 mouth, of an upright face"
            )
