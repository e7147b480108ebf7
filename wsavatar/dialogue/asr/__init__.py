"""Speech recognition: a user's turn in, its text out. A new engine is a class and a line here."""

from __future__ import annotations

from collections.abc import Callable

from wsavatar.config import AsrSettings

from .base import ASR_RATE, Heard, Recognition, Recognizer

__all__ = ["ASR_RATE", "Heard", "Recognition", "Recognizer", "create_recognizer"]

_ENGINES: dict[str, Callable[[AsrSettings], Recognizer]] = {}


def create_recognizer(settings: AsrSettings) -> Recognizer | None:
    """The engine of the settings; None: none is set up. Loads nothing. Raises EngineError."""
    return None
