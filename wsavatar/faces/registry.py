"""The face models there are, by name. A new one is a package and a line here.

A model's package is imported when it is asked for: some import torch, which takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from wsavatar.config import Settings
from wsavatar.errors import WsavatarError
from wsavatar.faces.base import AvatarPreparer, FaceModel, SpeechWindows

__all__ = [
    "FACES",
    "FaceError",
    "LoadedFace",
    "find_problems",
    "load_face",
    "model_directory",
    "speech_windows",
]

FACES = {
    "musetalk": "wsavatar.faces.musetalk.configured",
}
"""By the name that ``model.name`` asks for: the module that reads the settings of ``model``."""


class FaceError(WsavatarError, ValueError):
    """There is no such face model; the message says which there are."""


class LoadedFace(FaceModel, AvatarPreparer, Protocol):
    """A loaded model: it draws, and prepares avatars."""


class _Configured(Protocol):
    """What such a module has."""

    def model_directory(self, settings: Settings, /) -> Path: ...

    def find_problems(self, settings: Settings, /) -> list[str]: ...

    def speech_windows(self, settings: Settings, /) -> SpeechWindows: ...

    def load_configured(self, settings: Settings, device: str | None, /) -> LoadedFace: ...


def model_directory(settings: Settings) -> Path:
    """Where the configured model's files are."""
    return _configured(settings).model_directory(settings)


def find_problems(settings: Settings) -> list[str]:
    """What is wrong with the configured model's files, one line each; empty: all is well."""
    return _configured(settings).find_problems(settings)


def speech_windows(settings: Settings) -> SpeechWindows:
    """How the configured model takes speech. Loads no weights, and does not import torch.

    Raises the model's own error where its files are not what they should be.
    """
    return _configured(settings).speech_windows(settings)


def load_face(settings: Settings, device: str | None = None) -> LoadedFace:
    """Load the configured model on ``device``, or on the first of the configured devices.

    Takes seconds. Raises what the model's own loader raises.
    """
    return _configured(settings).load_configured(settings, device)


def _configured(settings: Settings) -> _Configured:
    name = settings.model.name
    if name not in FACES:
        raise FaceError(f"model.name = {name!r}: there is {', '.join(FACES)}")
    return cast("_Configured", import_module(FACES[name]))
