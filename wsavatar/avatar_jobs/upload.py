"""A client's file on its way to the disk, within limits. Blocking; call it on a thread.

Nothing that the client says of the file is trusted: its name becomes a plain one in a folder of its
own, its size is counted.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import time
from pathlib import Path

from wsavatar.avatar_jobs.watch import MEDIA_SUFFIXES
from wsavatar.avatars.format import AvatarError
from wsavatar.avatars.library import uploads_directory
from wsavatar.avatars.writing import UNFINISHED
from wsavatar.config import AvatarSettings
from wsavatar.errors import without_folders

__all__ = ["Upload", "clean_up", "open_upload"]

_PREFIX = ".upload-"
_GRAVE_PREFIX = ".deleted-"
_ABANDONED_S = 24 * 3600.0
_MAX_STEM = 50  # characters: at most 200 bytes


class Upload:
    """A file of ``size`` bytes that comes in pieces. `discard` it in the end, whatever happened."""

    def __init__(self, folder: Path, file_name: str, size: int) -> None:
        self.path = folder / _plain_name(file_name)
        self.size = size
        self.received = 0
        self._folder = folder
        self._file = self.path.open("xb")

    def append(self, offset: int, data: bytes) -> int:
        """Write the next piece, which has ``offset`` bytes before it; returns the bytes that are
        there. Raises AvatarError."""
        if offset != self.received:
            raise AvatarError(
                f"{self.path.name}: a piece is missing: {self.received} bytes came, and this one "
                f"is for {offset}"
            )
        if self.received + len(data) > self.size:
            raise AvatarError(f"{self.path.name}: more bytes came than the {self.size} announced")
        try:
            self._file.write(data)
        except OSError as error:
            raise AvatarError(f"the server cannot store it ({error.strerror})") from error
        self.received += len(data)
        return self.received

    def complete(self) -> Path:
        """The whole file. Raises AvatarError where something is missing."""
        if self.received < self.size:
            raise AvatarError(
                f"{self.path.name}: only {self.received} of {self.size} bytes came; send all of it"
            )
        try:
            self._file.close()
        except OSError as error:
            raise AvatarError(f"the server cannot store it ({error.strerror})") from error
        return self.path

    def told(self, text: str) -> str:
        """A message about the file without the server's paths."""
        return without_folders(text).replace("--face", "face")

    def discard(self) -> None:
        """Delete what is there."""
        with contextlib.suppress(OSError):
            self._file.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def open_upload(settings: AvatarSettings, file_name: str, size: int) -> Upload:
    """Begin to receive a client's file. Raises AvatarError."""
    directory, limit = uploads_directory(settings), settings.max_upload_mb << 20
    if size > limit:
        raise AvatarError(
            f"the file has {size / 2**20:.0f} MB, and {settings.max_upload_mb} are allowed; "
            "cut the video shorter or write it smaller"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        there = sum(path.is_dir() and path.name[0] != "." for path in directory.iterdir())
        if there >= settings.max_uploads:
            raise AvatarError(f"there are {there} uploaded avatars, as many as may be; delete one")
        if shutil.disk_usage(directory).free < 3 * size:
            raise AvatarError("the server has no space for the file")
        return Upload(Path(tempfile.mkdtemp(prefix=_PREFIX, dir=directory)), file_name, size)
    except OSError as error:
        raise AvatarError(f"the server cannot store the file ({error.strerror})") from error


def clean_up(directory: Path) -> None:
    """Delete what programs that were killed have left in ``directory``."""
    for prefix in (_PREFIX, _GRAVE_PREFIX, UNFINISHED):
        for folder in directory.glob(f"{prefix}*"):
            with contextlib.suppress(OSError):
                if time.time() - folder.stat().st_mtime > _ABANDONED_S:
                    shutil.rmtree(folder, ignore_errors=True)


def _plain_name(file_name: str) -> str:
    """A name without a path and without anything special; its ending is a photo's or video's."""
    stem, _, suffix = re.split(r"[/\\]", file_name)[-1].rpartition(".")
    stem = re.sub(r"[^\w -]+", "-", stem or suffix, flags=re.UNICODE).strip(" -")[:_MAX_STEM]
    ending = f".{suffix.lower()}"
    return f"{stem or 'avatar'}{ending if ending in MEDIA_SUFFIXES else '.bin'}"
