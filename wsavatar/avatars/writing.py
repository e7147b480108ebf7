"""Writing the avatar folder: complete, or not at all."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from wsavatar.avatars.format import (
    FORMAT_VERSION,
    ID_PATTERN,
    AvatarError,
    AvatarFile,
    read_avatar_file,
)
from wsavatar.avatars.landmarks import check_landmarks
from wsavatar.avatars.whole_file import written_whole
from wsavatar.media import jpeg
from wsavatar.media.video import VideoError
from wsavatar.media.video_kinds import MP4
from wsavatar.media.video_pictures import GROUP_FRAMES
from wsavatar.media.video_writer import VideoWriter

__all__ = ["UNFINISHED", "check_new_id", "rename_avatar", "write_avatar"]

_WORDS = {"name", "description", "license", "bbox_shift", "extra_margin"}
_WORDS |= {"voice", "language", "instructions", "greeting"}
_ALPHA = "alpha.mp4"
UNFINISHED = ".making-"
"""How the names of folders begin in which avatars are being made."""
_OPAQUE = 250
"""Levels of alpha from which on nothing is seen through a picture."""
_IDLE_CRF = 14  # nearly lossless: every frame is made from this video
_IDLE_KIND = replace(MP4, video_options={"preset": "veryfast"})  # a third of the medium one's time


def check_new_id(directory: Path, id: str, *, overwrite: bool = False) -> None:
    """Raise AvatarError unless an avatar of this id may be written into ``directory``."""
    if not re.fullmatch(ID_PATTERN, id):
        raise AvatarError(f"id {id[:64]!r}: small letters, digits, - and _ only, 64 at most")
    if (directory / id).exists() and not overwrite:
        raise AvatarError(
            f"{directory / id}: exists already; choose another id, or replace it (prepare --force)"
        )


def write_avatar(
    directory: Path,
    id: str,
    name: str,
    frames: Iterable[np.ndarray],
    fps: float | Fraction,
    landmarks: Sequence[np.ndarray] | np.ndarray,
    description: str = "",
    license: str = "",
    *,
    bbox_shift: int | None = None,
    extra_margin: int | None = None,
    overwrite: bool = False,
    prepare: Callable[[Path], None] | None = None,
) -> Path:
    """Write the avatar folder ``directory/id`` and return it.

    ``frames`` are uint8 [H, W, 3] RGB, mouth at rest, or [H, W, 4] with an alpha channel that says
    where the person is; ``landmarks`` float [n, 68, 2], one for each frame, read after the last of
    them. The folder appears complete or not at all: ``prepare`` is called with it before, and what
    that raises leaves nothing. With ``overwrite`` an avatar of the same id is replaced, and what is
    not given stays as it was: its voice, language, instructions and greeting, and others that are
    empty or None here. Raises AvatarError.
    """
    check_new_id(directory, id, overwrite=overwrite)
    target = directory / id
    building = target
    given = {
        "name": name,
        "description": description,
        "license": license,
        "bbox_shift": bbox_shift,
        "extra_margin": extra_margin,
    }
    words = {"name": id} | _words_of(target)
    words |= {key: value for key, value in given.items() if value not in (None, "")}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{UNFINISHED}{id}-", dir=directory) as temporary:
            building = Path(temporary) / id
            building.mkdir(mode=0o755)
            _write_files(building, target, frames, Fraction(fps), landmarks, words)
            if prepare is not None:
                prepare(building)
            return _move_in(building, directory, overwrite=overwrite)
    except VideoError as error:  # of the file that the frames are read from, or of idle.mp4
        raise AvatarError(str(error).replace(str(building), str(target))) from error
    except OSError as error:
        raise AvatarError(f"{target}: cannot be written ({error.strerror})") from error


def _write_files(
    folder: Path,
    target: Path,
    frames: Iterable[np.ndarray],
    fps: Fraction,
    landmarks: Sequence[np.ndarray] | np.ndarray,
    words: Mapping[str, object],
) -> None:
    """All of the avatar's files into ``folder``. Errors name ``target``."""
    rate = fps.limit_denominator(1001)
    width, height, count, has_alpha = _write_pictures(folder, target, frames, rate)
    points = np.round(np.asarray(landmarks, dtype=np.float64), 1)
    check_landmarks(points, width, height, str(target))
    if count != len(points):
        raise AvatarError(f"{target}: {count} frames, but {len(points)} of landmarks")
    avatar = _checked_file(
        target,
        {
            "format": FORMAT_VERSION,
            "id": target.name,
            "video": "idle.mp4",
            "poster": "poster.jpg",
            "alpha": _ALPHA if has_alpha else None,
            "fps": float(rate),
            "width": width,
            "height": height,
            "frame_count": count,
            "landmarks": "landmarks.json",
        }
        | dict(words),
    )
    rows = ",\n".join(json.dumps(frame, separators=(",", ":")) for frame in points.tolist())
    (folder / "landmarks.json").write_text(f"[\n{rows}\n]\n", encoding="utf-8")
    (folder / "avatar.json").write_text(_as_text(avatar), encoding="utf-8")


