"""Folders of files that are not code: page, configurations, avatars, weights; cache and data.

In a source tree they are beside the package, in an installed wheel in ``_bundle``. This module does
not know their contents.
"""

from __future__ import annotations

import os
import tempfile
from functools import lru_cache
from pathlib import Path

__all__ = ["cache_directory", "cache_fault", "data_directory", "embedded_weights", "resource_dir"]

_PACKAGE = Path(__file__).resolve().parent
_PROBE_BYTES = 1 << 20


def resource_dir(name: str) -> Path:
    """Directory of a bundled resource: ``frontend``, ``configs`` or ``avatars``.

    Raises FileNotFoundError if the installation lacks it.
    """
    source_tree = _PACKAGE.parent
    bundled = _PACKAGE / "_bundle" / name
    if (source_tree / "pyproject.toml").is_file() and (source_tree / name).is_dir():
        return source_tree / name
    if bundled.is_dir():
        return bundled
    raise FileNotFoundError(f"{bundled} is missing: install wsavatar again (pip install .)")


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/wsavatar``, or ``~/.cache/wsavatar``. May be deleted at any time."""
    return _user_directory("XDG_CACHE_HOME", ".cache")


@lru_cache(maxsize=64)
def cache_fault(folder: Path) -> str:
    """Why nothing can be kept in a folder of a cache, in a few words; empty: it can.

    Tried once in a process, by writing. Who keeps files asks this first: a fault is said at the
    start, not for each file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_PROBE_BYTES))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def data_directory() -> Path:
    """``$XDG_DATA_HOME/wsavatar``, or ``~/.local/share/wsavatar``: what users have made."""
    return _user_directory("XDG_DATA_HOME", ".local/share")


def _user_directory(variable: str, fallback: str) -> Path:
    base = os.environ.get(variable, "")
    root = Path(base) if os.path.isabs(base) else Path.home() / fallback
    return root / "wsavatar"


def embedded_weights() -> Path:
    """Directory of the weights in the package."""
    return _PACKAGE / "embedded"
