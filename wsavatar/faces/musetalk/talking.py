"""A clip of a person who talks, as pairs to learn from: what the model gets and the true mouth.

Each frame of the clip stands for a frame of an avatar: its reference is the nearest frame whose
mouth is at rest, and its crop lies where it would with the mouth at rest, so that the true mouth
cannot be guessed from the crop. This module knows no training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import cv2
import numpy as np

from wsavatar.faces.finetuning import FinetuneError, FinetuneProgress, TalkingClip
from wsavatar.faces.musetalk.geometry import (
    GeometryError,
    crop_box,
    mouth_shift,
    smooth_landmarks,
    take_crop,
)
from wsavatar.faces.musetalk.model import MuseTalk
from wsavatar.faces.musetalk.reference import mouth_references

__all__ = ["TalkingPairs", "drawn_rows", "talking_pairs"]

MAX_PAIRS = 3000
"""Of a longer clip every second frame is taken, or every third."""
_BATCH = 8
_CHUNK_MS = 500
_STILL = [*range(17, 48), 0, 1, 15, 16]  # points that do not follow the jaw
_LIPS = slice(48, 68)
_MARGIN, _FADE = 0.12, 0.08  # of the mouth's width, around the lips

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class TalkingPairs:
    """n frames of a clip, in its order."""

    latents: np.ndarray  # float16 [n, 2C, h, w]: what the model gets of the frame
    conditions: np.ndarray  # float32 [n, tokens, dim]: and of its sound
    drawn: np.ndarray  # uint8 [n, rows, S, 3]: what it makes of both; the rows that it draws
    truth: np.ndarray  # uint8 [n, rows, S, 3]
    mouths: np.ndarray  # uint8 [n, rows, S]: 255 on the lips and between them, fading around them

    def __len__(self) -> int:
        return len(self.latents)

    def at(self, rows: slice | np.ndarray) -> TalkingPairs:
        """Some of the pairs."""
        return TalkingPairs(*(getattr(self, field.name)[rows] for field in fields(self)))


def talking_pairs(
    model: MuseTalk, clip: TalkingClip, progress: FinetuneProgress, *, detail: bool
) -> TalkingPairs:
    """The pairs of a clip, with the crops of an avatar with ``detail`` or without.

    Raises FinetuneError where too little of it can be used.
    """
    spec = model.spec
    chosen = np.flatnonzero(clip.seen)
    landmarks = clip.landmarks[chosen]
    references = mouth_references(landmarks)
    rest = np.stack(
        [at_rest(now, landmarks[ref]) for now, ref in zip(landmarks, references, strict=True)]
    )
    boxes = _boxes(clip, smooth_landmarks(rest, float(clip.fps)), model, detail=detail)
    usable = np.array([box is not None for box in boxes])
    taken = np.arange(len(chosen)) % -(-len(chosen) // MAX_PAIRS) == 0
    frames = np.flatnonzero(taken & usable & usable[references])
    if not len(frames):
        raise FinetuneError("the face is too small in the clip, or out of the picture")
    mouths = np.stack([_mouth(model, _box(boxes, int(i)), landmarks[i], rest[i]) for i in frames])
    are_inside = (mouths > 127).any(axis=(1, 2))
    frames, mouths = frames[are_inside], mouths[are_inside]
    wanted = np.union1d(frames, references[frames])
    places = {int(chosen[i]): _box(boxes, int(i)) for i in wanted}
    own, truth = _crops(model, clip, places, chosen[frames], progress)
    latents = own[np.searchsorted(wanted, frames)]
    half = spec.latent_channels
    latents[:, half:] = own[np.searchsorted(wanted, references[frames]), half:]
    conditions = _conditions(model, clip, progress)[chosen[frames]]
    drawn = drawn_rows(model, latents, conditions, progress)
    return TalkingPairs(latents, conditions, drawn, truth, mouths)


def at_rest(now: np.ndarray, resting: np.ndarray) -> np.ndarray:
    """Points [68, 2] of a resting face, moved to where the talking face ``now`` is.

    An affine map of the points that do not follow the jaw, least squares.
    """
    still = resting[_STILL]
    middle = still.mean(axis=0)
    ones = np.ones((len(still), 1))
    moved, *_ = np.linalg.lstsq(np.hstack([still - middle, ones]), now[_STILL], rcond=None)
    placed = np.hstack([resting - middle, np.ones((68, 1))]) @ moved
    return np.asarray(placed, np.float32)


def _boxes(
    clip: TalkingClip, rest: np.ndarray, model: MuseTalk, *, detail: bool
) -> list[Box | None]:
    margin, size = model.spec.extra_margin, (clip.width, clip.height)

    def box(points: np.ndarray, shift: float) -> Box | None:
        try:
            return crop_box(points, margin, *size, bbox_shift=shift)
        except GeometryError:
            return None

    shifts = mouth_shift(rest) if detail else np.zeros(len(rest))
    return [box(*one) for one in zip(rest, shifts.tolist(), strict=True)]


def _box(boxes: list[Box | None], index: int) -> Box:
    box = boxes[index]
    assert box is not None
    return box


def _crops(
    model: MuseTalk,
    clip: TalkingClip,
    places: dict[int, Box],
    shown: np.ndarray,
    progress: FinetuneProgress,
) -> tuple[np.ndarray, np.ndarray]:
    """Latents, float16, of all crops; rows that are drawn, uint8, of the frames ``shown``."""
    spec = model.spec
    size, first = spec.crop_size, spec.decoded_from_y
    latents = np.empty(
        (len(places), 2 * spec.latent_channels, spec.latent_size, spec.latent_size), np.float16
    )
    rows = np.empty((len(shown), size - first, size, 3), np.uint8)
    row_of = {int(frame): row for row, frame in enumerate(shown)}

    def crops() -> Iterator[np.ndarray]:
        for number, picture in enumerate(clip.pictures()):
            if number in places:
                crop = take_crop(picture, places[number], size)
                if number in row_of:
                    rows[row_of[number]] = crop[first:]
                yield crop

    done = 0
    for batch in _batches(crops()):
        latents[done : done + len(batch)] = model.encode_crops(batch)
        done += len(batch)
        progress("encode", done, len(places))
    if done != len(places):
        raise FinetuneError("the clip gave other frames when it was read again")
    return latents, rows


def _batches(crops: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    waiting: list[np.ndarray] = []
    for crop in crops:
        waiting.append(crop)
        if len(waiting) == _BATCH:
            yield np.stack(waiting)
            waiting = []
    if waiting:
        yield np.stack(waiting)


def _conditions(model: MuseTalk, clip: TalkingClip, progress: FinetuneProgress) -> np.ndarray:
    """What the clip's sound says of every frame, as it does when it is streamed."""
    chunker = model.windows.open_chunker(clip.fps, _CHUNK_MS)
    chunks = [*chunker.push(clip.audio), *chunker.flush()]
    conditions = model.conditions()
    rows: list[np.ndarray] = []
    for number, chunk in enumerate(chunks):
        (made,), _ = conditions.make([(0, chunk)])
        rows.append(np.asarray(made if isinstance(made, np.ndarray) else made.float().cpu()))
        progress("listen", number + 1, len(chunks))
    made = np.concatenate(rows)
    short = len(clip.landmarks) - len(made)
    return np.concatenate([made, np.repeat(made[-1:], short, axis=0)]) if short > 0 else made


