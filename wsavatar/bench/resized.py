"""Writes an avatar scaled to another size, for measurements at 720p and the like.

The result is an ordinary avatar folder.
"""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from wsavatar.avatars.format import read_avatar_file
from wsavatar.avatars.landmarks import read_landmarks
from wsavatar.avatars.writing import write_avatar
from wsavatar.bench.report import BenchError
from wsavatar.media.video import read_video

__all__ = ["parse_size", "write_resized"]

CYCLE_S = 3


def parse_size(text: str) -> tuple[int, int]:
    """``1280x720`` to (1280, 720). Raises BenchError."""
    match = re.fullmatch(r"(\d{3,4})x(\d{3,4})", text)
    width, height = (int(part) for part in match.groups()) if match else (0, 0)
    if not (128 <= width <= 4096 and 128 <= height <= 4096) or width % 2 or height % 2:
        raise BenchError(
            f"--avatar-size {text}: WIDTHxHEIGHT, even numbers from 128 to 4096, as 1280x720"
        )
    return width, height


def write_resized(folder: Path, width: int, height: int, directory: Path) -> str:
    """Write the first 3 s of the avatar in ``folder`` at another size into ``directory``.

    The picture is scaled to fit and padded with its edges; landmarks are moved with it. Returns the
    new avatar's id, which depends on the arguments only. Raises AvatarError and VideoError.
    """
    avatar = read_avatar_file(folder)
    landmarks = read_landmarks(folder, avatar)
    _, frames = read_video(folder / avatar.video, max_frames=round(CYCLE_S * avatar.fps))
    scale = min(width / avatar.width, height / avatar.height)
    inner = round(avatar.width * scale), round(avatar.height * scale)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    borders = top, height - inner[1] - top, left, width - inner[0] - left
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    pictures = (
        cv2.copyMakeBorder(
            cv2.resize(frame, inner, interpolation=interpolation), *borders, cv2.BORDER_REPLICATE
        )
        for frame in frames
    )
    moved = landmarks[: len(frames)] * (np.array(inner) / (avatar.width, avatar.height))
    moved = moved + (left, top)
    id = f"{avatar.id[:48]}-{width}x{height}"
    write_avatar(
        directory,
        id,
        f"{avatar.name} {width}x{height}",
        pictures,
        avatar.fps,
        moved,
        license=avatar.license,
    )
    return id
