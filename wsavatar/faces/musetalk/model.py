"""One loaded model on one device: audio windows and crops in, faces out.

This module knows the stages, not what computes them (`wsavatar.faces.musetalk.loading` does), the
callers or how batches are chosen.

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

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsavatar.avatars.format import AvatarFile
from wsavatar.faces.avatar_face import AvatarFace
from wsavatar.faces.base import AvatarPictures, Progress
from wsavatar.faces.musetalk.conditions import ChunkConditions
from wsavatar.faces.musetalk.files import CheckpointError
from wsavatar.faces.musetalk.loading import (
    CpuBackend,
    DType,
    LoadedStages,
    ModelRequest,
    Stage,
    load_stages,
)
from wsavatar.faces.musetalk.memory import Array
from wsavatar.faces.musetalk.positions import gather_conditions, positional_encoding
from wsavatar.faces.musetalk.prepare import prepare_face, prepared_key, restore_face
from wsavatar.faces.musetalk.spec import Decoder, Version
from wsavatar.faces.musetalk.tuning import Tuning, read_tuning
from wsavatar.resources import cache_directory
from wsavatar.speech.chunker import Chunk, FeatureGrid

__all__ = ["Array", "CheckpointError", "CpuBackend", "DType", "MuseTalk"]

_ENCODE_BATCH = 4
"""Crops encoded at once: the widest activations of a prepared avatar's whole cycle are big."""


class MuseTalk:
    """A loaded model. Make one with `MuseTalk.load`."""

    def __init__(self, loaded: LoadedStages) -> None:
        self.spec = spec = loaded.spec
        self.dtype = loaded.dtype
        """What pictures are computed in: "float32", "float16" or "bfloat16"."""
        self._memory = loaded.memory
        names = ("audio", "crops", "redraw", "faces")
        self._audio, self._crops, self._redraw, self._faces = (loaded.stages[n] for n in names)
        tokens = spec.grid.frame_positions * spec.layers
        self._encoding = self._memory.put(positional_encoding(tokens, spec.dim))

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
        converted: where it holds all of this model, torch is not imported. Raises CheckpointError
        with every problem of the files, ValueError for a device or backend that is not there.
        """
        request = ModelRequest(Path(directory), version, decoder, dtype, cpu_threads)
        return cls(load_stages(request, device, cpu_backend, cache or cache_directory()))

    # -- as the renderer and the avatars' store see it (`wsavatar.faces.base`) --------------------

    @property
    def device(self) -> Any:
        """``"cpu"``, or torch's device."""
        return self._memory.device

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
        pictures: AvatarPictures,
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

    def encode_audio(self, windows: np.ndarray) -> Array:
        """float32 [b, grid.window_samples] -> float32 [b * block_positions, layers, dim].

        Only each window's own block is returned, without its context; b may be 0.
        """
        spec = self.spec
        if windows.ndim != 2 or windows.shape[1] != spec.grid.window_samples:
            raise ValueError(
                f"expected windows [b, {spec.grid.window_samples}], got {list(windows.shape)}"
            )
        if not len(windows):
            none: Array = self._memory.put(np.zeros((0, spec.layers, spec.dim), np.float32))
            return none
        with self._memory.computing():
            features = self._audio(self._memory.put(windows.astype(np.float32, copy=False)))
            made: Array = self._memory.floats(features).reshape(-1, spec.layers, spec.dim)
        return made

    def condition(self, features: Array | Sequence[Array], chunk: Chunk) -> Array:
        """A chunk's features -> float32 [frames, 10 * layers, dim], positional encoding added.

        ``features`` may come in parts, in order. Raises ValueError where they are not those of the
        chunk's own blocks.
        """
        with self._memory.computing():
            whole = self._memory.joined(features) if isinstance(features, Sequence) else features
            made: Array = gather_conditions(whole, chunk, self.spec.grid) + self._encoding
        return made

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
            batch = slice(start, start + _ENCODE_BATCH)
            with self._memory.computing():
                made = self._crops(self._memory.put(np.ascontiguousarray(crops[batch])))
                latents[batch] = self._memory.host(made)
        return latents

    def redraw(self, latents: np.ndarray) -> np.ndarray:
        """float16 [n, 2C, h, w] of `encode_crops` -> uint8 [n, S, S, 3]: what is left of the crops.

        The reference latents, decoded as `generate` decodes: the same pictures but for what the VAE
        loses of them. Rows above `ModelSpec.decoded_from_y` are black.
        """
        size = self.spec.crop_size
        pictures = np.empty((len(latents), size, size, 3), np.uint8)
        for start in range(0, len(latents), _ENCODE_BATCH):
            batch = slice(start, start + _ENCODE_BATCH)
            with self._memory.computing():
                own = self._memory.rows(latents[batch, self.spec.latent_channels :])
                pictures[batch] = self._memory.host(self._redraw(own))
        return pictures

    def generate(
        self, latents: Array | Sequence[Array], condition: Array | Sequence[Array]
    ) -> Array:
        """[b, 2C, h, w] and [b, 10 * layers, dim] -> uint8 [b, S, S, 3] RGB.

        Either may be a sequence of b rows, in numpy or torch: rows of different chunks make one
        batch without anyone but the model knowing where arrays live. The result is the caller's.
        """
        with self._memory.computing():
            rows, conditions = self._memory.rows(latents), self._memory.rows(condition)
            if len(rows) != len(conditions):
                raise ValueError(f"{len(rows)} latents, but {len(conditions)} conditions")
            made: Array = self._faces(rows, conditions)
        return made

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Make `generate` as fast as it gets at these batch sizes, and the first call no slower."""
        spec = self.spec
        windows = np.zeros((1, spec.grid.window_samples), np.float32)
        self.encode_audio(windows)
        tokens = spec.grid.frame_positions * spec.layers
        latent = (2 * spec.latent_channels, spec.latent_size, spec.latent_size)
        for size in _known_sizes(self._audio):
            self._audio.specialise(size)  # type: ignore[attr-defined]
        if hasattr(self._faces, "load"):  # OpenVINO: any other size too
            self._faces.load()
        specialise = getattr(self._faces, "specialise", None)  # OpenVINO and CUDA graphs have one
        for size in self._captured_sizes(batch_sizes):
            if specialise is not None:
                specialise(size)
            self.generate(
                np.zeros((size, *latent), np.float16),
                np.zeros((size, tokens, spec.dim), np.float32),
            )
        self._memory.settle()

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Batch sizes that run as they are; empty: any. Others are filled up to the next."""
        return _known_sizes(self._faces)

    def memory_used(self) -> float:
        """Share of the device's memory in use, by anyone, 0 to 1; 0 on a CPU."""
        return self._memory.used()

    def release(self) -> None:
        """Give memory that is only cached back to the device."""
        self._memory.release()

    def _captured_sizes(self, batch_sizes: Sequence[int]) -> list[int]:
        """On a CUDA device every size up to the greatest, so that batches may grow and shrink."""
        if not self.batch_sizes:
            return list(batch_sizes)
        greatest = max(batch_sizes, default=0)
        return [size for size in self.batch_sizes if size < greatest] + [greatest]


def _known_sizes(stage: Stage) -> tuple[int, ...]:
    """The batch sizes of a stage that has only some, as CUDA graphs have."""
    sizes: tuple[int, ...] = getattr(stage, "known_sizes", ())
    return sizes
