"""The disk cache of prepared faces: one safetensors file an avatar and model, nothing pickled.

A file is named by all that it depends on, written beside its place and renamed into it, so that
several preparers never see each other's halves. Its header carries a JSON manifest with a checksum
of the content: a file that is damaged, cut short or not ours is reported and ignored, never
trusted. Pictures are not kept here: decoding the idle video costs less than reading them would.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from wsavatar.avatars.avatar import Detail
from wsavatar.avatars.format import AvatarFile, file_in
from wsavatar.avatars.prepare import FaceData, detail_shapes
from wsavatar.errors import WsavatarError

if TYPE_CHECKING:
    from wsavatar.faces.musetalk.spec import ModelSpec

__all__ = ["FaceCache", "cache_key"]

CACHE_VERSION = 2
"""Raise it with any change to what `prepare` computes."""
_KEPT_PER_AVATAR = 4
_MAX_FILE_BYTES = 4 * 1024**3

_log = logging.getLogger(__name__)


class _DamagedError(WsavatarError):
    """A cache file is not what was written; the message says how it shows."""


def cache_key(folder: Path, avatar: AvatarFile, spec: ModelSpec, *, detail: bool) -> str:
    """Digest of all that face data depends on: this format, the model, the avatar's content."""
    digest = hashlib.sha256()
    margin = spec.extra_margin
    parts = [CACHE_VERSION, spec.fingerprint, spec.version, spec.crop_size, spec.decoded_from_y]
    parts += [margin.pixels, margin.relative, detail]
    digest.update(json.dumps(parts).encode())
    names = ["avatar.json", avatar.video]
    names += [avatar.landmarks] if isinstance(avatar.landmarks, str) else []
    for name in names:
        with file_in(folder, name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


class FaceCache:
    """Loads and saves face data under ``directory``; a disk that refuses only costs time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "avatars"

    def path(self, avatar_id: str, key: str) -> Path:
        return self._directory / f"{avatar_id}.{key}.safetensors"

    def load(self, avatar: AvatarFile, key: str, spec: ModelSpec) -> FaceData | None:
        """The avatar's face data, or None where there is none or it cannot be trusted."""
        path = self.path(avatar.id, key)
        try:
            faces = _read(path, key)
            _check(faces, avatar, spec)
        except FileNotFoundError:
            return None
        except (_DamagedError, SafetensorError, OSError, ValueError, KeyError) as error:
            _log.warning("cache %s is damaged (%s): preparing %r again", path, error, avatar.id)
            return None
        return faces

    def save(self, avatar_id: str, key: str, faces: FaceData) -> None:
        """Keep face data for the next start; warns where the disk refuses."""
        path = self.path(avatar_id, key)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            _write(path, key, faces)
            self._forget_old(avatar_id, path)
        except OSError as error:
            _log.warning(
                "cache %s cannot be written (%s): the next start prepares again", path, error
            )

    def _forget_old(self, avatar_id: str, newest: Path) -> None:
        """Keep the newest few, so that models may alternate and edits do not pile up."""
        others = [p for p in self._directory.glob(f"{avatar_id}.*.safetensors") if p != newest]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in others[_KEPT_PER_AVATAR - 1 :]:
            path.unlink(missing_ok=True)


def _tensors(faces: FaceData) -> dict[str, np.ndarray]:
    tensors = {
        "crop_boxes": faces.crop_boxes,
        "latents": faces.latents,
        "masks": np.concatenate([mask.ravel() for mask in faces.masks]),
        "paste_boxes": faces.paste_boxes,
    }
    if faces.detail is not None:
        tensors |= {"lost": faces.detail.lost, "redrawn": faces.detail.redrawn}
    # safetensors writes an array's memory as it lies, whatever its strides say.
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def _checksum(tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _write(path: Path, key: str, faces: FaceData) -> None:
    tensors = _tensors(faces)
    manifest = {"version": CACHE_VERSION, "key": key, "sha256": _checksum(tensors)}
    handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        save_file(tensors, temporary, metadata={"wsavatar": json.dumps(manifest)})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path, key: str) -> FaceData:
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise _DamagedError("it is too large")
    with safe_open(path, framework="np") as file:
        manifest = json.loads((file.metadata() or {}).get("wsavatar", "{}"))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    if not isinstance(manifest, dict) or manifest.get("version") != CACHE_VERSION:
        raise _DamagedError("its manifest is missing or of another version")
    if manifest.get("key") != key:
        raise _DamagedError("it was written for something else")
    if manifest.get("sha256") != _checksum(tensors):
        raise _DamagedError("its checksum differs")
    paste_boxes = tensors["paste_boxes"]
    return FaceData(
        crop_boxes=tensors["crop_boxes"],
        paste_boxes=paste_boxes,
        masks=_split_masks(tensors["masks"], paste_boxes),
        latents=tensors["latents"],
        detail=Detail(tensors["lost"], tensors["redrawn"]) if "lost" in tensors else None,
    )


def _split_masks(flat: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, ...]:
    sizes = (boxes[:, 2:] - boxes[:, :2])[:, ::-1].astype(np.int64)
    if (sizes < 1).any() or sizes.prod(axis=1).sum() != len(flat):
        raise _DamagedError("its masks do not fit its boxes")
    pieces = np.split(flat, np.cumsum(sizes.prod(axis=1))[:-1])
    return tuple(
        piece.reshape(height, width) for piece, (height, width) in zip(pieces, sizes, strict=True)
    )


def _check(faces: FaceData, avatar: AvatarFile, spec: ModelSpec) -> None:
    count, side = avatar.frame_count, spec.latent_size
    latents = (count, 2 * spec.latent_channels, side, side)
    shapes = (faces.crop_boxes.shape, faces.paste_boxes.shape, faces.latents.shape)
    if shapes != ((count, 4), (count, 4), latents) or len(faces.masks) != count:
        raise _DamagedError(f"its shapes are {shapes}")
    if faces.detail is not None:
        found = (faces.detail.lost.shape, faces.detail.redrawn.shape)
        if found != detail_shapes(count, spec):
            raise _DamagedError(f"its detail's shapes are {found}")