def _words_of(folder: Path) -> dict[str, object]:
    """What people wrote of the avatar in ``folder``; nothing where there is none, or an invalid."""
    if not folder.exists():
        return {}
    try:
        return read_avatar_file(folder).model_dump(include=_WORDS)
    except AvatarError:
        return {}


def _move_in(folder: Path, directory: Path, *, overwrite: bool = False) -> Path:
    """Move a complete avatar folder into ``directory``; returns its path. Raises AvatarError.

    A replaced avatar is kept beside it, under a name that ends in ``.replaced``.
    """
    target = directory / folder.name
    check_new_id(directory, folder.name, overwrite=overwrite)
    aside = folder.with_name(f"{folder.name}.replaced")
    try:
        if target.exists():
            target.rename(aside)
        try:
            folder.rename(target)
        except OSError:
            if aside.exists():
                aside.rename(target)
            raise
    except OSError as error:
        raise AvatarError(f"{target}: cannot be written ({error.strerror})") from error
    return target


def rename_avatar(folder: Path, name: str) -> None:
    """Write another name into ``avatar.json``, completely or not at all. Raises AvatarError."""
    renamed = _checked_file(folder, read_avatar_file(folder).model_dump() | {"name": name})
    try:
        with written_whole(folder / "avatar.json") as unfinished:
            unfinished.write_text(_as_text(renamed), encoding="utf-8")
    except OSError as error:
        raise AvatarError(f"{folder}: cannot be written ({error.strerror})") from error


def _as_text(avatar: AvatarFile) -> str:
    return avatar.model_dump_json(indent=2, exclude_defaults=False) + "\n"


def _checked_file(target: Path, fields: Mapping[str, object]) -> AvatarFile:
    try:
        return AvatarFile.model_validate(fields)
    except ValidationError as error:
        raise AvatarError(f"{target}: {_problem(error)}") from error


def _problem(error: ValidationError) -> str:
    """The first problem: its place, the value, what it should be."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"]) or "file"
    return f"{where} is {str(problem['input'])[:60]!r}: {problem['msg']}"


def _write_pictures(
    folder: Path, target: Path, frames: Iterable[np.ndarray], fps: Fraction
) -> tuple[int, int, int, bool]:
    """Write idle.mp4, poster.jpg, and where anything is transparent alpha.mp4. Returns the video's
    own width, height and frame count, and whether there is an alpha.mp4."""
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise AvatarError(f"{target}: an avatar needs at least one frame")
    height, width, channels = first.shape
    least = 255
    with ExitStack() as files:
        open_file = partial(
            VideoWriter,
            width=width,
            height=height,
            fps=fps,
            crf=_IDLE_CRF,
            group_frames=GROUP_FRAMES,
            kind=_IDLE_KIND,
        )
        video = files.enter_context(open_file(folder / "idle.mp4"))
        alpha = files.enter_context(open_file(folder / _ALPHA)) if channels == 4 else None
        for picture in chain([first], pictures):
            video.write(picture[..., :3])
            if alpha is not None:
                alpha.write(picture[..., 3:].repeat(3, axis=2))
                least = min(least, int(picture[..., 3].min()))
    if alpha is not None and least >= _OPAQUE:
        (folder / _ALPHA).unlink()
    (folder / "poster.jpg").write_bytes(jpeg.encode(first[..., :3], 90))
    size = width + width % 2, height + height % 2
    return *size, video.frame_count, least < _OPAQUE