def drawn_rows(
    model: MuseTalk, latents: np.ndarray, conditions: np.ndarray, progress: FinetuneProgress
) -> np.ndarray:
    """The rows that the model draws, uint8 [n, rows, S, 3], as it draws them when serving."""
    first, size = model.spec.decoded_from_y, model.spec.crop_size
    made = np.empty((len(latents), size - first, size, 3), np.uint8)
    for start in range(0, len(latents), _BATCH):
        rows = slice(start, start + _BATCH)
        patches = model.generate(latents[rows], conditions[rows])
        here = patches if isinstance(patches, np.ndarray) else patches.cpu().numpy()
        made[rows] = here[:, first:]
        progress("draw", min(rows.stop, len(latents)), len(latents))
    return made


def _mouth(model: MuseTalk, box: Box, now: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """uint8 [rows, S]: the hull of the lips at rest and speaking, a little larger, soft."""
    x1, y1, x2, y2 = box
    size, first = model.spec.crop_size, model.spec.decoded_from_y
    scale = np.array([size / (x2 - x1), size / (y2 - y1)])
    lips = (np.concatenate([now[_LIPS], rest[_LIPS]]) - (x1, y1)) * scale - (0, first)
    width = float(np.ptp(lips[:, 0]))
    outside = np.full((size - first, size), 255, np.uint8)
    hull = cv2.convexHull(lips.astype(np.float32))
    cv2.fillConvexPoly(outside, np.round(hull).astype(np.int32), 0)
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, 3)
    t = np.clip((distance / max(width, 1.0) - _MARGIN) / _FADE, 0, 1)
    mouth: np.ndarray = np.round(255 * (1 - t * t * (3 - 2 * t))).astype(np.uint8)
    return mouth
