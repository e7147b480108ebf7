"""Where the person is in each of an avatar's pictures: found once, then kept on the disk.

It does not know what makes masks.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from wsavatar.avatars.background import BackgroundError
from wsavatar.avatars.cache import FaceCache, cache_key
from wsavatar.avatars.format import AvatarError, AvatarFile, file_in
from wsavatar.avatars.landmarks import read_landmarks
from wsavatar.errors import WsavatarError
from wsavatar.faces.base import Progress
from wsavatar.faces.masks import Masks
from wsavatar.machine import yield_to_others
from wsavatar.media.video import open_video

__all__ = ["MaskMaker", "PersonSearch"]


@dataclass(frozen=True, slots=True)
class MaskMaker:
    """What tells a person from the background. ``key`` names it: other masks, another key.

    ``make``: pictures uint8 [H, W, 3] and the face's landmarks [n, 68, 2] in them to masks, uint8
    [H, W] each, 255 where the person is. May raise a WsavatarError.
    """

    key: str
    make: Callable[[Sequence[np.ndarray], np.ndarray], Iterable[np.ndarray]]


_VERSION = 2
_MAX_BYTES = 128 * 2**20
"""Of masks in memory."""
_LEAST_SHARE = 0.5
"""Of a face that a mask covers."""

_log = logging.getLogger(__name__)


class PersonSearch:
    """Finds the person in avatars' pictures, or knows where it is. Thread-safe. `close` it once.

    One avatar at a time, on a thread that yields to those that serve. What is found is kept in
    ``cache``, and in memory what was used last; each version of an avatar's files is another
    avatar. ``maker`` None: only those with an alpha channel have masks.
    """

    def __init__(self, cache: FaceCache, maker: MaskMaker | None) -> None:
        self._cache = cache
        self._maker = maker
        self._thread = ThreadPoolExecutor(1, "find person", initializer=yield_to_others)
        self._guard = threading.Lock()  # over what follows; never held for long
        self._known: OrderedDict[_Key, Masks] = OrderedDict()
        self._searches: dict[_Key, Future[Masks]] = {}
        self._in_vain: dict[_Key, str] = {}
        self._finding: tuple[str, int, int] | None = None
        self._stopping = threading.Event()

    def known(self, folder: Path, avatar: AvatarFile) -> Masks | None:
        """The masks in memory or on the disk; None: they are to be found. Raises AvatarError."""
        return self._recall(self._key(folder, avatar), avatar)

    def search(
        self,
        folder: Path,
        avatar: AvatarFile,
        pictures: Callable[[], Sequence[np.ndarray]],
        progress: Progress | None = None,
    ) -> Future[Masks]:
        """The search for masks that are not known, begun now if it was not yet.

        Raises AvatarError, as the search does; BackgroundError where the person cannot be told
        from the background.
        """
        key = self._key(folder, avatar)
        find = partial(self._find, key, folder, avatar, pictures, progress)
        with self._guard:
            if key in self._in_vain:
                raise BackgroundError(self._in_vain[key])
            if key not in self._searches:
                self._searches[key] = self._thread.submit(find)
            return self._searches[key]

    def finding(self, avatar_id: str) -> tuple[int, int] | None:
        """In how many of the avatar's pictures, of how many, the person was found so far; None:
        nobody looks for it now."""
        finding = self._finding
        return finding[1:] if finding is not None and finding[0] == avatar_id else None

    def forget(self, avatar_id: str) -> None:
        """Drop from memory what is known of an avatar."""
        with self._guard:
            for kept in (self._known, self._in_vain):
                for key in [key for key in kept if key[0] == avatar_id]:
                    del kept[key]

    def close(self) -> None:
        """Stop the search at its next picture, and those that wait. A process that ends waits for
        its threads."""
        self._stopping.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _key(self, folder: Path, avatar: AvatarFile) -> _Key:
        made = "none" if self._maker is None else self._maker.key
        way = "its alpha channel" if avatar.alpha else made
        return avatar.id, cache_key(folder, avatar, f"person {_VERSION} {way}")

    def _recall(self, key: _Key, avatar: AvatarFile) -> Masks | None:
        with self._guard:
            masks = self._known.get(key)
        if masks is None:
            masks = self._cache.load(*key, partial(_restored, avatar))
        if masks is not None:
            self._remember(key, masks)
        return masks

    def _remember(self, key: _Key, masks: Masks) -> None:
        with self._guard:
            self._known[key] = masks
            self._known.move_to_end(key)
            while len(self._known) > 1 and _bytes(self._known) > _MAX_BYTES:
                self._known.popitem(last=False)

    def _find(
        self,
        key: _Key,
        folder: Path,
        avatar: AvatarFile,
        pictures: Callable[[], Sequence[np.ndarray]],
        progress: Progress | None,
    ) -> Masks:
        def report(done: int, total: int) -> None:
            if self._stopping.is_set():
                raise AvatarError("the search for the person was stopped")
            self._finding = avatar.id, done, total
            if progress is not None:
                progress(done, total)

        try:
            masks = self._recall(key, avatar)  # another search was just over
            if masks is None:
                masks = self._made(key, folder, avatar, pictures(), report)
                self._cache.save(*key, masks.arrays())
                self._remember(key, masks)
            if not folder.exists():  # a client deleted it meanwhile: nothing of it stays
                self.forget(avatar.id)
                self._cache.forget(avatar.id)
                raise AvatarError(f"{avatar.id!r} was deleted")
            return masks
        finally:
            self._finding = None
            with self._guard:
                self._searches.pop(key, None)

    def _made(
        self,
        key: _Key,
        folder: Path,
        avatar: AvatarFile,
        pictures: Sequence[np.ndarray],
        progress: Progress,
    ) -> Masks:
        landmarks = read_landmarks(folder, avatar)
        try:
            made = _made(folder, avatar, pictures, landmarks, self._maker)
            return Masks(_checked(made, (avatar.height, avatar.width), landmarks, progress))
        except WsavatarError as error:
            why = f"{avatar.id!r} can have its original background only: {error}"
            with self._guard:
                self._in_vain[key] = why
            raise BackgroundError(why) from error


_Key = tuple[str, str]
"""An avatar's id, and the digest of its files and of what finds the person."""


def _bytes(masks: Mapping[_Key, Masks]) -> int:
    return sum(one.nbytes for one in masks.values())


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
