"""Prepares an avatar once: where its face is in every frame, and the latents to start from.

This module knows the model by its contract alone, and neither disk caches nor sessions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from wsavatar.avatars.format import AvatarError, AvatarFile
from wsavatar.faces.avatar_face import DETAIL_CELL, AvatarFace, Detail, in_cells
from wsavatar.faces.base import Progress
from wsavatar.faces.masks import Box, Masks, PackedMask, trimmed
from wsavatar.faces.musetalk.geometry import (
    GeometryError,
    crop_box,
    lower_face_mask,
    paste_box,
    smooth_landmarks,
    take_crop,
)
from wsavatar.faces.musetalk.reference import mouth_references
from wsavatar.faces.musetalk.spec import CropMargin, ModelSpec

__all__ = ["CropCoder", "prepare_face", "prepared_key", "restore_face"]

PREPARE_VERSION = 2
"""Raise it with any change to what `prepare_face` computes."""
_ENCODE_BATCH = 8


class CropCoder(Protocol):
    """What of `wsavatar.faces.musetalk.model.MuseTalk` is needed here."""

    @property
    def spec(self) -> ModelSpec: ...

    def encode_crops(self, crops: np.ndarray, /) -> np.ndarray: ...

    def redraw(self, latents: np.ndarray, /) -> np.ndarray: ...


def prepared_key(spec: ModelSpec, *, detail: bool) -> str:
    """Digest of all of the model that `prepare_face` depends on."""
    margin = spec.extra_margin
    parts = [PREPARE_VERSION, spec.fingerprint, spec.version, spec.crop_size, spec.decoded_from_y]
    parts += [margin.pixels, margin.relative, detail]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def prepare_face(
    avatar: AvatarFile,
    pictures: Sequence[np.ndarray],
    landmarks: np.ndarray,
    model: CropCoder,
    progress: Progress | None = None,
    *,
    detail: bool,
) -> AvatarFace:
    """Find crops and masks of ``pictures`` uint8 [H, W, 3] and encode them, with `Detail` or not.

    The face's ``inputs`` are latents, float16 [n, 2C, h, w]: masked, then reference, which is that
    of a frame whose mouth is at rest. Raises AvatarError naming the frame whose face has no place
    in the picture.
    """
    spec = model.spec
    crops, pastes, masks = _place_faces(avatar, smooth_landmarks(landmarks, avatar.fps), spec)
    count = len(pictures)
    latents = np.empty((count, *_latent_shape(spec)), np.float16)
    kept = Detail(*(np.empty(*one) for one in _detail_arrays(spec, count))) if detail else None
    for start in range(0, count, _ENCODE_BATCH):
        batch = range(start, min(start + _ENCODE_BATCH, count))
        frames = np.stack([take_crop(pictures[i], crops[i], spec.crop_size) for i in batch])
        rows = slice(start, batch.stop)
        latents[rows] = model.encode_crops(frames)
        if kept is not None:
            _put_detail(kept, rows, frames, model.redraw(latents[rows]))
        if progress is not None:
            progress(batch.stop, count)
    own = spec.latent_channels
    latents[:, own:] = latents[mouth_references(landmarks), own:]
    return AvatarFace(
        crop_boxes=np.array(crops, dtype=np.int32),
        paste_boxes=np.array(pastes, dtype=np.int32),
        masks=Masks(masks),
        inputs=latents,
        detail=kept,
    )


def restore_face(
    avatar: AvatarFile, arrays: Mapping[str, np.ndarray], spec: ModelSpec
) -> AvatarFace:
    """What `prepare_face` made, from its arrays. Raises ValueError or KeyError if unfit."""
    count = avatar.frame_count
    face = AvatarFace.from_arrays(arrays, count)
    if face.inputs.shape != (count, *_latent_shape(spec)):
        raise ValueError(f"its latents are {face.inputs.shape}")
    if face.detail is not None:
        found = face.detail.lost.shape, face.detail.redrawn.shape
        if found != tuple(shape for shape, _ in _detail_arrays(spec, count)):
            raise ValueError(f"its detail's shapes are {found}")
    return face


def _latent_shape(spec: ModelSpec) -> tuple[int, int, int]:
    return 2 * spec.latent_channels, spec.latent_size, spec.latent_size


def _detail_arrays(spec: ModelSpec, count: int) -> tuple[tuple[tuple[int, ...], type], ...]:
    """Shape and type of `Detail.lost` and `Detail.redrawn` of so many frames."""
    width, rows = spec.crop_size, spec.crop_size - spec.decoded_from_y
    cells = (count, rows // DETAIL_CELL, width // DETAIL_CELL, 3)
    return ((count, rows, width, 3), np.int8), (cells, np.uint8)


def _put_detail(kept: Detail, frames: slice, crops: np.ndarray, redrawn: np.ndarray) -> None:
    """Fill in what ``redrawn`` lost of the frames' ``crops``, both uint8 [b, S, S, 3]."""
    rows = kept.lost.shape[1]
    crops, redrawn = crops[:, -rows:], redrawn[:, -rows:]
    kept.lost[frames] = np.clip(crops.astype(np.int16) - redrawn, -128, 127)
    kept.redrawn[frames] = [in_cells(picture) for picture in redrawn]


def _place_faces(
    avatar: AvatarFile, landmarks: np.ndarray, spec: ModelSpec
) -> tuple[list[Box], list[Box], list[PackedMask]]:
    width, height = avatar.width, avatar.height
    shift = avatar.bbox_shift if spec.version == "v1" else 0
    margin = spec.extra_margin
    if avatar.extra_margin is not None:
        margin = CropMargin(pixels=avatar.extra_margin)
    first_row = spec.decoded_from_y / spec.crop_size
    crops, pastes, masks = [], [], []
    for index, points in enumerate(landmarks):
        try:
            crop = crop_box(points, margin, width, height, bbox_shift=shift)
        except GeometryError as error:
            raise AvatarError(f"{avatar.id}: frame {index}: {error}") from error
        square = paste_box(crop, width, height)
        mask = lower_face_mask(points, crop, square, width, height, first_row=first_row)
        if not mask.any():
            raise AvatarError(f"{avatar.id}: frame {index}: no lower face inside the picture")
        crops.append(crop)
        box, mask = trimmed(square, mask)
        pastes.append(box)
        masks.append(PackedMask.of(mask))
    return crops, pastes, masks
