"""Orders for videos: from a folder of sound files, or from a list with a JSON object a line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wsavatar.avatars.background import PICTURE, default_name
from wsavatar.avatars.format import ID_PATTERN
from wsavatar.errors import WsavatarError
from wsavatar.videos.sources import MAX_TEXT_CHARS
from wsavatar.videos.summary import Failed

__all__ = ["MAX_ORDERS", "Order", "OrderError", "avatar_named", "of_folder", "of_list"]

MAX_ORDERS = 10_000
_MAX_LINE_CHARS = 8 * MAX_TEXT_CHARS
_SOUND = frozenset(
    ".aac .ac3 .aif .aiff .amr .caf .flac .m4a .mka .mkv .mov .mp3 .mp4 .oga .ogg .opus .w64 .wav "
    ".webm .wma".split()
)


class OrderError(WsavatarError, ValueError):
    """An order that cannot be carried out; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Order:
    """A video to make: of ``text``, or of the sound of ``audio``. Empty: the default's.

    ``avatar``: an id, or the photo or video of which one is to be made. ``background``: its name,
    as `wsavatar.avatars.background` has it, or a picture.
    """

    output: Path
    text: str = ""
    audio: Path | None = None
    avatar: str | Path = ""
    voice: str = ""
    background: str | Path = ""


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = ""
    audio: str = ""
    avatar: str = ""
    voice: str = ""
    background: str = ""
    output: str = Field(min_length=1)


def of_folder(folder: Path, outputs: Path, suffix: str) -> list[Order]:
    """One for each sound file of ``folder``, by name. Raises OrderError where there is none."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SOUND)
    if not files:
        raise OrderError(f"{folder}: holds no sound file ({', '.join(sorted(_SOUND))})")
    if len(files) > MAX_ORDERS:
        raise OrderError(f"{folder}: holds {len(files)} sound files; at most {MAX_ORDERS} at once")
    taken: set[str] = set()
    orders = []
    for path in files:
        name = path.stem if path.stem not in taken else path.name
        taken.add(name)
        orders.append(Order(outputs / f"{name}{suffix}", audio=path))
    return orders


def avatar_named(name: str, folder: Path) -> str | Path:
    """An avatar's id as it is; of a file's name, its path in ``folder``.

    A file's name has a dot or a folder in it, which no id has.
    """
    is_file = not re.fullmatch(ID_PATTERN, name) and re.search(r"[./\\]", name)
    return folder / name if is_file else name


def _background_named(name: str, folder: Path) -> str | Path:
    """A background's name as it is; of a picture's file, its path in ``folder``."""
    is_file = default_name(name) == PICTURE and name.lower() != PICTURE and not name.startswith("#")
    return folder / name if is_file and re.search(r"[./\\]", name) else name


def of_list(lines: TextIO, name: str, files: Path, outputs: Path) -> Sequence[Order | Failed]:
    """One for each line that is not blank: ``{"text": …, "output": …}``, with ``audio`` in place of
    ``text``, ``avatar``, ``voice`` and ``background`` where wanted.

    ``avatar`` and ``background`` may be files, which, as ``audio``, are relative to ``files``;
    ``output`` is relative to ``outputs``. A line that is no order is a failure of its own. Raises
    OrderError for a list that is empty or too long.
    """
    orders: list[Order | Failed] = []
    for number, line in _lines(lines, name):
        if len(orders) == MAX_ORDERS:
            raise OrderError(f"{name}: has over {MAX_ORDERS} lines; split it")
        try:
            orders.append(_order(line, files, outputs))
        except OrderError as error:
            orders.append(Failed(f"{name}:{number}", str(error)))
    if not orders:
        raise OrderError(f"{name}: has no line")
    return orders


def _lines(lines: TextIO, name: str) -> Iterator[tuple[int, str]]:
    number = 0
    while line := lines.readline(_MAX_LINE_CHARS + 1):
        number += 1
        if len(line) > _MAX_LINE_CHARS:
            raise OrderError(f"{name}:{number}: a line may have {_MAX_LINE_CHARS} characters")
        if line.strip():
            yield number, line


def _order(line: str, files: Path, outputs: Path) -> Order:
    try:
        said = _Line.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise OrderError(f"{where + ': ' if where else ''}{first['msg']}") from error
    if bool(said.text) == bool(said.audio):
        raise OrderError('it needs either "text" or "audio"')
    return Order(
        outputs / said.output,
        said.text,
        files / said.audio if said.audio else None,
        avatar_named(said.avatar, files),
        said.voice,
        _background_named(said.background, files),
    )
