"""Where the person is in each of an avatar's pictures: made once, then kept on the disk.

It does not know what makes masks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from wsavatar.avatars.background import BackgroundError
from wsavatar.avatars.cache import FaceCache, cache_key
from wsavatar.avatars.format import AvatarFile, file_in
from wsavatar.errors import WsavatarError
from wsavatar.faces.base import Progress
from wsavatar.faces.masks import Masks
from wsavatar.media.video import open_video

__all__ = ["MaskMaker", "kept_masks", "made_masks"]


@dataclass(frozen=True, slots=True)
class MaskMaker:
    """What tells a person from the background. ``key`` names it: other masks, another key.

    ``make``: pictures uint8 [H, W, 3] and the face's landmarks [n, 68, 2] in them to masks, uint8
    [H, W] each, 255 where the person is. May raise a WsavatarError.
    """

    key: str
    make: Callable[[Sequence[np.ndarray], np.ndarray], Iterable[np.ndarray]]


_VERSION = 2
_LEAST_SHARE = 0.5
"""Of a face that a mask covers."""

_log = logging.getLogger(__name__)


def kept_masks(
    cache: FaceCache, folder: Path, avatar: AvatarFile, maker: MaskMaker | None
) -> Masks | None:
    """The masks of an avatar's pictures that are kept on the disk; None: they are to be made."""
    return cache.load(avatar.id, _key(folder, avatar, maker), partial(_restored, avatar))


def made_masks(
    cache: FaceCache,
    folder: Path,
    avatar: AvatarFile,
    pictures: Sequence[np.ndarray],
    landmarks: np.ndarray,
    maker: MaskMaker | None,
    progress: Progress,
) -> Masks:
    """The masks of an avatar's pictures, of its own alpha channel, or made now, which takes
    seconds; they are kept on the disk.

    Raises BackgroundError where the person cannot be told from the background.
    """
    try:
        made = _made(folder, avatar, pictures, landmarks, maker)
        masks = Masks(_checked(made, (avatar.height, avatar.width), landmarks, progress))
    except WsavatarError as error:
        raise BackgroundError(
            f"{avatar.id!r} can have its original background only: {error}"
        ) from error
    cache.save(avatar.id, _key(folder, avatar, maker), masks.arrays())
    return masks


def _key(folder: Path, avatar: AvatarFile, maker: MaskMaker | None) -> str:
    way = "its alpha channel" if avatar.alpha else maker.key if maker is not None else "none"
    return cache_key(folder, avatar, f"person {_VERSION} {way}")


def _restored(avatar: AvatarFile, arrays: Mapping[str, np.ndarray]) -> Masks:
    return Masks.from_arrays(arrays, np.array([[avatar.height, avatar.width]] * avatar.frame_count))


def _made(
    folder: Path,
    avatar: AvatarFile,
    pictures: Sequence[np.ndarray],
    landmarks: np.ndarray,
    maker: MaskMaker | None,
) -> Iterator[np.ndarray]:
    _log.info("avatar %s: finding the person in %d pictures", avatar.id, len(pictures))
    if avatar.alpha:
        with open_video(file_in(folder, avatar.alpha)) as (_, shown):
            for _, picture in shown:
                yield np.ascontiguousarray(picture[..., 1])
    elif maker is not None:
        yield from maker.make(pictures, landmarks)
    else:
        raise BackgroundError("nothing here tells a person from it; use a file with transparency")


def _coarse(mask: np.ndarray) -> np.ndarray:
    """In 64 levels, and 0 and 255 where it is nearly so: packed, half the bytes; not to be seen."""
    levels = np.arange(256)
    table = np.where(levels <= 7, 0, np.where(levels >= 248, 255, levels & 0xFC | 2))
    return cv2.LUT(mask, table.astype(np.uint8))


def _checked(
    masks: Iterable[np.ndarray], size: tuple[int, int], landmarks: np.ndarray, progress: Progress
) -> Iterator[np.ndarray]:
    """The masks, one of this size for each frame, with the face in it. Raises BackgroundError."""
    number = 0
    for mask in masks:
        if mask.shape != size:
            raise BackgroundError(f"the mask of frame {number} is {mask.shape}, not {size}")
        face = np.zeros(size, np.uint8)
        if number < len(landmarks):
            hull = cv2.convexHull(np.rint(landmarks[number]).astype(np.int32))
            cv2.fillConvexPoly(face, hull, 255)
        if not face.any() or mask[face > 0].mean() < 255 * _LEAST_SHARE:
            raise BackgroundError(
                f"the person cannot be told from it in frame {number}; "
                "use a picture with a plainer background"
            )
        number += 1
        progress(number, len(landmarks))
        yield _coarse(mask)
    if number < len(landmarks):
        raise BackgroundError(f"there are {number} masks for {len(landmarks)} frames")
