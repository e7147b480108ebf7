"""The host's half of a frame: paste, cut, scale and encode on this machine's cores.

What `device.DeviceFinisher` makes is held against what `HostFinisher` makes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.config import RenderSettings
from wsavatar.render.encoders import encoder_for
from wsavatar.render.finish.paste import paste
from wsavatar.render.work import FrameWork

__all__ = ["HostFinisher", "to_numpy"]


class HostFinisher:
    """Numpy and OpenCV on this machine's cores. Holds no state: any thread may call it."""

    on_device = False

    def __init__(self, settings: RenderSettings) -> None:
        self._sharpness = settings.sharpness
        self._colour_match = settings.colour_match

    def scope(self) -> AbstractContextManager[None]:
        """Nothing is needed here."""
        return contextlib.nullcontext()

    def inputs(self, works: Sequence[FrameWork]) -> list[np.ndarray]:
        """Each frame's row of its avatar's `AvatarFace.inputs`."""
        return [work.spec.prepared.face.inputs[work.source_index] for work in works]

    def compose(self, works: Sequence[FrameWork], patches: Any) -> list[np.ndarray]:
        """uint8 [h, w, 3] each, of a transparent avatar [h, w, 4], of the size that its stream
        sends."""
        rows = to_numpy(patches)
        return [self._picture(work, patch) for work, patch in zip(works, rows, strict=True)]

    def encode(self, works: Sequence[FrameWork], pictures: Sequence[np.ndarray]) -> list[bytes]:
        """Each by its stream's encoder, at its quality."""
        videos = [work.spec.video for work in works]
        return [
            encoder_for(video.encoder).encode(picture, video.quality)
            for video, picture in zip(videos, pictures, strict=True)
        ]

    def prepare(self, avatar: PreparedAvatar) -> None:
        """It is here already."""

    def evict(self) -> None:
        """Nothing is kept on a device."""

    def _picture(self, work: FrameWork, patch: np.ndarray) -> np.ndarray:
        avatar, index = work.spec.prepared, work.source_index
        face = avatar.face
        x, y, w, h = work.spec.region
        offset = np.array([x, y, x, y])
        jaw = face.jaw_of(index)
        picture = paste(
            avatar.pictures.part(index, (x, y, w, h)),
            patch,
            face.crop_boxes[index] - offset,
            face.paste_boxes[index] - offset,
            face.masks[index],
            self._sharpness,
            self._colour_match,
            replace(jaw, boxes=jaw.boxes - offset) if jaw is not None else None,
            face.colours,
        )
        size = work.spec.picture_size
        return (
            picture if size == (w, h) else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        )


def to_numpy(images: Any) -> np.ndarray:
    """The model's pictures in this machine's memory, wherever they were made."""
    return images if isinstance(images, np.ndarray) else np.asarray(images.cpu())
