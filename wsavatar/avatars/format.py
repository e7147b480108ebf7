"""The avatar folder: its format, reading with validation, writing completely or not at all.

``avatars/<id>/`` has ``avatar.json``, the idle video, the landmarks and optionally a poster; see
docs/avatars.md. This module knows no model and no cache.
"""

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
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from wsavatar.avatars.whole_file import written_whole
from wsavatar.errors import WsavatarError
from wsavatar.media import jpeg
from wsavatar.media.video import VideoError
from wsavatar.media.video_kinds import MP4
from wsavatar.media.video_pictures import GROUP_FRAMES
from wsavatar.media.video_writer import VideoWriter

__all__ = [
    "FORMAT_VERSION",
    "ID_PATTERN",
    "AvatarError",
    "AvatarFile",
    "read_avatar_file",
    "read_landmarks",
    "rename_avatar",
    "write_avatar",
]

FORMAT_VERSION = 1
ID_PATTERN = "^[a-z0-9][a-z0-9_-]{0,63}$"
MAX_FRAMES = 3000
MIN_FPS, MAX_FPS = 5, 60
MIN_SIDE, MAX_SIDE = 128, 4096
_MAX_JSON_BYTES = 16 * 1024 * 1024
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
_WORDS = {"name", "description", "license", "bbox_shift", "extra_margin"}
_WORDS |= {"voice", "language", "instructions", "greeting"}
_ALPHA = "alpha.mp4"
UNFINISHED = ".making-"
"""How the names of folders begin in which avatars are being made."""
_OPAQUE = 250
"""Levels of alpha from which on nothing is seen through a picture."""
_IDLE_CRF = 14  # nearly lossless: every frame is made from this video
_IDLE_KIND = replace(MP4, video_options={"preset": "veryfast"})  # a third of the medium one's time

_FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
_Points = list[Annotated[list[tuple[float, float]], Field(min_length=68, max_length=68)]]
_POINTS = TypeAdapter(
    Annotated[_Points, Field(min_length=1, max_length=MAX_FRAMES)],
    config=ConfigDict(allow_inf_nan=False),
)


class AvatarError(WsavatarError, ValueError):
    """An avatar is unknown, unfit or unreadable; the message names it and says what to do."""


class AvatarFile(BaseModel):
    """The content of ``avatar.json``. File names are plain names, so no path leaves the folder."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal[1]
    id: Annotated[str, Field(pattern=ID_PATTERN)]
    name: Annotated[str, Field(min_length=1, max_length=100)]
    description: Annotated[str, Field(max_length=2000)] = ""
    video: _FileName = "idle.mp4"
    poster: _FileName | None = None
    alpha: _FileName | None = None
    """A video of the same frames in grey: white where the person is."""
    fps: Annotated[float, Field(ge=MIN_FPS, le=MAX_FPS)]
    width: Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE, multiple_of=2)]
    height: Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE, multiple_of=2)]
    frame_count: Annotated[int, Field(ge=1, le=MAX_FRAMES)]
    landmarks: _FileName | _Points
    """iBUG-68 points of every frame in pixels, [n][68][2]; or the JSON file with them."""
    bbox_shift: Annotated[int, Field(ge=-64, le=64)] = 0
    """v1.0 models only: moves the crop's middle, in pixels downwards."""
    extra_margin: Annotated[int, Field(ge=0, le=200)] | None = None
    """Pixels of the crop below the chin; None: as the model says."""
    license: Annotated[str, Field(max_length=10_000)] = ""
    voice: Annotated[str, Field(max_length=200)] = ""
    """The session's voice, unless another is configured or chosen."""
    language: Annotated[str, Field(pattern=r"^([A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*)?$")] = ""
    """Of the conversation, as "en" or "pt-BR"."""
    instructions: Annotated[str, Field(max_length=10_000)] = ""
    """For the language model: who the avatar is and how it speaks."""
    greeting: Annotated[str, Field(max_length=1000)] = ""
    """Said when a conversation begins."""


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


