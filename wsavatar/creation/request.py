"""What a user asks of a new avatar, and what was made. Pure data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wsavatar.avatars.format import AvatarError

__all__ = ["AvatarRequest", "CancelledError", "Created", "Progress", "UnfitFileError"]

Progress = Callable[[str, int, int], None]
"""Called with (what is done: "look" or "write"; steps done; steps in all, 0: unknown)."""


class CancelledError(AvatarError):
    """The making of an avatar was cancelled by whom it was made for."""


class UnfitFileError(AvatarError):
    """No avatar can be made of a file, however often it is tried."""


@dataclass(frozen=True, slots=True)
class AvatarRequest:
    """A new avatar's properties. Each may be left out."""

    id: str = ""
    """Empty: made of the file's name, and not yet used in the directory."""
    name: str = ""
    """Empty: that of the avatar it replaces, else made of the file's name."""
    face: int | None = None
    """Which face, from 1, the largest first; None: the largest."""
    bbox_shift: int | None = None
    extra_margin: int | None = None
    description: str = ""
    license: str = ""
    overwrite: bool = False
    """Replace an avatar of the same id; its voice, language, instructions and greeting stay."""


@dataclass(frozen=True, slots=True)
class Created:
    """A new avatar's folder. ``notes``: what its user should know, a sentence each."""

    folder: Path
    id: str
    notes: tuple[str, ...]
