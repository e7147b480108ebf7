"""The settings of ``model``, read for MuseTalk: where its files are, and how it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wsavatar.config import Settings
from wsavatar.faces.musetalk.spec import read_extras
from wsavatar.resources import embedded_weights
from wsavatar.speech.chunker import FeatureGrid

if TYPE_CHECKING:
    from wsavatar.faces.musetalk.model import MuseTalk

__all__ = ["find_problems", "load_configured", "model_directory", "speech_windows"]


def model_directory(settings: Settings) -> Path:
    """Where the configured weights are."""
    path = settings.model.path
    return embedded_weights() if path == "embedded" else Path(path)


def find_problems(settings: Settings) -> list[str]:
    """What is missing, misnamed or of the wrong shape, one line each; empty: all is well."""
    from wsavatar.faces.musetalk import checkpoint  # torch and diffusers: seconds to import

    model = settings.model
    return checkpoint.find_problems(model_directory(settings), model.version, model.decoder)


def speech_windows(settings: Settings) -> FeatureGrid:
    """How the configured model takes speech; its weights are not read. Raises SpecError."""
    return read_extras(model_directory(settings), settings.model.version).grid


def load_configured(settings: Settings, device: str | None = None) -> MuseTalk:
    """Load the configured model on ``device``, or on the first of the configured devices.

    Raises what `MuseTalk.load` raises.
    """
    from wsavatar.faces.musetalk.model import MuseTalk  # torch and diffusers: seconds to import

    model = settings.model
    return MuseTalk.load(
        model_directory(settings),
        version=model.version,
        decoder=model.decoder,
        device=device or model.devices[0],
        dtype=model.dtype,
        cpu_backend=model.cpu_backend,
        cpu_threads=model.cpu_threads,
        cache=settings.avatars.cache,
    )
