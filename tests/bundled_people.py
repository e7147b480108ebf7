"""The bundled people as pictures with points: renders, so their points are known exactly."""

from __future__ import annotations

from functools import cache

import numpy as np

from wsavatar.avatars.format import read_avatar_file
from wsavatar.avatars.landmarks import read_landmarks
from wsavatar.media.video import read_video
from wsavatar.resources import resource_dir

__all__ = ["PEOPLE", "first_picture"]

PEOPLE = ("amara", "leo", "mei")


@cache
def first_picture(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The first frame of a bundled avatar, uint8 [H, W, 3] RGB, and its 68 points [68, 2]."""
    folder = resource_dir("avatars") / name
    file = read_avatar_file(folder)
    _, frames = read_video(folder / file.video, max_frames=1)
    return frames[0], read_landmarks(folder, file)[0]
