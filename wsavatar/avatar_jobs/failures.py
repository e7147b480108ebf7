"""Files of which no avatar can be made, kept in the cache: a start does not try them again.

A small JSON file each. What is damaged, or of another version of anything, is as good as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from pathlib import Path

from wsavatar.avatars.whole_file import written_whole
from wsavatar.resources import cache_fault

__all__ = ["KnownFailures"]

_MAX_BYTES = 16384

_log = logging.getLogger(__name__)


class KnownFailures:
    """Why no avatar can be made of a file, as it is now. Blocking.

    ``cache``: the folder of caches. ``version`` changes with whatever decides what can be made.
    """

    def __init__(self, cache: Path, version: str) -> None:
        self._folder = cache / "failures"
        self._version = version

    def recall(self, file: Path) -> str:
        """The reason; empty: it is not known of this version of the file."""
        try:
            known = _read(self._record(file))
            return str(known["why"]) if known["what"] == self.stamp(file) else ""
        except (OSError, ValueError, KeyError):
            return ""

    def stamp(self, file: Path) -> str:
        """Names what is tried: this version of the file and of all that makes avatars; empty: the
        file is gone."""
        try:
            stat = file.stat()
        except OSError:
            return ""
        return f"{stat.st_size} {stat.st_mtime_ns} {self._version}"

    def remember(self, file: Path, stamp: str, why: str) -> None:
        """Keep the reason for the version of the file that was tried; logs disk errors."""
        if not stamp or cache_fault(self._folder):
            return
        record = {"file": str(file.absolute()), "what": stamp, "why": why}
        try:
            with written_whole(self._record(file), 0o600) as unfinished:
                unfinished.write_text(json.dumps(record), "utf-8")
        except OSError as error:
            _log.warning("%s is tried again at the next start: %s", file, error)

    def clean_up(self) -> None:
        """Forget the files that are gone."""
        for path in self._folder.glob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                if not Path(str(_read(path)["file"])).exists():
                    path.unlink()

    def _record(self, file: Path) -> Path:
        name = hashlib.sha256(os.fsencode(file.absolute())).hexdigest()[:32]
        return self._folder / f"{name}.json"


def _read(path: Path) -> dict[str, object]:
    """Raises OSError, and ValueError for what is no record."""
    with path.open("rb") as file:
        record = json.loads(file.read(_MAX_BYTES))
    if not isinstance(record, dict):
        raise ValueError(f"{path}: is no record")
    return record
