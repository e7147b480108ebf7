"""Which modes there are. A new one is a class and a line here."""

from __future__ import annotations

from collections.abc import Callable

from wsavatar.config import DialogueSettings

from .base import Dialogue, Stage
from .mirror import Mirror
from .parrot import Parrot
from .tts import Voice, create_voice

__all__ = ["UnsupportedMode", "create", "modes"]

_MODES: dict[str, Callable[[Stage, DialogueSettings, Voice], Dialogue]] = {
    "mirror": Mirror,
    "parrot": Parrot,
}


class UnsupportedMode(ValueError):
    """A mode that this server does not have; the message names those it has."""

    code = "unsupported_mode"


def modes() -> tuple[str, ...]:
    """The modes that work now."""
    return tuple(_MODES)


def create(mode: str, stage: Stage, settings: DialogueSettings) -> Dialogue:
    """A session's dialogue. Raises `UnsupportedMode`, `VoiceError` or `SileroError`, all of them
    before anything has begun."""
    make = _MODES.get(mode)
    if make is None:
        raise UnsupportedMode(f"The mode {mode!r} is not there; these are: {', '.join(_MODES)}.")
    return make(stage, settings, create_voice(settings.tts, settings.tts_voice))
