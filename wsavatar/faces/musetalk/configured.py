"""From settings to a loaded model: the one reading of ``settings.model`` for every command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wsavatar.config import Settings
from wsavatar.resources import embedded_weights

if TYPE_CHECKING:
    from wsavatar.faces.musetalk.model import MuseTalk

__all__ = ["load_configured", "model_directory"]


def model_directory(settings: Settings) -> Path:
    """Where the configured weights lie."""
    path = settings.model.path
    return embedded_weights() if path == "embedded" else Path(path)


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
