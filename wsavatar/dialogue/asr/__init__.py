"""Speech recognition: a user's turn in, its text out. A new engine is a class and a line here."""

from __future__ import annotations

from collections.abc import Callable

from wsavatar.config import AsrSettings
from wsavatar.dialogue.engine import EngineError

from .base import ASR_RATE, Heard, Recognition, Recognizer
from .endpoint import EndpointRecognizer
from .moonshine import MoonshineRecognizer
from .whisper import WhisperRecognizer

__all__ = ["ASR_RATE", "Heard", "Recognition", "Recognizer", "create_recognizer"]

_ENGINES: dict[str, Callable[[AsrSettings], Recognizer]] = {
    "openai": EndpointRecognizer,
    "moonshine": MoonshineRecognizer,
    "faster-whisper": WhisperRecognizer,
}


def create_recognizer(settings: AsrSettings) -> Recognizer | None:
    """The engine of the settings; None: none is set up. Loads nothing. Raises EngineError."""
    name = settings.engine
    if name == "none":
        return None
    if name == "auto":
        return _automatic(settings)
    make = _ENGINES.get(name)
    if make is None:
        raise EngineError(
            "engine_missing",
            f"asr.engine: there is no {name[:60]!r}. There are: auto, none, {', '.join(_ENGINES)}.",
        )
    return make(settings)


def _automatic(settings: AsrSettings) -> Recognizer | None:
    if settings.base_url:
        return EndpointRecognizer(settings)
    # Moonshine is the faster one for English, its only language here.
    if MoonshineRecognizer.suits(settings):
        return MoonshineRecognizer(settings)
    if WhisperRecognizer.suits(settings):
        return WhisperRecognizer(settings)
    return None
