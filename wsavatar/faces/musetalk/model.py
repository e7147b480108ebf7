"""One loaded model on one device: audio windows and crops in, faces out.

This module knows the stages and their devices, not the callers or how batches are chosen.

Arrays are numpy on a CPU and torch tensors on the device elsewhere. Thread-safe; a call blocks
until its result is ready (on a CPU) or queued (on a GPU).

What is exact: on a CPU each audio window runs alone, so features and conditions are the same bit
for bit whatever a chunk holds. Pictures are made in batches of any composition. In float32 a row's
values may differ by the rounding of another batch size's kernels, at most one of 255 levels. In
bfloat16 that would be six levels and more, so there each row runs alone too (OpenVINO), and
pictures are the same bit for bit in any batch. On a GPU both are batched: features differ by float
rounding with the batch's size.

On a CPU bfloat16 is for Whisper's encoder and for pictures. The spectrogram is float32, and so are
an avatar's latents: what is kept of an avatar is the same whatever the processor can do.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from wsavatar.avatars.format import AvatarFile
from wsavatar.faces.avatar_face import AvatarFace
from wsavatar.faces.base import Progress
from wsavatar.faces.musetalk.checkpoint import CheckpointError, LoadedModules, load_modules
from wsavatar.faces.musetalk.conditions import ChunkConditions
from wsavatar.faces.musetalk.features import (
    AudioFeatures,
    LogMel,
    gather_conditions,
    positional_encoding,
)
from wsavatar.faces.musetalk.fused import FusedFaces, UnfusableError
from wsavatar.faces.musetalk.fused_audio import FusedAudio
from wsavatar.faces.musetalk.graphs import GRAPH_SIZES, GraphedStage
from wsavatar.faces.musetalk.networks import CropEncoder, FaceGenerator, fold_timestep
from wsavatar.faces.musetalk.prepare import prepare_face, prepared_key, restore_face
from wsavatar.faces.musetalk.spec import Decoder, ModelSpec, Version
from wsavatar.faces.musetalk.tuning import Tuning, read_tuning
from wsavatar.resources import cache_directory
from wsavatar.speech.chunker import Chunk, FeatureGrid

__all__ = ["Array", "CheckpointError", "CpuBackend", "DType", "MuseTalk"]

Array = np.ndarray | Tensor
CpuBackend = Literal["auto", "openvino", "torch"]
DType = Literal["auto", "float32", "float16", "bfloat16"]
Stage = Callable[..., Tensor]

_log = logging.getLogger(__name__)

_WINDOWS_AT_ONCE = (1, 2, 3, 5, 8, 10, 15, 20, 30)
"""Audio windows in a call on a CUDA device, others filled up. A chunk of 0.5 s brings five new ones
(eight when it is a stream's first), and those of several sessions come together."""
_ENCODE_BATCH = 4
"""Crops encoded at once: the widest activations of a prepared avatar's whole cycle are big."""


class MuseTalk:
    """A loaded model. Make one with `MuseTalk.load`."""

    def __init__(
        self,
        spec: ModelSpec,
        device: torch.device,
        dtype: torch.dtype,
        stages: dict[str, Stage],
    ) -> None:
        self.spec = spec
        self.device = device
        self.dtype = dtype
        self._kept_bytes = 0  # of the device: weights, and what graphs compute in
        names = ("audio", "crops", "redraw", "faces")
        self._audio, self._crops, self._redraw, self._faces = (stages[n] for n in names)
        tokens = spec.grid.frame_positions * spec.layers
        self._encoding = self._array(positional_encoding(tokens, spec.dim).to(device))

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        version: Version = "v15",
        decoder: Decoder = "vae",
        device: str = "cpu",
        dtype: DType = "auto",
        cpu_backend: CpuBackend = "auto",
        cpu_threads: int = 0,
        cache: Path | None = None,
    ) -> MuseTalk:
        """Load an official-layout directory.

        ``dtype`` auto is float16 on a GPU. On a CPU it is float32, or bfloat16 where OpenVINO runs,
        the processor computes in it, and the model's files say that its pictures stay true
        (`ModelExtras.bfloat16`). ``cpu_backend`` auto is OpenVINO where it is installed and can
        compute in that dtype. ``cpu_threads`` 0: all cores.
        ``cache`` (None: ``$XDG_CACHE_HOME/wsavatar`` or ``~/.cache/wsavatar``) keeps what OpenVINO
        compiled. Raises CheckpointError with every problem of the files, ValueError for a device
        or backend that is not there.
        """
        place = _device(device)
        chosen = _dtype(dtype, place)
        with_openvino = place.type == "cpu" and _openvino_wanted(cpu_backend, chosen)
        modules = load_modules(
            directory, version, torch.float32 if with_openvino else chosen, decoder
        )
        fold_timestep(modules.unet)
        if with_openvino:
            if dtype == "auto" and modules.extras.bfloat16 and _has_bfloat16():
                chosen = torch.bfloat16
            stages = _openvino_stages(
                modules, cache or cache_directory(), cpu_threads, chosen is torch.bfloat16
            )
        else:
            if place.type == "cpu" and cpu_threads:
                torch.set_num_threads(cpu_threads)
            stages = _torch_stages(modules, place)
        if not isinstance(stages["audio"], GraphedStage):
            stages["audio"] = _own_block(stages["audio"], modules)
        return cls(modules.spec, place, chosen, stages)

    # -- as the renderer and the avatars' store see it (`wsavatar.faces.base`) --------------------

    @property
    def windows(self) -> FeatureGrid:
        """The windows in which it takes speech."""
        return self.spec.grid

    def conditions(self) -> ChunkConditions:
        """A new instance, for one thread."""
        return ChunkConditions(self)

    def prepared_key(self, *, detail: bool) -> str:
        """Identifies everything but the avatar that `prepare` depends on."""
        return prepared_key(self.spec, detail=detail)

    def prepare(
        self,
        avatar: AvatarFile,
        pictures: Sequence[np.ndarray],
        landmarks: np.ndarray,
        progress: Progress | None = None,
        *,
        detail: bool,
        tuning: Tuning | None = None,
    ) -> AvatarFace:
        """See `prepare_face`."""
        for stage in (self._crops, self._redraw):
            if hasattr(stage, "specialise"):  # OpenVINO: a fifth less time
                stage.specialise(_ENCODE_BATCH)
        return prepare_face(
            avatar, pictures, landmarks, self, progress, detail=detail, tuning=tuning
        )

    def read_tuning(self, data: bytes) -> Tuning:
        """See `wsavatar.faces.musetalk.tuning.read_tuning`."""
        return read_tuning(data, self.spec)

    def restore(self, avatar: AvatarFile, arrays: Mapping[str, np.ndarray]) -> AvatarFace:
        """See `restore_face`."""
        return restore_face(avatar, arrays, self.spec)

    # -- its stages -------------------------------------------------------------------------------

    @torch.inference_mode()
    def encode_audio(self, windows: Array) -> Array:
        """float32 [b, grid.window_samples] -> float32 [b * block_positions, layers, dim].

        Only each window's own block is returned, without its context; b may be 0.
        """
        grid, spec = self.spec.grid, self.spec
        audio = self._tensor(windows).float()
        if audio.ndim != 2 or audio.shape[1] != grid.window_samples:
            raise ValueError(
                f"expected windows [b, {grid.window_samples}], got {list(audio.shape)}"
            )
        if not len(audio):
            return self._array(audio.new_zeros(0, spec.layers, spec.dim))
        return self._array(self._audio(audio).float().flatten(0, 1))

    @torch.inference_mode()
    def condition(self, features: Array | Sequence[Array], chunk: Chunk) -> Array:
        """A chunk's features -> float32 [frames, 10 * layers, dim], positional encoding added.

        ``features`` may come in parts, in order. Raises ValueError where they are not those of the
        chunk's own blocks.
        """
        if not isinstance(features, np.ndarray | Tensor):
            features = self._array(torch.cat([self._tensor(part) for part in features]))
        gathered: Any = gather_conditions(features, chunk, self.spec.grid)
        return cast("Array", gathered + self._encoding)

    @torch.inference_mode()
    def encode_crops(self, crops: np.ndarray) -> np.ndarray:
        """uint8 [n, S, S, 3] RGB, mouth at rest -> float16 [n, 2C, h, w]: masked, reference.

        Always numpy: prepared avatars are shared between devices and kept on disk.
        """
        spec = self.spec
        if crops.dtype != np.uint8 or crops.shape[1:] != (spec.crop_size, spec.crop_size, 3):
            raise ValueError(
                f"expected uint8 crops [n, {spec.crop_size}, {spec.crop_size}, 3], "
                f"got {crops.dtype} {list(crops.shape)}"
            )
        size = spec.latent_size
        latents = np.empty((len(crops), 2 * spec.latent_channels, size, size), np.float16)
        for start in range(0, len(crops), _ENCODE_BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(crops[start : start + _ENCODE_BATCH]))
            made = self._crops(batch.to(self.device))
            latents[start : start + len(batch)] = made.to("cpu", torch.float16).numpy()
        return latents

    @torch.inference_mode()
    def redraw(self, latents: np.ndarray) -> np.ndarray:
        """float16 [n, 2C, h, w] of `encode_crops` -> uint8 [n, S, S, 3]: what is left of the crops.

        The reference latents, decoded as `generate` decodes: the same pictures but for what the VAE
        loses of them. Rows above `ModelSpec.decoded_from_y` are black.
        """
        size = self.spec.crop_size
        pictures = np.empty((len(latents), size, size, 3), np.uint8)
        for start in range(0, len(latents), _ENCODE_BATCH):
            batch = latents[start : start + _ENCODE_BATCH, self.spec.latent_channels :]
            made = self._redraw(self._batch(np.ascontiguousarray(batch)))
            pictures[start : start + len(batch)] = made.cpu().numpy()
        return pictures

    @torch.inference_mode()
    def generate(
        self, latents: Array | Sequence[Array], condition: Array | Sequence[Array]
    ) -> Array:
        """[b, 2C, h, w] and [b, 10 * layers, dim] -> uint8 [b, S, S, 3] RGB.

        Either may be a sequence of b rows, in numpy or torch: rows of different chunks make one
        batch without anyone but the model knowing where arrays live. The result is the caller's.
        """
        rows, conditions = self._batch(latents), self._batch(condition)
        if len(rows) != len(conditions):
            raise ValueError(f"{len(rows)} latents, but {len(conditions)} conditions")
        return self._array(self._faces(rows, conditions))

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Make `generate` as fast as it gets at these batch sizes, and the first call no slower."""
        spec = self.spec
        windows = np.zeros((1, spec.grid.window_samples), np.float32)
        self.encode_audio(windows)
        tokens = spec.grid.frame_positions * spec.layers
        latent = (2 * spec.latent_channels, spec.latent_size, spec.latent_size)
        if isinstance(self._audio, GraphedStage):
            for size in _WINDOWS_AT_ONCE:
                self._audio.specialise(size)
        specialise = getattr(self._faces, "specialise", None)  # OpenVINO and CUDA graphs have one
        for size in self._captured_sizes(batch_sizes):
            if specialise is not None:
                specialise(size)
            self.generate(
                np.zeros((size, *latent), np.float16),
                np.zeros((size, tokens, spec.dim), np.float32),
            )
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.release()  # what trying out convolution algorithms took
            self._kept_bytes = torch.cuda.memory_reserved(self.device)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Batch sizes that run as they are; empty: any. Others are filled up to the next."""
        return GRAPH_SIZES if isinstance(self._faces, GraphedStage) else ()

    def memory_used(self) -> float:
        """Share of the device's memory in use, by anyone, 0 to 1; 0 on a CPU."""
        if self.device.type != "cuda":
            return 0.0
        free, total = torch.cuda.mem_get_info(self.device)
        # What torch only keeps in its cache is as good as free; the graphs' own pools are not.
        kept = max(torch.cuda.memory_allocated(self.device), self._kept_bytes)
        cached = max(0, torch.cuda.memory_reserved(self.device) - kept)
        return 1.0 - (free + cached) / total

    def release(self) -> None:
        """Give memory that is only cached back to the device."""
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                torch.cuda.empty_cache()

    def _captured_sizes(self, batch_sizes: Sequence[int]) -> list[int]:
        """On a CUDA device every size up to the greatest, so that batches may grow and shrink."""
        if not self.batch_sizes:
            return list(batch_sizes)
        greatest = max(batch_sizes, default=0)
        return [size for size in GRAPH_SIZES if size < greatest] + [greatest]

    def _tensor(self, values: Array) -> Tensor:
        tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
        return tensor.to(self.device, non_blocking=True)

    def _batch(self, values: Array | Sequence[Array]) -> Tensor:
        compute = torch.float32 if self.device.type == "cpu" else self.dtype
        if isinstance(values, np.ndarray | Tensor):
            return self._tensor(values).to(compute)
        if all(isinstance(row, np.ndarray) for row in values):
            return self._tensor(np.stack(cast("list[np.ndarray]", list(values)))).to(compute)
        return torch.stack([self._tensor(row) for row in values]).to(compute)

    def _array(self, tensor: Tensor) -> Array:
        return tensor.numpy() if self.device.type == "cpu" else tensor


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}: use cpu, cuda:0, cuda:1, …") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"{name} is not there: torch sees {torch.cuda.device_count()} CUDA devices"
        )
    return device


