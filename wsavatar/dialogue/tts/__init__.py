"""Voices: text in, audio out. A new engine is a class and a line in `_ENGINES`."""

from __future__ import annotations

from collections.abc import Callable

from wsavatar.config import TtsSettings

from .auto import AutoVoice
from .base import Voice, VoiceError
from .edge import EdgeVoice
from .espeak import EspeakVoice
from .pauses import PausedVoice

__all__ = ["Voice", "VoiceError", "create_voice"]

_ENGINES: dict[str, Callable[[str], Voice]] = {
    "auto": AutoVoice,
    "edge": EdgeVoice,
    "espeak": EspeakVoice,
}


def create_voice(settings: TtsSettings, name: str = "") -> Voice:
    """The configured voice; a name the engine does not know means its default voice."""
    engine = settings.engines[0]
    make = _ENGINES.get(engine)
    if make is None:
        raise VoiceError(f"No speech engine {engine!r}; these are: {', '.join(_ENGINES)}.")
    return PausedVoice(make(name))
