"""The settings of ``model``, read for MuseTalk: where its files are, and how it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from wsavatar.config import Settings, model_options
from wsavatar.faces.musetalk.spec import Decoder, Version, read_extras
from wsavatar.resources import embedded_weights
from wsavatar.speech.chunker import FeatureGrid

if TYPE_CHECKING:
    from wsavatar.faces.finetuning import Finetuner
    from wsavatar.faces.musetalk.model import MuseTalk

__all__ = [
    "Options",
    "find_problems",
    "load_configured",
    "load_finetuner",
    "model_directory",
    "options",
    "speech_windows",
]


class Options(BaseModel):
    """MuseTalk's settings in the section ``model``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Version = "v15"
    decoder: Decoder = "vae"
    """tiny: TAESD decodes instead of the VAE, several times faster, softer and less accurate."""


def options(settings: Settings) -> Options:
    """MuseTalk's part of the settings. Raises ConfigError."""
    return model_options(settings, Options)


def model_directory(settings: Settings) -> Path:
    """Where the configured weights are."""
    path = settings.model.path
    return embedded_weights() if path == "embedded" else Path(path)


def find_problems(settings: Settings) -> list[str]:
    """What is missing, misnamed or of the wrong shape, one line each; empty: all is well."""
    from wsavatar.faces.musetalk import checkpoint  # torch and diffusers: seconds to import

    chosen = options(settings)
    return checkpoint.find_problems(model_directory(settings), chosen.version, chosen.decoder)


def speech_windows(settings: Settings) -> FeatureGrid:
    """How the configured model takes speech; its weights are not read. Raises SpecError."""
    return read_extras(model_directory(settings), options(settings).version).grid


def load_configured(settings: Settings, device: str | None = None) -> MuseTalk:
    """Load the configured model on ``device``, or on the first of the configured devices.

    Raises what `MuseTalk.load` raises.
    """
    from wsavatar.faces.musetalk.model import MuseTalk  # torch and diffusers: seconds to import

    model, chosen = settings.model, options(settings)
    return MuseTalk.load(
        model_directory(settings),
        version=chosen.version,
        decoder=chosen.decoder,
        device=device or model.devices[0],
        dtype=model.dtype,
        cpu_backend=model.cpu_backend,
        cpu_threads=model.cpu_threads,
        cache=settings.avatars.cache,
    )


def load_finetuner(settings: Settings, device: str | None) -> Finetuner:
    """See `wsavatar.faces.registry.load_finetuner`."""
    from wsavatar.faces.musetalk import finetune  # torch and diffusers: seconds to import

    return finetune.load_finetuner(settings, device)
