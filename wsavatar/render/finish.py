"""From the model's patches to JPEG bytes: paste, cut, scale, encode.

Two finishers of one shape: `HostFinisher` here, with OpenCV, and one that stays on the model's
device until the bytes are made. They know neither queues nor outcomes.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import cv2
import numpy as np

from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.config import RenderSettings
from wsavatar.render import jpeg
from wsavatar.render.paste import paste
from wsavatar.render.work import FaceModel, FrameWork

__all__ = ["Finisher", "HostFinisher", "make_finisher", "to_numpy"]

_log = logging.getLogger(__name__)


class Finisher(Protocol):
    """What turns a batch of patches into JPEG bytes.

    ``latents``, then the model's ``generate``, then ``compose`` for the same works run on one
    thread, in that order; ``encode`` may run on another, for one batch at a time each.
    """

    on_device: bool
    """True: `compose` only queues work on the device and returns at once; give it whole batches.
    False: `compose` and `encode` cost this machine's time; a batch may be cut into single frames
    and spread over threads."""

    def scope(self) -> AbstractContextManager[Any]:
        """What the thread that makes batches runs under, from its first call to its last."""

    def latents(self, works: Sequence[FrameWork]) -> Any:
        """The rows that `FaceModel.generate` takes, in the order of ``works``."""

    def compose(self, works: Sequence[FrameWork], patches: Any) -> Any:
        """Patches, uint8 [b, S, S, 3] as the model gave them, to what `encode` takes."""

    def encode(self, works: Sequence[FrameWork], pictures: Any) -> list[bytes]:
        """JPEGs in the order of ``works``. Blocks until the bytes are in this machine's memory."""

    def prepare(self, avatar: PreparedAvatar) -> None:
        """Have an avatar ready where it will be pasted, before its first frame. May block; any
        thread may call."""

    def evict(self) -> None:
        """Give up memory of the device that can be had again; costs time when it is."""


class HostFinisher:
    """Numpy and OpenCV on this machine's cores. Holds no state: any thread may call it."""

    on_device = False

    def __init__(self, settings: RenderSettings) -> None:
        self._sharpness = settings.sharpness
        self._colour_match = settings.colour_match

    def scope(self) -> AbstractContextManager[None]:
        """Nothing is needed here."""
        return contextlib.nullcontext()

    def latents(self, works: Sequence[FrameWork]) -> list[np.ndarray]:
        """float16 [2C, h, w] each."""
        return [work.spec.avatar.latents[work.source_index] for work in works]

    def compose(self, works: Sequence[FrameWork], patches: Any) -> list[np.ndarray]:
        """uint8 [h, w, 3] each, of the size that its stream sends."""
        rows = to_numpy(patches)
        return [self._picture(work, patch) for work, patch in zip(works, rows, strict=True)]

    def encode(self, works: Sequence[FrameWork], pictures: Sequence[np.ndarray]) -> list[bytes]:
        """4:2:0 JPEGs of each stream's quality."""
        return [
            jpeg.encode(picture, work.spec.video.quality)
            for work, picture in zip(works, pictures, strict=True)
        ]

    def prepare(self, avatar: PreparedAvatar) -> None:
        """It is here already."""

    def evict(self) -> None:
        """Nothing is kept on a device."""

    def _picture(self, work: FrameWork, patch: np.ndarray) -> np.ndarray:
        avatar, index = work.spec.avatar, work.source_index
        x, y, w, h = work.spec.region
        offset = np.array([x, y, x, y])
        picture = paste(
            avatar.frames[index][y : y + h, x : x + w],
            patch,
            avatar.crop_boxes[index] - offset,
            avatar.paste_boxes[index] - offset,
            avatar.masks[index],
            self._sharpness,
            self._colour_match,
        )
        size = work.spec.picture_size
        return (
            picture if size == (w, h) else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        )


def make_finisher(model: FaceModel, settings: RenderSettings) -> Finisher:
    """The finisher for where ``model`` makes its patches.

    On a CUDA device it first finishes two small frames; where that fails, or they differ from what
    this machine makes of them, pictures are finished here, and a warning says so.
    """
    device: Any = getattr(model, "device", None)
    if getattr(device, "type", "") != "cuda":
        return HostFinisher(settings)
    from wsavatar.render.device import DeviceFinisher, check_finisher  # torch, not needed elsewhere

    try:
        finisher = DeviceFinisher(device, settings)
        check_finisher(finisher, HostFinisher(settings))
    except Exception as error:
        _log.warning("%s: pictures are finished on the CPU, which is slower: %s", device, error)
        return HostFinisher(settings)
    return finisher


def to_numpy(images: Any) -> np.ndarray:
    """The model's pictures in this machine's memory, wherever they were made."""
    return images if isinstance(images, np.ndarray) else np.asarray(images.cpu())
