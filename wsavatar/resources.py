"""Where the files that are not code lie: the page, the configurations, the avatars, the weights.

In a source tree they lie beside the package; an installed wheel carries them in ``_bundle``. This
module knows only where, never what is in them; also where what is computed once may be kept.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_directory", "embedded_weights", "resource_dir"]

_PACKAGE = Path(__file__).resolve().parent


def resource_dir(name: str) -> Path:
    """Directory of a bundled resource: ``frontend``, ``configs`` or ``avatars``.

    Raises FileNotFoundError where the installation lacks it.
    """
    source_tree = _PACKAGE.parent
    bundled = _PACKAGE / "_bundle" / name
    if (source_tree / "pyproject.toml").is_file() and (source_tree / name).is_dir():
        return source_tree / name
    if bundled.is_dir():
        return bundled
    raise FileNotFoundError(f"{bundled} is missing: install wsavatar again (pip install .)")


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/wsavatar``, or ``~/.cache/wsavatar``: what may be deleted at any time."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "wsavatar"


def embedded_weights() -> Path:
    """Directory of the weights that ship in the package; it exists only once they are there."""
    return _PACKAGE / "embedded"
