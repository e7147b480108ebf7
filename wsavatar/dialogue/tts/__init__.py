"""Voices: text in, audio out. A new engine is a class and a line in `ENGINES`."""

from __future__ import annotations

from wsavatar.config import TtsSettings

from .base import Voice, VoiceError, VoiceInfo, VoiceList
from .edge import EdgeEngine
from .endpoint import EndpointEngine
from .espeak import EspeakEngine
from .piper import PiperEngine
from .voices import MakeEngine, Voices

__all__ = [
    "ENGINES",
    "Voice",
    "VoiceError",
    "VoiceInfo",
    "VoiceList",
    "Voices",
    "create_voice",
    "create_voices",
]

ENGINES: dict[str, MakeEngine] = {
    "openai": lambda settings, wait_s: EndpointEngine(settings, audio_s=wait_s),
    "edge": lambda settings, wait_s: EdgeEngine(connect_s=wait_s / 2, audio_s=wait_s),
    "piper": lambda settings, wait_s: PiperEngine(settings.model),
    "espeak": lambda settings, wait_s: EspeakEngine(),
}


def _automatic(settings: TtsSettings) -> list[str]:
    """What "auto" stands for, the best first.

    An endpoint is there because someone has named it. Edge's voices sound best and speak most
    languages, where there is a network. Piper's sound natural, each in one language. eSpeak NG's do
    not, but it reads nearly every language anywhere.
    """
    return [*(["openai"] if settings.base_url else []), "edge", "piper", "espeak"]


def create_voices(settings: TtsSettings) -> Voices:
    """The voices of a server. Loads nothing. Raises VoiceError for an engine that is not there."""
    return Voices(settings, ENGINES, _automatic(settings))


def create_voice(settings: TtsSettings, name: str = "") -> Voice:
    """One voice by itself, as of a program that says one thing."""
    return create_voices(settings).voice(name)
