"""Where the files that are not code lie: the page, the configurations, the avatars, the weights.

In a source tree they lie beside the package; an installed wheel carries them in ``_bundle``. This
room knows only where, never what is in them.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["embedded_weights", "resource_dir"]

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


def embedded_weights() -> Path:
    """Directory of the weights that ship in the package; it exists only once they are there."""
    return _PACKAGE / "embedded"
