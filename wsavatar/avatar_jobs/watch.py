"""Finds photos and videos that are put into a directory, once they are complete.

Looks when it is asked to, by an injected clock; it knows no avatars.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MEDIA_SUFFIXES", "SETTLED_S", "FolderWatch"]

MEDIA_SUFFIXES = frozenset(
    ".jpg .jpeg .png .webp .heic .heif .avif .gif .bmp .tif .tiff "
    ".mp4 .m4v .mov .webm .mkv .avi".split()
)
SETTLED_S = 2.0
"""A file that has not changed for so long is complete."""
_MAX_FILES = 1000
"""Files that are known of a directory; more wait until others have become avatars."""


@dataclass(slots=True)
class _Seen:
    stamp: tuple[int, int]  # bytes, modification time in ns
    since_s: float
    is_given: bool = False


class FolderWatch:
    """The loose media files of some directories. Each version of a file is given once."""

    def __init__(self, directories: Sequence[Path], clock: Callable[[], float]) -> None:
        self._directories = directories
        self._clock = clock
        self._seen: dict[Path, _Seen] = {}

    def look(self, at_most: int) -> list[Path]:
        """Complete files that were not given before, at most so many. Blocking."""
        now_s = self._clock()
        found = self._stamps()
        self._seen = {path: seen for path, seen in self._seen.items() if path in found}
        ready: list[Path] = []
        for path, stamp in found.items():
            seen = self._seen.get(path)
            if seen is None or seen.stamp != stamp:
                self._seen[path] = _Seen(stamp, now_s)
            elif not seen.is_given and now_s - seen.since_s >= SETTLED_S and len(ready) < at_most:
                seen.is_given = True
                ready.append(path)
        return ready

    def put_back(self, path: Path) -> None:
        """Give the file again at a later look, if it is still there."""
        if path in self._seen:
            self._seen[path].is_given = False

    def is_there(self, path: Path) -> bool:
        """Whether the file was there at the last look, as it was given."""
        seen = self._seen.get(path)
        return seen is not None and seen.is_given

    def _stamps(self) -> dict[Path, tuple[int, int]]:
        stamps: dict[Path, tuple[int, int]] = {}
        for directory in self._directories:
            try:
                paths = sorted(directory.iterdir())
            except OSError:
                continue  # it may come later; the list of avatars says what is wrong
            for path in paths:
                if path.suffix.lower() not in MEDIA_SUFFIXES or path.name[0] == ".":
                    continue
                try:
                    stat = path.stat()
                except OSError:
                    continue  # it has just gone
                if path.is_file() and len(stamps) < _MAX_FILES:
                    stamps[path] = (stat.st_size, stat.st_mtime_ns)
        return stamps
