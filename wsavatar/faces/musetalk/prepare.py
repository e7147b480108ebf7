"""Prepares an avatar once: where its face is in every frame, and the latents to start from.

This module knows the model by its contract alone, and neither disk caches nor sessions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np

from wsavatar.avatars.format import AvatarError, AvatarFile
from wsavatar.faces.avatar_face import CELL, JAW_STEPS, AvatarFace, Jaw
from wsavatar.faces.base import AvatarPictures, Progress
from wsavatar.faces.colours import all_of, with_colours
from wsavatar.faces.masks import Box, Masks, PackedMask, trimmed
from wsavatar.faces.musetalk.alike import AlikeFrames
from wsavatar.faces.musetalk.geometry import (
    GeometryError,
    crop_box,
    lower_face_colours,
    lower_face_mask,
    mouth_shift,
    paste_box,
    smooth_landmarks,
    take_crop,
)
from wsavatar.faces.musetalk.jaw import GRID_MARGIN, jaw_of_face, jaw_place
from wsavatar.faces.musetalk.reference import mouth_references
from wsavatar.faces.musetalk.spec import CropMargin, ModelSpec
from wsavatar.faces.musetalk.tuning import Tuning

__all__ = ["CropCoder", "prepare_face", "prepared_key", "restore_face"]

PREPARE_VERSION = 6
"""Raise it with any change to what `prepare_face` computes."""
_AT_ONCE = 8
"""Crops that are encoded together."""


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
    pictures: AvatarPictures,
    landmarks: np.ndarray,
    model: CropCoder,
    progress: Progress | None = None,
    *,
    detail: bool,
    tuning: Tuning | None = None,
) -> AvatarFace:
    """Find crops and masks of ``pictures`` and encode them, with `Jaw` or not.

    The face's ``inputs`` are latents, float16 [n, 2C, h, w]: masked, then reference, which is that
    of a frame whose mouth is at rest; corrected by ``tuning``. Frames that look alike
    (`AlikeFrames`) share latents and the looks of the jaw, which cost the most.

    Raises AvatarError naming the frame whose face has no place in the picture.
    """
    spec = model.spec
    smooth = smooth_landmarks(landmarks, avatar.fps)
    crops, pastes, masks = _place_faces(avatar, smooth, spec, detail=detail)
    alike, first = AlikeFrames(len(crops)), []
    with ThreadPoolExecutor(1, "find-jaws") as thread:
        encoded = _Encoded(model, smooth, crops, thread if detail else None)
        for i, crop in enumerate(crops):
            w, h = crop[2] - crop[0], crop[3] - crop[1]
            seen = pictures.part(i, (*crop[:2], w, h))
            first.append(alike.first_like(i, seen, smooth[i], crop))
            if first[i] == i:
                encoded.add(i, take_crop(seen, (0, 0, w, h), spec.crop_size))
            if progress is not None:
                progress(i + 1, len(crops))
        latents, jaw, colours = encoded.of(np.array(first))
    own = spec.latent_channels
    latents[:, own:] = latents[mouth_references(landmarks), own:]
    if tuning is not None:
        from wsavatar.faces.musetalk.correction import tuned  # torch: seconds to import

        latents = tuned(latents, tuning, spec)
    return AvatarFace(
        crop_boxes=np.array(crops, dtype=np.int32),
        paste_boxes=np.array(pastes, dtype=np.int32),
        masks=Masks(masks),
        inputs=latents,
        jaw=jaw,
        colours=colours,
    )


class _Encoded:
    """Latents, jaws and colours of some of the frames, a few at a time.

    Jaws are found on ``thread`` while the next frames are read and encoded; None: there are none.
    """

    def __init__(
        self,
        model: CropCoder,
        landmarks: np.ndarray,
        crops: list[Box],
        thread: ThreadPoolExecutor | None,
    ) -> None:
        self._model, self._landmarks, self._crops = model, landmarks, crops
        spec, count = model.spec, len(crops)
        self._latents = np.empty((count, *_latent_shape(spec)), np.float16)
        self._thread = thread
        self._jaw = Jaw(*(np.empty(*one) for one in _jaw_arrays(spec, count))) if thread else None
        self._finding: Future[None] | None = None
        self._colours: list[np.ndarray] = []
        self._waiting: dict[int, np.ndarray] = {}

    def add(self, frame: int, crop: np.ndarray) -> None:
        """Encode a frame's crop, uint8 [S, S, 3], now or later."""
        self._waiting[frame] = crop
        if len(self._waiting) == _AT_ONCE:
            self._encode()

    def of(self, frames: np.ndarray) -> tuple[np.ndarray, Jaw | None, np.ndarray | None]:
        """Latents and jaws of all frames, int [n]: from which of them each is; and the colours."""
        if self._waiting:
            self._encode()
        self._finish()
        jaw, spec, colours = self._jaw, self._model.spec, None
        if jaw is not None:
            colours = all_of(self._colours)
            for i in np.unique(frames):
                jaw.looks[i] = [with_colours(look, colours) for look in jaw.looks[i]]
            jaw = jaw.of(frames)
            places = zip(self._landmarks, self._crops, strict=True)
            for i, (points, crop) in enumerate(places):  # its own, while its looks are shared
                found = jaw_place(points, crop, spec.crop_size, spec.decoded_from_y)
                jaw.boxes[i], jaw.down[i] = found
        return self._latents[frames], jaw, colours

    def _encode(self) -> None:
        waiting, self._waiting = self._waiting, {}
        latents = self._model.encode_crops(np.stack(list(waiting.values())))
        self._latents[list(waiting)] = latents
        if self._thread is None or self._jaw is None:
            return
        redrawn = self._model.redraw(latents)
        self._finish()
        self._finding = self._thread.submit(self._find, self._jaw, waiting, redrawn)

    def _finish(self) -> None:
        """Wait for the jaws that are being found; those of one encoding at a time."""
        if self._finding is not None:
            self._finding.result()

    def _find(self, jaw: Jaw, crops: Mapping[int, np.ndarray], redrawn: np.ndarray) -> None:
        first_row = self._model.spec.decoded_from_y
        for (i, seen), drawn in zip(crops.items(), redrawn, strict=True):
            self._colours.append(lower_face_colours(self._landmarks[i], self._crops[i], seen))
            found = jaw_of_face(self._landmarks[i], self._crops[i], drawn, first_row)
            for array, row in zip(jaw.arrays().values(), found.arrays().values(), strict=True):
                array[i] = row


