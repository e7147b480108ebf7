"""Avatars on the model's device: copied once, within a budget.

This module knows neither batches nor finished pictures.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.media.pictures import Pictures
from wsavatar.render.finish.device_jaw import packed
from wsavatar.render.finish.device_jpeg import new_stream

__all__ = ["DeviceAvatars", "to_device"]

_log = logging.getLogger(__name__)

_UPLOAD_FRAMES = 8
"""Frames of one copy to the device, so that little pinned memory is used."""


@dataclass(frozen=True, slots=True)
class _Held:
    pictures: Tensor
    inputs: Tensor
    jaw: Tensor | None
    source: Pictures
    """Kept, so that its id, by which this is found, stays its own."""

    @property
    def tensors(self) -> list[Tensor]:
        return [self.pictures, self.inputs, *([] if self.jaw is None else [self.jaw])]

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)


class DeviceAvatars:
    """Avatars on one device, within ``budget_bytes``; the least recently used are removed first.

    An avatar is copied at its first use, and the caller waits; one that alone is over the budget is
    copied frame by frame each time, which a warning says once. Thread-safe.

    ``reader`` is the CUDA stream that uses them; default: the device's default stream.
    """

    def __init__(
        self,
        device: torch.device,
        budget_bytes: int,
        reader: torch.cuda.Stream | None = None,
    ) -> None:
        self._device = device
        self._budget = budget_bytes
        if reader is None and device.type == "cuda":
            reader = torch.cuda.default_stream(device)
        self._reader = reader
        # One for life: what it leaves free is kept for it alone, and batches go on beside it.
        self._uploads = new_stream(device)
        self._lock = threading.Lock()
        self._uploading = threading.Lock()
        self._held: OrderedDict[int, _Held] = OrderedDict()
        self._told: deque[str] = deque(maxlen=256)

    @property
    def used_bytes(self) -> int:
        """Device memory of the stored avatars."""
        with self._lock:
            return sum(held.bytes for held in self._held.values())

    def picture(self, avatar: PreparedAvatar, index: int) -> Tensor:
        """uint8 [4, H, W]: red, green, blue, and the mask's alpha where the crop can be seen; of a
        transparent avatar [5, H, W], with its own alpha before the mask's."""
        held = self._hold(avatar)
        if held is None:
            return self._copy_pictures(avatar, range(index, index + 1))[0]
        return held.pictures[index]

    def inputs(self, avatar: PreparedAvatar, index: int) -> Tensor:
        """The frame's row of `AvatarFace.inputs`."""
        held = self._hold(avatar)
        if held is None:
            return to_device(avatar.face.inputs[index], self._device)
        return held.inputs[index]

    def jaw(self, avatar: PreparedAvatar, index: int) -> Tensor:
        """The frame's row of `device_jaw.packed`, for an avatar that has jaws."""
        held = self._hold(avatar)
        if held is None or held.jaw is None:
            return self._copy_jaw(avatar, slice(index, index + 1))[0]
        return held.jaw[index]

    def evict(self) -> None:
        """Remove the least recently used, at least one, until half of the memory is free.

        Memory that a batch in progress uses is kept until that ends.
        """
        with self._lock:
            total = sum(held.bytes for held in self._held.values())
            while self._held and 2 * sum(h.bytes for h in self._held.values()) > total:
                self._held.popitem(last=False)

    def prepare(self, avatar: PreparedAvatar) -> None:
        """Copy the avatar to the device now, so that its first frame does not wait.

        Blocks until it is copied; batches with other avatars go on.
        """
        self._hold(avatar)

    def _hold(self, avatar: PreparedAvatar) -> _Held | None:
        """The avatar on the device, copied if necessary; None if it is too large."""
        key = id(avatar.pictures)  # there are several before other backgrounds
        with self._lock:
            held = self._held.get(key)
            if held is not None:
                self._held.move_to_end(key)
                return held
        pixels = avatar.frame_count * avatar.height * avatar.width
        size = (avatar.channels + 1) * pixels + avatar.face.inputs.nbytes
        size += avatar.face.jaw.nbytes if avatar.face.jaw is not None else 0
        if size > self._budget:
            self._tell(avatar, size)
            return None
        with self._uploading:  # one at a time; stored ones are available meanwhile
            with self._lock:
                held = self._held.get(key)  # copied by another thread
                if held is not None:
                    return held
                while sum(h.bytes for h in self._held.values()) + size > self._budget:
                    self._held.popitem(last=False)
            held = self._upload(avatar)
            with self._lock:
                self._held[key] = held
            return held

    def _tell(self, avatar: PreparedAvatar, size: int) -> None:
        """Say once of each avatar that it is too large."""
        with self._lock:
            if avatar.id in self._told:
                return
            self._told.append(avatar.id)
        _log.warning(
            "avatar %s takes %d MB on %s, more than render.device_avatar_mb (%d): each of its "
            "frames is read and copied when it is needed, which is slower. Set it to %d or more.",
            avatar.id,
            -(-size // 2**20),
            self._device,
            self._budget // 2**20,
            -(-size // 2**20),
        )

    def _upload(self, avatar: PreparedAvatar) -> _Held:
        uploads, reader = self._uploads, self._reader
        if uploads is None or reader is None:
            return self._copy(avatar)
        with torch.cuda.stream(uploads):
            held = self._copy(avatar)
        uploads.synchronize()
        for tensor in held.tensors:
            # After removal, its memory is kept for batches that still read it.
            tensor.record_stream(reader)
        return held

    def _copy(self, avatar: PreparedAvatar) -> _Held:
        return _Held(
            self._copy_pictures(avatar, range(avatar.frame_count)),
            to_device(avatar.face.inputs, self._device),
            self._copy_jaw(avatar, slice(None)) if avatar.face.jaw is not None else None,
            avatar.pictures,
        )

    def _copy_jaw(self, avatar: PreparedAvatar, frames: slice) -> Tensor:
        jaw = avatar.face.jaw
        if jaw is None:
            raise ValueError(f"{avatar.id} has no jaws")
        return to_device(packed(jaw.of(frames)), self._device)

    def _copy_pictures(self, avatar: PreparedAvatar, indices: range) -> Tensor:
        x, y, w, h = avatar.region
        shape = (len(indices), avatar.channels + 1, avatar.height, avatar.width)
        pictures = torch.empty(shape, dtype=torch.uint8, device=self._device)
        pictures[:, -1] = 0
        for start in range(0, len(indices), _UPLOAD_FRAMES):
            part = indices[start : start + _UPLOAD_FRAMES]
            rows = slice(start, start + len(part))
            frames = to_device(np.stack(avatar.pictures[part.start : part.stop]), self._device)
            pictures[rows, :-1] = frames.permute(0, 3, 1, 2)
            alphas = np.stack([_region_alpha(avatar, index) for index in part])
            pictures[rows, -1, y : y + h, x : x + w] = to_device(alphas, self._device)
        return pictures


def _region_alpha(avatar: PreparedAvatar, index: int) -> np.ndarray:
    """uint8 [h, w] over the avatar's region: the mask, as far as the crop reaches."""
    x, y, w, h = avatar.region
    left, top, right, bottom = (int(edge) for edge in avatar.face.paste_boxes[index])
    x1, y1, x2, y2 = (int(edge) for edge in avatar.face.crop_boxes[index])
    start_x, start_y = max(left, x1, x), max(top, y1, y)
    end_x, end_y = min(right, x2, x + w), min(bottom, y2, y + h)
    alpha = np.zeros((h, w), np.uint8)
    if start_x < end_x and start_y < end_y:
        alpha[start_y - y : end_y - y, start_x - x : end_x - x] = avatar.face.masks[index][
            start_y - top : end_y - top, start_x - left : end_x - left
        ]
    return alpha


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy of ``array`` on the device; on CUDA through pinned memory, without waiting."""
    dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
    staged = torch.empty(array.shape, dtype=dtype, pin_memory=device.type == "cuda")
    staged.numpy()[...] = array
    return staged.to(device, non_blocking=True)
