"""The avatar folder: its format, and reading with validation.

``avatars/<id>/`` has ``avatar.json``, the idle video, the landmarks and optionally a poster; see
docs/avatars.md. This module knows no model and no cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wsavatar.errors import WsavatarError

__all__ = [
    "FORMAT_VERSION",
    "ID_PATTERN",
    "MAX_FPS",
    "MAX_FRAMES",
    "MAX_SIDE",
    "MIN_FPS",
    "MIN_SIDE",
    "AvatarError",
    "AvatarFile",
    "Points",
    "file_in",
    "read_avatar_file",
    "read_bounded",
]

FORMAT_VERSION = 1
ID_PATTERN = "^[a-z0-9][a-z0-9_-]{0,63}$"
MAX_FRAMES = 3000
MIN_FPS, MAX_FPS = 5, 60
MIN_SIDE, MAX_SIDE = 128, 4096
_MAX_JSON_BYTES = 16 * 1024 * 1024
_FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Points = list[Annotated[list[tuple[float, float]], Field(min_length=68, max_length=68)]]


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
    landmarks: _FileName | Points
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
    data = read_bounded(folder, "avatar.json")
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


def read_bounded(folder: Path, name: str) -> bytes:
    path = file_in(folder, name)
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise AvatarError(f"{path}: over {_MAX_JSON_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise AvatarError(f"{path}: cannot be read ({error.strerror})") from error
