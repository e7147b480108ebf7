"""The modes. A new mode is a class and a line here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

from wsavatar.errors import WsavatarError

from .base import Dialogue, DialogueConfig, DialogueSession
from .chat import Chat
from .engines import Engines
from .mirror import Mirror
from .parrot import Parrot
from .silero import SileroError
from .tts import VoiceError

__all__ = ["DialogueError", "create"]


def _upstream(session: DialogueSession, config: DialogueConfig, engines: Engines) -> Dialogue:
    module = import_module("wsavatar.dialogue.upstream.dialogue")  # it imports this package
    return cast(Dialogue, module.Upstream(session, config, engines))


_MODES: dict[str, Callable[[DialogueSession, DialogueConfig, Engines], Dialogue]] = {
    "chat": Chat,
    "mirror": Mirror,
    "parrot": Parrot,
    "upstream": _upstream,
}


class DialogueError(WsavatarError, ValueError):
    """A mode is not available. ``code``: ``unsupported_mode`` (the message names the modes) or
    ``dialogue_unavailable`` (it names what is missing)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def create(
    engines: Engines, mode: str, session: DialogueSession, config: DialogueConfig
) -> Dialogue:
    """Create a session's dialogue. Raises `DialogueError`."""
    make = _MODES.get(mode)
    if make is None:
        raise DialogueError(
            "unsupported_mode", f"There is no mode {mode!r} yet. Available: {', '.join(_MODES)}."
        )
    try:
        return make(session, config, engines)
    except (SileroError, VoiceError) as error:
        raise DialogueError("dialogue_unavailable", str(error)) from error