def restore_face(
    avatar: AvatarFile, arrays: Mapping[str, np.ndarray], spec: ModelSpec
) -> AvatarFace:
    """What `prepare_face` made, from its arrays. Raises ValueError or KeyError if unfit."""
    count = avatar.frame_count
    face = AvatarFace.from_arrays(arrays, count)
    if face.inputs.shape != (count, *_latent_shape(spec)):
        raise ValueError(f"its latents are {face.inputs.shape}")
    if face.jaw is not None:
        for array, (shape, kind) in zip(
            face.jaw.arrays().values(), _jaw_arrays(spec, count), strict=True
        ):
            if array.shape != shape or array.dtype != kind:
                raise ValueError(f"its jaw has {array.dtype} {array.shape}")
    return face


def _latent_shape(spec: ModelSpec) -> tuple[int, int, int]:
    return 2 * spec.latent_channels, spec.latent_size, spec.latent_size


def _jaw_arrays(spec: ModelSpec, count: int) -> list[tuple[tuple[int, ...], type]]:
    """Shape and type of the arrays of `Jaw` of so many frames."""
    columns, rows = spec.crop_size // CELL, (spec.crop_size - spec.decoded_from_y) // CELL
    away = count, len(JAW_STEPS), rows, columns
    return [
        ((count, 4), np.int32),
        ((count, 2), np.float32),
        ((count, rows + GRID_MARGIN, columns + 2 * GRID_MARGIN), np.uint8),
        ((*away, 3), np.uint8),
        (away, np.uint8),
    ]


def _place_faces(
    avatar: AvatarFile, landmarks: np.ndarray, spec: ModelSpec, *, detail: bool
) -> tuple[list[Box], list[Box], list[PackedMask]]:
    width, height = avatar.width, avatar.height
    shifts = mouth_shift(landmarks) if detail else np.zeros(len(landmarks))
    if spec.version == "v1":
        shifts = shifts + avatar.bbox_shift
    margin = spec.extra_margin
    if avatar.extra_margin is not None:
        margin = CropMargin(pixels=avatar.extra_margin)
    first_row = spec.decoded_from_y / spec.crop_size
    crops, pastes, masks = [], [], []
    for index, points in enumerate(landmarks):
        try:
            crop = crop_box(points, margin, width, height, bbox_shift=float(shifts[index]))
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
