"""The reference path: the method of MuseTalk's serial inference script, for comparison.

Batch by batch on one thread: diffusers' UNet and VAE unchanged, the VAE output to float numpy on
the host, then for each frame a bilinear resize on the CPU and a paste with PIL. Nothing is fused,
captured, overlapped or kept on the device. (The realtime script pastes the same way, in a second
thread beside the GPU.) Audio features and latents cost it nothing here, so the ratio to it is
conservative.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image  # a dependency of diffusers
from torch.nn import functional as F

from wsavatar.avatars.avatar import PreparedAvatar, cycle_index
from wsavatar.bench.report import ReferenceSpeed
from wsavatar.bench.timing import cudnn_benchmark
from wsavatar.faces.musetalk.checkpoint import load_modules
from wsavatar.faces.musetalk.networks import patch_of, scaling_of
from wsavatar.faces.musetalk.spec import Version
from wsavatar.media import jpeg

__all__ = ["REFERENCE_SIZES", "ReferencePath", "measure_reference", "paste_by_pil"]

REFERENCE_SIZES = (4, 8, 16)
REPETITIONS = 3
BATCHES = 8


class ReferencePath:
    """UNet and VAE, loaded from ``directory`` to one device. Raises CheckpointError."""

    def __init__(
        self, directory: Path, version: Version, device: torch.device | str, dtype: str
    ) -> None:
        self._device, self._dtype = device, getattr(torch, dtype)
        modules = load_modules(directory, version, self._dtype)
        self._unet: Any = modules.unet.to(device)
        self._vae: Any = modules.vae.to(device)
        self._timestep = torch.tensor([0], device=device)
        self._patch = patch_of(modules.vae)
        self._scaling, self._shift = scaling_of(modules.vae)

    @torch.no_grad()
    def patches(self, latents: np.ndarray, conditions: Sequence[Any]) -> np.ndarray:
        """[b, 2C, h, w] and b of [10 * layers, dim] -> uint8 [b, S, S, 3] RGB on the host."""
        batch = torch.from_numpy(latents).to(self._device, self._dtype)
        states = torch.stack([torch.as_tensor(row) for row in conditions])
        states = states.to(self._device, self._dtype)
        made = self._unet(batch, self._timestep, encoder_hidden_states=states).sample
        pixels = self._vae.decode(made / self._scaling + self._shift).sample
        pixels = F.pixel_shuffle(pixels, self._patch)  # by 1 in the official models: no change
        pixels = (pixels / 2 + 0.5).clamp(0, 1)
        pictures = pixels.detach().cpu().permute(0, 2, 3, 1).float().numpy()
        return (pictures * 255).round().astype(np.uint8)

    def pictures(
        self, avatar: PreparedAvatar, first_frame: int, conditions: Sequence[Any]
    ) -> list[np.ndarray]:
        """Finished frames, uint8 [H, W, 3] RGB, one for each condition."""
        indices = [
            cycle_index(first_frame + row, avatar.frame_count) for row in range(len(conditions))
        ]
        patches = self.patches(avatar.face.inputs[indices], conditions)
        return [
            paste_by_pil(
                avatar.pictures[index].copy(),
                patch,
                avatar.face.crop_boxes[index],
                avatar.face.paste_boxes[index],
                avatar.face.masks[index],
            )
            for index, patch in zip(indices, patches, strict=True)
        ]


def paste_by_pil(
    frame: np.ndarray,
    patch: np.ndarray,
    crop_box: Sequence[int] | np.ndarray,
    paste_box: Sequence[int] | np.ndarray,
    mask: np.ndarray,
) -> np.ndarray:
    """Cut the square around the face, paste the resized patch, blend it back with the mask.

    Resized like in the script by OpenCV's default, bilinear; it uses Lanczos for prepared crops
    only. Arguments as in `wsavatar.render.finish.paste.paste`.
    """
    x1, y1, x2, y2 = (int(edge) for edge in crop_box)
    left, top, right, bottom = (int(edge) for edge in paste_box)
    drawn = cv2.resize(patch, (x2 - x1, y2 - y1))
    body = Image.fromarray(frame)
    square = body.crop((left, top, right, bottom))
    square.paste(Image.fromarray(drawn), (x1 - left, y1 - top))
    body.paste(square, (left, top), Image.fromarray(mask))
    return np.array(body)


def measure_reference(
    path: ReferencePath, avatar: PreparedAvatar, conditions: Sequence[Any], size: int, quality: int
) -> ReferenceSpeed:
    """Frames per second at one batch size: the median of repetitions, after a warm-up batch.

    ``conditions``: at least ``size`` audio conditions of the model; they are used repeatedly.
    """
    batch = list(conditions[:size])
    speeds, with_jpeg = [], []
    # torch's default, which our model changes to choosing by timing.
    with cudnn_benchmark(False):
        _run(path, avatar, batch, 1, quality)
        for _ in range(REPETITIONS):
            pasted_s, encoded_s = _run(path, avatar, batch, BATCHES, quality)
            speeds.append(BATCHES * len(batch) / pasted_s)
            with_jpeg.append(BATCHES * len(batch) / (pasted_s + encoded_s))
    return ReferenceSpeed(
        size, round(statistics.median(speeds), 1), round(statistics.median(with_jpeg), 1)
    )


def _run(
    path: ReferencePath, avatar: PreparedAvatar, batch: Sequence[Any], batches: int, quality: int
) -> tuple[float, float]:
    """Seconds for the pasted pictures, and seconds for their JPEGs, on one thread."""
    pasted_s = encoded_s = 0.0
    for number in range(batches):
        started = time.perf_counter()
        pictures = path.pictures(avatar, number * len(batch), batch)
        pasted = time.perf_counter()
        for picture in pictures:
            jpeg.encode(picture, quality)
        pasted_s += pasted - started
        encoded_s += time.perf_counter() - pasted
    return pasted_s, encoded_s
