"""Runs a model's stages by torch: on a CPU as they are, on a GPU fused and as CUDA graphs.

Importing it imports torch, diffusers and transformers, which takes seconds. It knows no audio and
no avatars.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from wsavatar.faces.musetalk.checkpoint import LoadedModules
from wsavatar.faces.musetalk.features import AudioFeatures, LogMel
from wsavatar.faces.musetalk.fused import FusedFaces, UnfusableError
from wsavatar.faces.musetalk.fused_audio import FusedAudio
from wsavatar.faces.musetalk.graphs import GraphedStage
from wsavatar.faces.musetalk.memory import Array
from wsavatar.faces.musetalk.networks import CropEncoder, FaceGenerator, fold_timestep

__all__ = ["DeviceMemory", "device_stages", "find_device", "host_stages"]

Stage = Callable[..., Tensor]

_log = logging.getLogger(__name__)

_WINDOWS_AT_ONCE = (1, 2, 3, 5, 8, 10, 15, 20, 30)
"""Audio windows in a call on a CUDA device, others filled up. A chunk of 0.5 s brings five new ones
(eight when it is a stream's first), and those of several sessions come together."""


def find_device(name: str) -> torch.device:
    """torch's device of that name. Raises ValueError for one that is not there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}: use cpu, cuda:0, cuda:1, …") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"{name} is not there: torch sees {torch.cuda.device_count()} CUDA devices"
        )
    return device


class DeviceMemory:
    """A `wsavatar.faces.musetalk.memory.Memory` of tensors. Stages take ``dtype``."""

    def __init__(self, device: torch.device, dtype: str) -> None:
        self.device = device
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._kept_bytes = 0  # weights, and what graphs compute in

    def computing(self) -> AbstractContextManager[Any]:
        return torch.inference_mode()

    def put(self, values: Array) -> Tensor:
        tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
        return tensor.to(self.device, non_blocking=True)

    def rows(self, values: Array | Sequence[Array]) -> Tensor:
        if isinstance(values, np.ndarray | Tensor):
            return self.put(values).to(self._dtype)
        if all(isinstance(row, np.ndarray) for row in values):
            return self.put(np.stack(cast("list[np.ndarray]", list(values)))).to(self._dtype)
        return torch.stack([self.put(row) for row in values]).to(self._dtype)

    def joined(self, parts: Sequence[Array]) -> Tensor:
        return torch.cat([self.put(part) for part in parts])

    def floats(self, values: Any) -> Tensor:
        tensor: Tensor = values.float()
        return tensor

    def host(self, values: Any) -> np.ndarray:
        tensor = values.float() if values.is_floating_point() else values
        return cast("np.ndarray", tensor.cpu().numpy())

    def settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.release()  # what trying out convolution algorithms took
            self._kept_bytes = torch.cuda.memory_reserved(self.device)

    def used(self) -> float:
        if self.device.type != "cuda":
            return 0.0
        free, total = torch.cuda.mem_get_info(self.device)
        # What torch only keeps in its cache is as good as free; the graphs' own pools are not.
        kept = max(torch.cuda.memory_allocated(self.device), self._kept_bytes)
        cached = max(0, torch.cuda.memory_reserved(self.device) - kept)
        return 1.0 - (free + cached) / total

    def release(self) -> None:
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                torch.cuda.empty_cache()


def host_stages(modules: LoadedModules, threads: int) -> dict[str, Callable[..., np.ndarray]]:
    """The stages on the CPU, of numpy's arrays. ``threads`` 0: as many as torch takes."""
    if threads:
        torch.set_num_threads(threads)
    return {name: _on_host(stage) for name, stage in _stages(modules, torch.device("cpu")).items()}


def device_stages(modules: LoadedModules, device: torch.device) -> dict[str, Stage]:
    """The stages on a device, of tensors there."""
    return _stages(modules, device)


def _stages(modules: LoadedModules, device: torch.device) -> dict[str, Stage]:
    fold_timestep(modules.unet)
    faces = FaceGenerator(modules.unet, modules.vae, modules.spec.decode_from_row, modules.tiny)
    parts: dict[str, nn.Module] = {
        "audio": AudioFeatures(LogMel(modules.audio.config.num_mel_bins), modules.audio),
        "crops": CropEncoder(modules.vae),
        "redraw": faces.decode,
        "faces": faces,
    }
    for part in parts.values():
        part.eval().to(device)
    # Audio stays float32 up to the log-mel spectrogram; the module casts behind it.
    stages = {name: part if name == "audio" else _cast_to(part) for name, part in parts.items()}
    if device.type == "cuda":
        return stages | _cuda_stages(modules, parts)
    return stages | {"audio": _own_block(stages["audio"], modules)}


def _cuda_stages(modules: LoadedModules, parts: dict[str, nn.Module]) -> dict[str, Stage]:
    """The stages of every frame, fused where the architecture is known, as CUDA graphs.

    Faces that cannot be fused are left out: they run as diffusers has them.
    """
    torch.backends.cudnn.benchmark = True
    dtype = next(parts["faces"].parameters()).dtype
    device = next(parts["faces"].parameters()).device
    spec = modules.spec
    features = cast("AudioFeatures", parts["audio"])
    audio = FusedAudio(features.mel, features.encoder, spec.grid, modules.extras.window_positions)
    window = torch.zeros(1, spec.grid.window_samples, device=device)
    stages: dict[str, Stage] = {"audio": GraphedStage("audio", audio, [window], _WINDOWS_AT_ONCE)}
    try:
        with torch.inference_mode():
            faces = FusedFaces(
                modules.unet, modules.vae, spec.latent_size, spec.decode_from_row, modules.tiny
            )
    except UnfusableError as error:
        _log.warning("%s: %s; it runs unfused, several times slower", device, error)
        return stages
    latents = (1, 2 * spec.latent_channels, spec.latent_size, spec.latent_size)
    condition = (1, spec.grid.frame_positions * spec.layers, spec.dim)
    rows = [torch.zeros(shape, dtype=dtype, device=device) for shape in (latents, condition)]
    return stages | {"faces": GraphedStage("faces", faces, rows)}


def _own_block(stage: Stage, modules: LoadedModules) -> Stage:
    """A stage of whole windows, padded with silence and cut down to each window's own block.

    Each window alone: its features must not depend on those that come with it.
    """
    grid = modules.spec.grid
    samples = modules.extras.window_positions * grid.position_samples
    own = slice(grid.left_positions, grid.left_positions + grid.block_positions)

    def features(audio: Tensor) -> Tensor:
        padded = nn.functional.pad(audio, (0, samples - audio.shape[1]))
        return torch.cat([stage(window) for window in padded.split(1)])[:, own]

    return features


def _cast_to(module: nn.Module) -> Stage:
    dtype = next(module.parameters()).dtype

    def stage(*inputs: Tensor) -> Tensor:
        cast_inputs = (x.to(dtype) if x.is_floating_point() else x for x in inputs)
        return cast("Tensor", module(*cast_inputs))

    return stage


def _on_host(stage: Stage) -> Callable[..., np.ndarray]:
    def run(*inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            made = stage(*(torch.from_numpy(np.ascontiguousarray(array)) for array in inputs))
            return (made.float() if made.is_floating_point() else made).numpy()

    return run
