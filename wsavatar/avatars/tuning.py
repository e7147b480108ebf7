"""The file beside an avatar with what a model learned of the person: bytes that only it reads."""

from __future__ import annotations

from pathlib import Path

from wsavatar.avatars.format import AvatarError, file_in
from wsavatar.avatars.whole_file import written_whole

__all__ = ["TUNING_FILE", "read_tuning_file", "write_tuning_file"]

TUNING_FILE = "finetuned.safetensors"
_MAX_BYTES = 4 * 1024 * 1024


def read_tuning_file(folder: Path) -> bytes | None:
    """Its bytes; None: the avatar has no such file. Raises AvatarError."""
    if not (folder / TUNING_FILE).exists():
        return None
    path = file_in(folder, TUNING_FILE)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise AvatarError(f"{path}: over {_MAX_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise AvatarError(f"{path}: cannot be read ({error})") from error


def write_tuning_file(folder: Path, data: bytes) -> Path:
    """Write it, completely or not at all. Raises AvatarError."""
    path = folder / TUNING_FILE
    if len(data) > _MAX_BYTES:
        raise AvatarError(f"{path}: would be over {_MAX_BYTES >> 20} MiB")
    try:
        with written_whole(path) as unfinished:
            unfinished.write_bytes(data)
    except OSError as error:
        raise AvatarError(f"{path}: cannot be written ({error})") from error
    return path