def file_in(folder: Path, name: str) -> Path:
    """``folder/name`` if it is a regular file inside the folder, else AvatarError.

    Also for a symbolic link that leads out of it.
    """
    path = folder / name
    try:
        if not path.is_file():
            raise AvatarError(f"{path}: no such file")
        if path.resolve().parent != folder.resolve():
            raise AvatarError(f"{path}: is outside the avatar's folder")
    except OSError as error:  # a folder that may not be looked into
        raise AvatarError(f"{path}: cannot be read ({error.strerror})") from error
    return path


def _read_bounded(folder: Path, name: str) -> bytes:
    path = file_in(folder, name)
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise AvatarError(f"{path}: over {_MAX_JSON_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise AvatarError(f"{path}: cannot be read ({error.strerror})") from error


def check_new_id(directory: Path, id: str, *, overwrite: bool = False) -> None:
    """Raise AvatarError unless an avatar of this id may be written into ``directory``."""
    if not re.fullmatch(ID_PATTERN, id):
        raise AvatarError(f"id {id[:64]!r}: small letters, digits, - and _ only, 64 at most")
    if (directory / id).exists() and not overwrite:
        raise AvatarError(
            f"{directory / id}: exists already; choose another id, or replace it (--force)"
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
    where the person is; ``landmarks`` float [n, 68, 2], one for each
    frame, read after the last of them. The folder appears complete or not at all: ``prepare`` is
    called with it before, and what that raises leaves nothing. With ``overwrite`` an avatar of the
    same id is replaced, and what is not given stays as it was: its voice, language, instructions
    and greeting, and others that are empty or None here. Raises AvatarError.
    """
    check_new_id(directory, id, overwrite=overwrite)
    rate = Fraction(fps).limit_denominator(1001)
    target = directory / id
    given = {
        "name": name,
        "description": description,
        "license": license,
        "bbox_shift": bbox_shift,
        "extra_margin": extra_margin,
    }
    words = _words_of(target) | {
        key: value for key, value in given.items() if value not in (None, "")
    }
    building = target
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{UNFINISHED}{id}-", dir=directory) as temporary:
            building = Path(temporary) / id
            building.mkdir(mode=0o755)
            width, height, count, has_alpha = _write_pictures(building, frames, rate)
            points = np.round(np.asarray(landmarks, dtype=np.float64), 1)
            check_landmarks(points, width, height, str(target))
            if count != len(points):
                raise AvatarError(f"{target}: {count} frames, but {len(points)} of landmarks")
            avatar = _checked_file(
                target,
                {
                    "format": FORMAT_VERSION,
                    "id": id,
                    "name": id,
                    "video": "idle.mp4",
                    "poster": "poster.jpg",
                    "alpha": _ALPHA if has_alpha else None,
                    "fps": float(rate),
                    "width": width,
                    "height": height,
                    "frame_count": count,
                    "landmarks": "landmarks.json",
                }
                | words,
            )
            _write_json(building, avatar, points)
            if prepare is not None:
                prepare(building)
            return move_avatar(building, directory, overwrite=overwrite)
    except VideoError as error:  # of the file that the frames are read from, or of idle.mp4
        raise AvatarError(str(error).replace(str(building), str(target))) from error
    except OSError as error:
        raise AvatarError(f"{target}: cannot be written ({error.strerror})") from error


def _words_of(folder: Path) -> dict[str, object]:
    """What people wrote of the avatar in ``folder``; nothing where there is none, or an invalid."""
    if not folder.exists():
        return {}
    try:
        return read_avatar_file(folder).model_dump(include=_WORDS)
    except AvatarError:
        return {}


def move_avatar(folder: Path, directory: Path, *, overwrite: bool = False) -> Path:
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


def _write_json(folder: Path, avatar: AvatarFile, points: np.ndarray) -> None:
    rows = ",\n".join(json.dumps(frame, separators=(",", ":")) for frame in points.tolist())
    (folder / "landmarks.json").write_text(f"[\n{rows}\n]\n", encoding="utf-8")
    (folder / "avatar.json").write_text(_as_text(avatar), encoding="utf-8")


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
    folder: Path, frames: Iterable[np.ndarray], fps: Fraction
) -> tuple[int, int, int, bool]:
    """Write idle.mp4, poster.jpg, and where anything is transparent alpha.mp4. Returns the video's
    own width, height and frame count, and whether there is an alpha.mp4."""
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise AvatarError("an avatar needs at least one frame")
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
