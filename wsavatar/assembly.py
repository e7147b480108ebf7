"""Puts a server's engine together from the settings: models, avatars, renderer, dialogues.

The one place that knows every room by name. Slow (it imports torch, loads weights, prepares
avatars), so it is called on a thread.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from wsavatar.avatars.format import AvatarError
from wsavatar.config import Settings
from wsavatar.engine import Engine
from wsavatar.machine import yield_to_others
from wsavatar.musetalk.configured import load_configured

if TYPE_CHECKING:
    from wsavatar.avatars.store import AvatarStore
    from wsavatar.musetalk.model import MuseTalk

__all__ = ["load_engine", "load_models"]

_log = logging.getLogger(__name__)

PREPARED_AT_START = 8
"""Avatars prepared before the server is ready; more are prepared when first asked for."""

SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep Python's lock from another that wants it.

A worker queues a batch in dozens of short calls and takes the lock anew for each. Beside an event
loop that was busy all the time, 60 such calls took up to 70 ms (p99) at Python's own 5 ms and
0.4 ms at this; the loop got as much done either way.
"""

Progress = Callable[[str], None]


def load_engine(settings: Settings, progress: Progress = lambda text: None) -> Engine:
    """Load everything. Raises CheckpointError, AvatarError or ValueError, in words to act on."""
    from wsavatar.avatars.store import AvatarStore
    from wsavatar.dialogue.registry import create
    from wsavatar.render.pool import FacePool

    sys.setswitchinterval(SWITCH_INTERVAL_S)
    yield_to_others()  # the threads that OpenVINO and torch start for their work inherit it
    models = load_models(settings, progress)
    store = AvatarStore(settings.avatars, models[0])
    _prepare_avatars(store, progress)
    return Engine(
        face=FacePool(models, settings.render),
        avatars=store,
        grid=models[0].spec.grid,
        create_dialogue=create,
    )


def load_models(settings: Settings, progress: Progress = lambda text: None) -> list[MuseTalk]:
    """One model a device; ``auto`` is every CUDA device, or the CPU where there is none."""
    progress("loading torch")
    import torch

    devices = list(settings.model.devices)
    if devices == ["auto"]:
        devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]
    models = []
    for device in devices:
        progress(f"loading the model on {device}")
        models.append(load_configured(settings, device))
    return models


def _prepare_avatars(store: AvatarStore, progress: Progress) -> None:
    """Build what is not cached, the default first. Only the default's faults are fatal."""
    default = store.default_id
    others = [info.id for info in store.list() if info.id != default]
    wanted = [default, *others][:PREPARED_AT_START]
    for number, avatar_id in enumerate(wanted, start=1):
        progress(f"preparing avatar {avatar_id} ({number} of {len(wanted)})")
        try:
            store.get(avatar_id)
        except AvatarError as error:
            if avatar_id == default:
                raise
            _log.warning("avatar %s cannot be used: %s", avatar_id, error)