def _dtype(name: DType, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[name]


def _openvino_wanted(backend: CpuBackend, dtype: torch.dtype) -> bool:
    """OpenVINO computes in float32 and bfloat16 on a CPU; auto leaves float16 to torch."""
    if backend == "torch":
        return False
    installed = importlib.util.find_spec("openvino") is not None
    if backend == "openvino" and not installed:
        raise ValueError("cpu_backend is openvino, but it is not installed: pip install openvino")
    if backend == "openvino" and dtype is torch.float16:
        raise ValueError("OpenVINO has no float16 on a CPU: use float32, bfloat16, or torch")
    return installed and dtype is not torch.float16


def _torch_stages(modules: LoadedModules, device: torch.device) -> dict[str, Stage]:
    faces = FaceGenerator(modules.unet, modules.vae, modules.spec.decode_from_row, modules.tiny)
    parts: dict[str, nn.Module] = {
        "audio": _audio_features(modules),
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
    return stages | {"audio": _one_by_one(stages["audio"])}


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


def _audio_features(modules: LoadedModules) -> AudioFeatures:
    return AudioFeatures(LogMel(modules.audio.config.num_mel_bins), modules.audio)


def _own_block(stage: Stage, modules: LoadedModules) -> Stage:
    """A stage of whole windows, padded with silence and cut down to each window's own block."""
    grid = modules.spec.grid
    samples = modules.extras.window_positions * grid.position_samples
    own = slice(grid.left_positions, grid.left_positions + grid.block_positions)

    def features(audio: Tensor) -> Tensor:
        return stage(nn.functional.pad(audio, (0, samples - audio.shape[1])))[:, own]

    return features


def _one_by_one(stage: Stage) -> Stage:
    """A window's features must not depend on the windows that come with it."""
    return lambda audio: torch.cat([stage(window) for window in audio.split(1)])


def _cast_to(module: nn.Module) -> Stage:
    dtype = next(module.parameters()).dtype

    def stage(*inputs: Tensor) -> Tensor:
        cast_inputs = (x.to(dtype) if x.is_floating_point() else x for x in inputs)
        return cast("Tensor", module(*cast_inputs))

    return stage


def _has_bfloat16() -> bool:
    from wsavatar.faces.musetalk.openvino_backend import has_bfloat16

    return has_bfloat16()


def _openvino_stages(
    modules: LoadedModules, cache: Path, threads: int, bfloat16: bool
) -> dict[str, Stage]:
    from wsavatar.faces.musetalk.openvino_backend import (
        Precision,
        StageConfig,
        StageSource,
        compile_stages,
    )

    spec, size = modules.spec, modules.spec.latent_size

    def sources() -> list[StageSource]:
        samples = modules.extras.window_positions * spec.grid.position_samples
        mel = LogMel(modules.audio.config.num_mel_bins)
        audio = torch.zeros(2, samples)
        crops = torch.zeros(2, spec.crop_size, spec.crop_size, 3, dtype=torch.uint8)
        latents = torch.zeros(2, 2 * spec.latent_channels, size, size)
        condition = torch.zeros(2, spec.grid.frame_positions * spec.layers, spec.dim)
        faces = FaceGenerator(modules.unet, modules.vae, spec.decode_from_row, modules.tiny)
        return [
            StageSource("mel", mel, (audio,)),
            StageSource("encoder", modules.audio, (mel(audio),)),
            StageSource("crops", CropEncoder(modules.vae), (crops,)),
            StageSource("redraw", faces.decode, (latents[:, : spec.latent_channels],)),
            StageSource("faces", faces, (latents, condition)),
        ]

    small: Precision = "bf16" if bfloat16 else "f32"
    compiled = compile_stages(
        sources,
        {
            # Sums of squares over 80 dB: bfloat16 would fill quiet bands with its rounding.
            "mel": StageConfig("f32", rows_alone=True),
            "encoder": StageConfig(small, rows_alone=True),
            "crops": StageConfig("f32"),
            "redraw": StageConfig("f32"),
            "faces": StageConfig(small, rows_alone=bfloat16),
        },
        key=spec.fingerprint,
        cache=cache,
        threads=threads,
    )
    mel, encoder = compiled.pop("mel"), compiled.pop("encoder")
    return {**compiled, "audio": lambda audio: encoder(mel(audio))}
