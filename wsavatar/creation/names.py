"""Names of new avatars, made of their files' names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from pathlib import Path

__all__ = ["free_id", "name_of"]

_MAX_ID, _MAX_NAME = 64, 100


def name_of(path: Path) -> str:
    """A name for people: ``anna_smith-2.mp4`` is "Anna smith 2"."""
    words = re.sub(r"[\s_.\-]+", " ", path.stem).strip()[:_MAX_NAME]
    printable = "".join(letter for letter in words if letter.isprintable())
    return printable[:1].upper() + printable[1:] or "Avatar"


def free_id(path: Path, directory: Path, taken: Collection[str] = ()) -> str:
    """An id made of the file's name that no avatar in ``directory`` has, and none of ``taken``."""
    plain = unicodedata.normalize("NFKD", path.stem).encode("ascii", "ignore").decode().lower()
    base = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_MAX_ID].strip("-") or "avatar"
    candidate, number = base, 2
    while candidate in taken or (directory / candidate).exists():
        suffix = f"-{number}"
        candidate, number = base[: _MAX_ID - len(suffix)] + suffix, number + 1
    return candidate
