"""A drawn avatar on the disk, a store for it, and the least model that prepares it."""

from __future__ import annotations

import json
import resource
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.drawn_faces import face_video
from wsavatar.avatars.format import AvatarFile
from wsavatar.avatars.store import AvatarStore
from wsavatar.avatars.writing import write_avatar
from wsavatar.config import AvatarSettings
from wsavatar.faces.avatar_face import AvatarFace
from wsavatar.faces.base import AvatarPictures, Progress
from wsavatar.faces.musetalk.prepare import prepare_face, prepared_key, restore_face
from wsavatar.faces.musetalk.spec import CropMargin, ModelSpec
from wsavatar.faces.musetalk.tuning import Tuning, read_tuning
from wsavatar.speech.chunker import FeatureGrid

__all__ = [
    "COUNT",
    "CountingModel",
    "H",
    "W",
    "cache_files",
    "copy_avatar",
    "edit",
    "full_disk",
    "make_avatar",
    "store_in",
]

W, H, COUNT = 160, 128, 6


@dataclass
class CountingModel:
    """Encodes a crop as the mean of its blocks, and counts: all a store asks of a model."""

    fingerprint: str = "a"
    frames_seen: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def spec(self) -> ModelSpec:
        return ModelSpec(
            version="v15",
            crop_size=64,
            latent_channels=3,
            latent_size=8,
            layers=2,
            dim=4,
            grid=FeatureGrid(),
            extra_margin=CropMargin(pixels=10),
            fingerprint=self.fingerprint,
        )

    def prepared_key(self, *, detail: bool) -> str:
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
        with self.lock:
            self.frames_seen += len(pictures)
        return prepare_face(
            avatar, pictures, landmarks, self, progress, detail=detail, tuning=tuning
        )

    def read_tuning(self, data: bytes) -> Tuning:
        return read_tuning(data, self.spec)

    def restore(self, avatar: AvatarFile, arrays: Mapping[str, np.ndarray]) -> AvatarFace:
        return restore_face(avatar, arrays, self.spec)

    def encode_crops(self, crops: np.ndarray) -> np.ndarray:
        blocks = crops.reshape(len(crops), 8, 8, 8, 8, 3).mean(axis=(2, 4))
        latents = np.moveaxis(blocks, 3, 1) / 255
        return np.concatenate([latents, latents], axis=1).astype(np.float16)

    def redraw(self, latents: np.ndarray) -> np.ndarray:
        """A coarse VAE: what is left of a crop is the means of its 8x8 squares."""
        blocks = np.moveaxis(latents[:, 3:].astype(np.float32), 1, 3) * 255
        return blocks.round().astype(np.uint8).repeat(8, axis=1).repeat(8, axis=2)


def make_avatar(directory: Path, avatar_id: str = "ada", name: str = "Ada") -> Path:
    frames, landmarks = face_video(W, H, COUNT, size=70)
    return write_avatar(directory, avatar_id, name, frames, 25, landmarks, "drawn", "MIT")


def copy_avatar(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    edit(target, id=target.name, name=target.name.title())


def edit(folder: Path, **changes: object) -> None:
    path = folder / "avatar.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes))


def store_in(home: Path, model: Any = None, **options: Any) -> AvatarStore:
    settings = AvatarSettings(directory=home / "avatars", cache=home / "cache")
    return AvatarStore(settings, model or CountingModel(), **options)


def cache_files(home: Path) -> list[Path]:
    return sorted((home / "cache").rglob("*.safetensors"))


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow beyond a KiB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
