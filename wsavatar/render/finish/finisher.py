"""From the model's patches to encoded pictures: paste, cut, scale, encode.

Two finishers with the same interface: `host.HostFinisher`, with OpenCV, and
`device.DeviceFinisher`, which stays on the model's device up to the encoded bytes. They know
neither queues nor outcomes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.config import RenderSettings
from wsavatar.faces.base import FaceModel
from wsavatar.render.finish.host import HostFinisher
from wsavatar.render.work import FrameWork

__all__ = ["Finisher", "make_finisher"]

_log = logging.getLogger(__name__)


class Finisher(Protocol):
    """Makes encoded pictures of a batch of patches.

    ``inputs``, then the model's ``generate``, then ``compose`` for the same works run on one
    thread, in that order; ``encode`` may run on another, for one batch at a time each.
    """

    on_device: bool
    """True: `compose` only queues work on the device and returns at once; it takes whole batches.
    False: `compose` and `encode` use the CPU; a batch may be split over threads."""

    def scope(self) -> AbstractContextManager[Any]:
        """A context for the thread that renders batches, around all its calls."""

    def inputs(self, works: Sequence[FrameWork]) -> Any:
        """The rows that `FaceModel.generate` takes, in the order of ``works``."""

    def compose(self, works: Sequence[FrameWork], patches: Any) -> Any:
        """Patches, uint8 [b, S, S, 3] as the model gave them, to what `encode` takes."""

    def encode(self, works: Sequence[FrameWork], pictures: Any) -> list[bytes]:
        """Bytes in the order of ``works``, each by its stream's encoder. Blocks until they are in
        this machine's memory."""

    def prepare(self, avatar: PreparedAvatar) -> None:
        """Have an avatar ready where it will be pasted, before its first frame. May block; any
        thread may call."""

    def evict(self) -> None:
        """Release device memory that can be filled again, which costs time."""


def make_finisher(model: FaceModel, settings: RenderSettings) -> Finisher:
    """The finisher for where ``model`` makes its patches.

    On a CUDA device it first finishes some small frames; where that fails, or they differ from what
    this machine makes of them, pictures are finished here, and a warning says so.
    """
    device = model.device
    if getattr(device, "type", "") != "cuda":
        return HostFinisher(settings)
    from wsavatar.render.finish.device import (  # torch, not needed elsewhere
        DeviceFinisher,
        check_finisher,
    )

    try:
        finisher = DeviceFinisher(device, settings)
        check_finisher(finisher, HostFinisher(settings))
    except Exception as error:
        _log.warning("%s: pictures are finished on the CPU, which is slower: %s", device, error)
        return HostFinisher(settings)
    return finisher
