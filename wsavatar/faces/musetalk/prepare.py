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
from wsavatar.faces.musetalk.geometry import (
    GeometryError,
    crop_box,
    lower_face_mask,
    paste_box,
    smooth_landmarks,
    take_crop,
)
from wsavatar.faces.musetalk.spec import CropMargin, ModelSpec

__all__ = ["CropCoder", "prepare_face", "prepared_key", "restore_face"]

PREPARE_VERSION = 1
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
    frames: np.ndarray,
    landmarks: np.ndarray,
    model: CropCoder,
    progress: Progress | None = None,
    *,
    detail: bool,
) -> AvatarFace:
    """Find crops and masks of ``frames`` uint8 [n, H, W, 3] and encode them, with `Detail` or not.

    The face's ``inputs`` are latents, float16 [n, 2C, h, w]: masked, then reference. Raises
    AvatarError naming the frame whose face has no place in the picture.
    """
    spec = model.spec
    crops, pastes, masks = _place_faces(avatar, smooth_landmarks(landmarks, avatar.fps), spec)
    latents, details = [], []
    for start in range(0, len(frames), _ENCODE_BATCH):
        batch = range(start, min(start + _ENCODE_BATCH, len(frames)))
        pictures = np.stack([take_crop(frames[i], crops[i], spec.crop_size) for i in batch])
        latents.append(model.encode_crops(pictures))
        if detail:
            details.append(_detail(pictures, model.redraw(latents[-1]), spec.decoded_from_y))
        if progress is not None:
            progress(batch.stop, len(frames))
    return AvatarFace(
        crop_boxes=np.array(crops, dtype=np.int32),
        paste_boxes=np.array(pastes, dtype=np.int32),
        masks=tuple(masks),
        inputs=np.concatenate(latents),
        detail=_joined(details) if detail else None,
    )


def restore_face(
    avatar: AvatarFile, arrays: Mapping[str, np.ndarray], spec: ModelSpec
) -> AvatarFace:
    """What `prepare_face` made, from its arrays. Raises ValueError or KeyError if unfit."""
    count, side = avatar.frame_count, spec.latent_size
    face = AvatarFace.from_arrays(arrays, count)
    if face.inputs.shape != (count, 2 * spec.latent_channels, side, side):
        raise ValueError(f"its latents are {face.inputs.shape}")
    if face.detail is not None:
        width, rows = spec.crop_size, spec.crop_size - spec.decoded_from_y
        found = face.detail.lost.shape, face.detail.redrawn.shape
        lost = (count, rows, width, 3)
        if found != (lost, (count, rows // DETAIL_CELL, width // DETAIL_CELL, 3)):
            raise ValueError(f"its detail's shapes are {found}")
    return face


def _detail(crops: np.ndarray, redrawn: np.ndarray, first_row: int) -> Detail:
    """What ``redrawn`` lost of ``crops``, both uint8 [n, S, S, 3], from ``first_row`` on."""
    crops, redrawn = crops[:, first_row:], redrawn[:, first_row:]
    lost = np.clip(crops.astype(np.int16) - redrawn, -128, 127).astype(np.int8)
    return Detail(lost, np.stack([in_cells(picture) for picture in redrawn]))


def _joined(details: Sequence[Detail]) -> Detail:
    return Detail(
        np.concatenate([detail.lost for detail in details]),
        np.concatenate([detail.redrawn for detail in details]),
    )


def _place_faces(
    avatar: AvatarFile, landmarks: np.ndarray, spec: ModelSpec
) -> tuple[list[tuple[int, int, int, int]], list[tuple[int, int, int, int]], list[np.ndarray]]:
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
        pastes.append(square)
        masks.append(mask)
    return crops, pastes, masks
