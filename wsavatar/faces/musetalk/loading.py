"""Loads a model's stages: chooses the device, the type and what computes there.

On a CPU that is OpenVINO. Where it has converted this model before, neither torch nor diffusers is
imported and no weights are read: that would take most of a start.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wsavatar.faces.musetalk.files import CheckpointError, ModelFiles, read_files
from wsavatar.faces.musetalk.memory import HostMemory, Memory
from wsavatar.faces.musetalk.spec import Decoder, ModelSpec, Version
from wsavatar.machine import may_have_gpu

if TYPE_CHECKING:
    from wsavatar.faces.musetalk.checkpoint import LoadedModules
    from wsavatar.faces.musetalk.openvino_backend import CompiledStage, Precision, StageSource

__all__ = ["CpuBackend", "DType", "LoadedStages", "ModelRequest", "Stage", "load_stages"]

CpuBackend = Literal["auto", "openvino", "torch"]
DType = Literal["auto", "float32", "float16", "bfloat16"]
Stage = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """Which model, and in what type. ``threads`` of a CPU; 0: all cores."""

    directory: Path
    version: Version
    decoder: Decoder
    dtype: DType
    threads: int


@dataclass(frozen=True, slots=True)
class LoadedStages:
    """The stages by name; they take and give arrays of ``memory``.

    "audio": windows to their own block's features; "crops": crops to latents; "redraw": reference
    latents to pictures; "faces": latents and conditions to pictures, in ``dtype``.
    """

    spec: ModelSpec
    dtype: str
    stages: Mapping[str, Stage]
    memory: Memory


def load_stages(
    request: ModelRequest, device: str, cpu_backend: CpuBackend, cache: Path
) -> LoadedStages:
    """See `wsavatar.faces.musetalk.model.MuseTalk.load`."""
    if device == "auto":
        device = _best_device()
    if device.partition(":")[0] == "cpu" and _openvino_wanted(cpu_backend, request.dtype):
        return _by_openvino(request, cache)
    return _by_torch(request, device)


def _best_device() -> str:
    if not may_have_gpu():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _openvino_wanted(backend: CpuBackend, dtype: DType) -> bool:
    """OpenVINO computes in float32 and bfloat16 on a CPU; auto leaves float16 to torch."""
    if backend == "torch":
        return False
    installed = importlib.util.find_spec("openvino") is not None
    if backend == "openvino" and not installed:
        raise ValueError("cpu_backend is openvino, but it is not installed: pip install openvino")
    if backend == "openvino" and dtype == "float16":
        raise ValueError("OpenVINO has no float16 on a CPU: use float32, bfloat16, or torch")
    return installed and dtype != "float16"


def _load_modules(request: ModelRequest, dtype: str) -> LoadedModules:
    """The model's modules. Imports diffusers; raises CheckpointError with all that is wrong."""
    import torch

    from wsavatar.faces.musetalk.checkpoint import load_modules

    kind = getattr(torch, dtype)
    return load_modules(request.directory, request.version, kind, request.decoder)


def _by_torch(request: ModelRequest, device: str) -> LoadedStages:
    from wsavatar.faces.musetalk import torch_backend

    place = torch_backend.find_device(device)
    on_cpu = place.type == "cpu"
    dtype = request.dtype if request.dtype != "auto" else "float32" if on_cpu else "float16"
    modules = _load_modules(request, dtype)
    if on_cpu:
        stages = torch_backend.host_stages(modules, request.threads)
        return LoadedStages(modules.spec, dtype, stages, HostMemory())
    memory = torch_backend.DeviceMemory(place, dtype)
    return LoadedStages(modules.spec, dtype, torch_backend.device_stages(modules, place), memory)


def _by_openvino(request: ModelRequest, cache: Path) -> LoadedStages:
    from wsavatar.faces.musetalk.openvino_backend import StageConfig, compile_stages

    files = read_files(request.directory, request.version, request.decoder)
    if files is None:
        modules = _load_modules(request, "float32")  # says what is wrong
        files = ModelFiles(modules.spec.fingerprint, modules.extras)

    def sources() -> list[StageSource]:
        from wsavatar.faces.musetalk.openvino_sources import stage_sources

        modules = _load_modules(request, "float32")
        if modules.spec.fingerprint != files.fingerprint:
            why = "its files changed while they were read: try again"
            raise CheckpointError(request.directory, [why])
        return stage_sources(modules)

    with_bfloat16 = _in_bfloat16(request.dtype, files)
    small: Precision = "bf16" if with_bfloat16 else "f32"
    pictures = StageConfig(small, rows_alone=with_bfloat16)
    compiled = compile_stages(
        sources,
        {
            # Sums of squares over 80 dB: bfloat16 would fill quiet bands with its rounding.
            "mel": StageConfig("f32", rows_alone=True),
            "encoder": StageConfig(small, rows_alone=True),
            "crops": pictures,
            "redraw": pictures,
            "faces": pictures,
        },
        key=files.fingerprint,
        cache=cache,
        threads=request.threads,
    )
    stages: dict[str, Stage] = {name: compiled[name] for name in ("crops", "redraw", "faces")}
    stages["audio"] = _audio(compiled["mel"], compiled["encoder"], files)
    spec = _spec(request.version, files, compiled["faces"].input_shapes)
    dtype = "bfloat16" if with_bfloat16 else "float32"
    return LoadedStages(spec, dtype, stages, HostMemory())


def _in_bfloat16(dtype: DType, files: ModelFiles) -> bool:
    from wsavatar.faces.musetalk.openvino_backend import has_bfloat16

    return dtype == "bfloat16" or (dtype == "auto" and files.extras.bfloat16 and has_bfloat16())


def _audio(mel: CompiledStage, encoder: CompiledStage, files: ModelFiles) -> Stage:
    """Of whole windows, padded with silence and cut down to each window's own block."""
    grid = files.extras.grid
    samples = files.extras.window_positions * grid.position_samples
    own = slice(grid.left_positions, grid.left_positions + grid.block_positions)

    def features(windows: np.ndarray) -> np.ndarray:
        padded = np.pad(windows, ((0, 0), (0, samples - windows.shape[1])))
        return encoder(mel(padded))[:, own]

    return features


def _spec(version: Version, files: ModelFiles, rows: list[tuple[int, ...]]) -> ModelSpec:
    """What the converted model says of itself, by the rows that draw a face."""
    (channels, size, _), (tokens, dim) = rows
    extras = files.extras
    return ModelSpec(
        version=version,
        crop_size=extras.crop_size,
        latent_channels=channels // 2,
        latent_size=size,
        layers=tokens // extras.grid.frame_positions,
        dim=dim,
        grid=extras.grid,
        extra_margin=extras.extra_margin,
        fingerprint=files.fingerprint,
        decode_from_row=extras.decode_from_row,
    )
