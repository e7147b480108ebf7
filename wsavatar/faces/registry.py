"""The face models by name. A new model is a package and a line here.

A model's package is imported when used, because importing torch takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from wsavatar.config import Settings
from wsavatar.errors import WsavatarError
from wsavatar.faces.base import AvatarPreparer, FaceModel, SpeechWindows
from wsavatar.faces.finetuning import Finetuner

__all__ = [
    "FACES",
    "FaceError",
    "LoadedFace",
    "find_problems",
    "load_face",
    "load_finetuner",
    "model_directory",
    "speech_windows",
]

FACES = {
    "musetalk": "wsavatar.faces.musetalk.configured",
}
"""By ``model.name``: the module that reads the settings of ``model``."""


class FaceError(WsavatarError, ValueError):
    """Unknown face model; the message names the known ones."""


class LoadedFace(FaceModel, AvatarPreparer, Protocol):
    """A loaded model that draws and prepares avatars."""


class _Configured(Protocol):
    """The interface of such a module."""

    def model_directory(self, settings: Settings, /) -> Path: ...

    def find_problems(self, settings: Settings, /) -> list[str]: ...

    def speech_windows(self, settings: Settings, /) -> SpeechWindows: ...

    def load_configured(self, settings: Settings, device: str | None, /) -> LoadedFace: ...


def model_directory(settings: Settings) -> Path:
    """The directory of the configured model's files."""
    return _configured(settings).model_directory(settings)


def find_problems(settings: Settings) -> list[str]:
    """Problems of the configured model's files, one line each; empty: none."""
    return _configured(settings).find_problems(settings)


def speech_windows(settings: Settings) -> SpeechWindows:
    """How the configured model takes speech. Loads no weights, and does not import torch.

    Raises the model's error if its files are unfit.
    """
    return _configured(settings).speech_windows(settings)


def load_face(settings: Settings, device: str | None = None) -> LoadedFace:
    """Load the configured model on ``device``, or on the first of the configured devices.

    Takes seconds. Raises errors of the model's loader.
    """
    return _configured(settings).load_configured(settings, device)


def load_finetuner(settings: Settings, device: str | None = None) -> Finetuner:
    """Load the configured model so that it can learn a person, on the first configured device.

    Raises FaceError where the model cannot be tuned, and errors of the model's loader.
    """
    module = _configured(settings)
    if not hasattr(module, "load_finetuner"):
        raise FaceError(f"model.name = {settings.model.name!r}: this model cannot be finetuned")
    loaded: Finetuner = module.load_finetuner(settings, device)
    return loaded


def _configured(settings: Settings) -> _Configured:
    name = settings.model.name or next(iter(FACES))
    if name not in FACES:
        raise FaceError(f"model.name = {name!r}: there is {', '.join(FACES)}")
    return cast("_Configured", import_module(FACES[name]))
