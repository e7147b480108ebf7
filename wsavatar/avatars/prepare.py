"""Prepares an avatar once: where its face lies in every frame, and the latents to start from.

This module knows the model by its contract alone, and neither disk caches nor sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wsavatar.avatars.avatar import DETAIL_CELL, Detail, PreparedAvatar
from wsavatar.avatars.format import AvatarError, AvatarFile
from wsavatar.avatars.geometry import (
    GeometryError,
    crop_box,
    in_cells,
    lower_face_mask,
    mask_region,
    paste_box,
    smooth_landmarks,
    take_crop,
)

if TYPE_CHECKING:
    from wsavatar.faces.musetalk.model import MuseTalk
    from wsavatar.faces.musetalk.spec import ModelSpec

__all__ = ["FaceData", "assemble", "detail_shapes", "prepare_faces"]

_ENCODE_BATCH = 8

Progress = Callable[[int, int], None]
"""Called with (frames done, frames in all)."""


@dataclass(frozen=True, slots=True)
class FaceData:
    """All that is computed of an avatar, as `PreparedAvatar` has it: what the disk cache holds."""

    crop_boxes: np.ndarray  # int32 [n, 4]
    paste_boxes: np.ndarray  # int32 [n, 4]
    masks: tuple[np.ndarray, ...]  # n of uint8 [h, w]
    latents: np.ndarray  # float16 [n, 2C, h, w]
    detail: Detail | None


def prepare_faces(
    avatar: AvatarFile,
    frames: np.ndarray,
    landmarks: np.ndarray,
    model: MuseTalk,
    progress: Progress | None = None,
    *,
    detail: bool,
) -> FaceData:
    """Find crops and masks of ``frames`` uint8 [n, H, W, 3] and encode them, with `Detail` or not.

    Raises AvatarError naming the frame whose face has no place in the picture.
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
    return FaceData(
        crop_boxes=np.array(crops, dtype=np.int32),
        paste_boxes=np.array(pastes, dtype=np.int32),
        masks=tuple(masks),
        latents=np.concatenate(latents),
        detail=_joined(details) if detail else None,
    )


def detail_shapes(count: int, spec: ModelSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of a `Detail`'s two arrays, for so many frames."""
    width, rows = spec.crop_size, spec.crop_size - spec.decoded_from_y
    return (count, rows, width, 3), (count, rows // DETAIL_CELL, width // DETAIL_CELL, 3)


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
    first_row = spec.decoded_from_y / spec.crop_size
    crops, pastes, masks = [], [], []
    for index, points in enumerate(landmarks):
        try:
            crop = crop_box(points, spec.extra_margin, width, height, bbox_shift=shift)
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


def assemble(avatar: AvatarFile, frames: np.ndarray, faces: FaceData) -> PreparedAvatar:
    """Put frames and face data together, read-only, for any thread to use."""
    arrays = [frames, faces.crop_boxes, faces.paste_boxes, faces.latents, *faces.masks]
    if faces.detail is not None:
        arrays += [faces.detail.lost, faces.detail.redrawn]
    for array in arrays:
        array.flags.writeable = False
    return PreparedAvatar(
        id=avatar.id,
        name=avatar.name,
        width=avatar.width,
        height=avatar.height,
        fps=avatar.fps,
        frames=frames,
        crop_boxes=faces.crop_boxes,
        paste_boxes=faces.paste_boxes,
        masks=faces.masks,
        latents=faces.latents,
        region=mask_region(faces.masks, faces.paste_boxes, avatar.width, avatar.height),
        detail=faces.detail,
    )
