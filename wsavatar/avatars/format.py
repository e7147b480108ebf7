"""The avatar folder: what may stand in it, reading it with distrust, writing it whole or not.

``avatars/<id>/`` holds ``avatar.json``, the idle video, the landmarks and perhaps a poster; see
docs/avatars.md. This module knows no model and no cache.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from wsavatar.errors import WsavatarError
from wsavatar.media import jpeg
from wsavatar.media.video import VideoError, VideoWriter

__all__ = [
    "FORMAT_VERSION",
    "ID_PATTERN",
    "AvatarError",
    "AvatarFile",
    "read_avatar_file",
    "read_landmarks",
    "write_avatar",
]

FORMAT_VERSION = 1
ID_PATTERN = "^[a-z0-9][a-z0-9_-]{0,63}$"
MAX_FRAMES = 3000
_MAX_JSON_BYTES = 16 * 1024 * 1024
_IDLE_CRF = 15  # every frame ever shown is made from this video: nearly lossless

_FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
_Points = list[Annotated[list[tuple[float, float]], Field(min_length=68, max_length=68)]]
_POINTS = TypeAdapter(
    Annotated[_Points, Field(min_length=1, max_length=MAX_FRAMES)],
    config=ConfigDict(allow_inf_nan=False),
)


class AvatarError(WsavatarError, ValueError):
    """An avatar is unknown, unfit or unreadable; the message names it and says what to do."""


class AvatarFile(BaseModel):
    """The content of ``avatar.json``. File names are plain names: no path leaves the folder."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal[1]
    id: Annotated[str, Field(pattern=ID_PATTERN)]
    name: Annotated[str, Field(min_length=1, max_length=100)]
    description: Annotated[str, Field(max_length=2000)] = ""
    video: _FileName = "idle.mp4"
    poster: _FileName | None = None
    fps: Annotated[float, Field(ge=5, le=60)]
    width: Annotated[int, Field(ge=128, le=4096, multiple_of=2)]
    height: Annotated[int, Field(ge=128, le=4096, multiple_of=2)]
    frame_count: Annotated[int, Field(ge=1, le=MAX_FRAMES)]
    landmarks: _FileName | _Points
    """iBUG-68 points of every frame in pixels, [n][68][2]; or the JSON file that holds them."""
    bbox_shift: Annotated[int, Field(ge=-64, le=64)] = 0
    """v1.0 models only: moves the crop's middle, in pixels downwards."""
    license: Annotated[str, Field(max_length=10_000)] = ""


def read_avatar_file(folder: Path) -> AvatarFile:
    """Read and validate ``folder/avatar.json``. Raises AvatarError naming every wrong field."""
    data = _read_bounded(folder, "avatar.json")
    try:
        avatar = AvatarFile.model_validate_json(data)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'][:2]) or 'file'}: {problem['msg']}"
            for problem in error.errors(include_input=False)[:5]
        )
        raise AvatarError(f"{folder / 'avatar.json'}: {problems}") from error
    if avatar.id != folder.name:
        raise AvatarError(
            f"{folder / 'avatar.json'}: id {avatar.id!r} must be the folder's name, {folder.name!r}"
        )
    return avatar


def read_landmarks(folder: Path, avatar: AvatarFile) -> np.ndarray:
    """The avatar's landmarks, float32 [frame_count, 68, 2]. Raises AvatarError."""
    points = avatar.landmarks
    source = folder / (points if isinstance(points, str) else "avatar.json")
    if isinstance(points, str):
        try:
            points = _POINTS.validate_json(_read_bounded(folder, points))
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
    """Raise AvatarError unless they are finite [n, 68, 2] points in or near the picture."""
    if landmarks.ndim != 3 or landmarks.shape[1:] != (68, 2) or not len(landmarks):
        raise AvatarError(f"{source}: landmarks must be [n, 68, 2], not {list(landmarks.shape)}")
    if not np.isfinite(landmarks).all():
        raise AvatarError(f"{source}: landmarks hold numbers that are not finite")
    size = np.array([width, height])
    if (landmarks < -size).any() or (landmarks > 2 * size).any():
        raise AvatarError(f"{source}: landmarks lie far outside the {width}x{height} picture")


def file_in(folder: Path, name: str) -> Path:
    """``folder/name`` where it is a regular file that really lies in the folder, else AvatarError.

    A symbolic link may not lead out of it either.
    """
    path = folder / name
    if not path.is_file():
        raise AvatarError(f"{path}: no such file")
    if path.resolve().parent != folder.resolve():
        raise AvatarError(f"{path}: leads out of the avatar's folder")
    return path


def _read_bounded(folder: Path, name: str) -> bytes:
    path = file_in(folder, name)
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise AvatarError(f"{path}: over {_MAX_JSON_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise AvatarError(f"{path}: cannot be read ({error})") from error


def write_avatar(
    directory: Path,
    id: str,
    name: str,
    frames: Iterable[np.ndarray],
    fps: float | Fraction,
    landmarks: np.ndarray,
    description: str = "",
    license: str = "",
    *,
    overwrite: bool = False,
) -> Path:
    """Write the avatar folder ``directory/id`` and return it.

    ``frames`` are uint8 [H, W, 3] RGB, mouth at rest; ``landmarks`` float [n, 68, 2], one for each
    frame. The folder appears complete or not at all. Raises AvatarError.
    """
    if not re.fullmatch(ID_PATTERN, id):
        raise AvatarError(f"id {id[:64]!r}: small letters, digits, - and _ only, 64 at most")
    rate = Fraction(fps).limit_denominator(1001)
    target = directory / id
    if target.exists() and not overwrite:
        raise AvatarError(f"{target}: exists already")
    landmarks = np.round(np.asarray(landmarks, dtype=np.float64), 1)
    directory.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{id}-", dir=directory))
    try:
        width, height, count = _write_pictures(building, frames, rate)
        if count != len(landmarks):
            raise AvatarError(f"{id}: {count} frames, but {len(landmarks)} of landmarks")
        check_landmarks(landmarks, width, height, id)
        avatar = _checked_file(
            format=FORMAT_VERSION,
            id=id,
            name=name,
            description=description,
            video="idle.mp4",
            poster="poster.jpg",
            fps=float(rate),
            width=width,
            height=height,
            frame_count=count,
            landmarks="landmarks.json",
            license=license,
        )
        rows = ",\n".join(
            json.dumps(points, separators=(",", ":")) for points in landmarks.tolist()
        )
        (building / "landmarks.json").write_text(f"[\n{rows}\n]\n", encoding="utf-8")
        text = avatar.model_dump_json(indent=2, exclude_defaults=False)
        (building / "avatar.json").write_text(text + "\n", encoding="utf-8")
        building.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        os.replace(building, target)
    except (OSError, VideoError) as error:
        raise AvatarError(f"{target}: cannot be written ({error})") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def _checked_file(**fields: object) -> AvatarFile:
    try:
        return AvatarFile.model_validate(fields)
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]
        raise AvatarError(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error


def _write_pictures(
    folder: Path, frames: Iterable[np.ndarray], fps: Fraction
) -> tuple[int, int, int]:
    """Write idle.mp4 and poster.jpg. Returns the video's own width, height and frame count."""
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise AvatarError("an avatar needs at least one frame")
    height, width = first.shape[:2]
    with VideoWriter(
        folder / "idle.mp4", width=width, height=height, fps=fps, crf=_IDLE_CRF
    ) as video:
        video.write(first)
        for picture in pictures:
            video.write(picture)
    (folder / "poster.jpg").write_bytes(jpeg.encode(first, 90))
    return width + width % 2, height + height % 2, video.frame_count
