"""Avatars prepared for a model: each once, with the recently used in memory.

Thread-safe. Do not call it on an event loop: the first `get` of an avatar may take seconds. This
module does not know the sessions.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.avatars.background import BackgroundError
from wsavatar.avatars.cache import cache_key
from wsavatar.avatars.format import AvatarError, AvatarFile
from wsavatar.avatars.landmarks import read_landmarks
from wsavatar.avatars.library import AvatarLibrary
from wsavatar.avatars.person_masks import MaskMaker
from wsavatar.avatars.tuning import TUNING_FILE, read_tuning_file
from wsavatar.config import AvatarSettings
from wsavatar.faces.base import AvatarPreparer, Progress
from wsavatar.media.pictures import Pictures
from wsavatar.media.video import VideoError

__all__ = ["AvatarStore"]

_log = logging.getLogger(__name__)

DEFAULT_MEMORY_BYTES = 2 * 1024**3
"""About twelve avatars of 8 s at 512x512 and 25 frames/s (177 MB each, nearly all pictures)."""


class AvatarStore(AvatarLibrary):
    """The avatars, prepared for one model.

    Prepared avatars stay in memory up to ``memory_bytes``; above it the least recently used are
    removed (a session that uses one keeps it alive). One whose files were replaced is prepared anew
    when it is next asked for; who has the old one goes on with it.
    """

    def __init__(
        self,
        settings: AvatarSettings,
        model: AvatarPreparer,
        mask_maker: MaskMaker | None = None,
        *,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
    ) -> None:
        super().__init__(settings, mask_maker)
        self._model = model
        self._memory_bytes = memory_bytes
        self._detail = settings.detail
        self._closing = threading.Event()
        self._guard = threading.Lock()  # over what is below; never held while preparing
        # Before other backgrounds, while they are used: sessions share what devices keep of them.
        self._shown: weakref.WeakValueDictionary[tuple[str, str, str], PreparedAvatar]
        self._shown = weakref.WeakValueDictionary()
        self._ready: OrderedDict[str, PreparedAvatar] = OrderedDict()
        self._locks: dict[str, threading.Lock] = {}  # one an avatar that exists: bounded by them

    def get(
        self, avatar_id: str, progress: Progress | None = None, *, background: str | None = None
    ) -> PreparedAvatar:
        """The prepared avatar: from memory, from the disk cache, or prepared now (seconds).

        Before the configured background, or the one of this name. Simultaneous calls for an avatar
        wait for one preparation. Raises AvatarError.
        """
        behind = self.backgrounds.named(background)
        original = self._original(avatar_id, progress)
        if behind is None:
            return original
        key = avatar_id, behind.name, original.digest
        with self._guard:
            shown = self._shown.get(key)
        if shown is None:
            self._check_unchanged(original)
            made = original.before(behind, self._person(avatar_id, progress))
            with self._guard:
                shown = self._shown.setdefault(key, made)
        return shown

    def _original(self, avatar_id: str, progress: Progress | None) -> PreparedAvatar:
        prepared = self._at_hand(avatar_id)
        if prepared is not None:
            return prepared
        avatar = self.read(avatar_id)
        with self._guard:
            lock = self._locks.setdefault(avatar_id, threading.Lock())
        with lock:
            prepared = self._at_hand(avatar_id)
            if prepared is None:
                prepared = self._prepare(avatar, progress)
                with self._guard:
                    self._remember(prepared)
        return prepared

    def close(self) -> None:
        """Stop what is computed of avatars; calls that wait for it raise AvatarError. A process
        that ends waits for its threads."""
        super().close()
        self._closing.set()

    def delete(self, avatar_id: str) -> None:
        """Delete an avatar that a client made; sessions that show it go on. Raises AvatarError."""
        super().delete(avatar_id)
        with self._guard:
            self._ready.pop(avatar_id, None)
            self._locks.pop(avatar_id, None)
            for key in [key for key in self._shown if key[0] == avatar_id]:
                self._shown.pop(key, None)

    def preview(self, avatar_id: str) -> bytes:
        """A small JPEG of what the model sees of the first picture. Raises AvatarError."""
        x1, y1, x2, y2 = (int(value) for value in self.get(avatar_id).face.crop_boxes[0])
        return self._crop(avatar_id, (x1, y1, x2, y2))

    def idle_pictures(self, avatar_id: str, background: str | None = None) -> Pictures:
        """The pictures of the idle cycle, before the configured background or another. Raises
        AvatarError."""
        return self.get(avatar_id, background=background).pictures

    def _own_pictures(self, avatar_id: str) -> Pictures:
        prepared = self._original(avatar_id, None)
        self._check_unchanged(prepared)
        return prepared.pictures

    def _check_unchanged(self, prepared: PreparedAvatar) -> None:
        """Raise BackgroundError where the files were replaced meanwhile: the person in them is
        somewhere else."""
        if self.digest(prepared.id) != prepared.digest:
            raise BackgroundError(f"{prepared.id!r} was replaced just now: choose it again")

    def _prepare(self, avatar: AvatarFile, progress: Progress | None) -> PreparedAvatar:
        def report(done: int, total: int) -> None:
            if self._closing.is_set():
                raise AvatarError(f"preparing {avatar.id!r} was stopped")
            if progress is not None:
                progress(done, total)

        folder = self._folder(avatar.id)
        model, detail = self._model, self._detail
        learned, tuning = self._tuning(avatar.id, folder)
        # First, so that nothing of files that are replaced meanwhile gets the key of the new ones.
        digest = cache_key(folder, avatar, "")
        key = cache_key(folder, avatar, model.prepared_key(detail=detail) + learned)
        landmarks = read_landmarks(folder, avatar)
        pictures = self._open_pictures(avatar)
        face = self._files.load(avatar.id, key, partial(model.restore, avatar))
        if face is None:
            try:
                face = model.prepare(
                    avatar, pictures, landmarks, report, detail=detail, tuning=tuning
                )
            except VideoError as error:
                raise AvatarError(str(error)) from error
            self._files.save(avatar.id, key, face.arrays())
        if not folder.exists():  # a client deleted it meanwhile: nothing of the face stays
            self._files.forget(avatar.id)
            raise AvatarError(f"{avatar.id!r} was deleted")
        return PreparedAvatar.of(avatar, pictures, face, digest)

    def _tuning(self, avatar_id: str, folder: Path) -> tuple[str, Any]:
        """What the model learned of the person, after its digest; or "" and None."""
        try:
            data = read_tuning_file(folder)
            if data is None:
                return "", None
            return hashlib.sha256(data).hexdigest(), self._model.read_tuning(data)
        except ValueError as error:
            _log.warning("avatar %s: %s is not used: %s", avatar_id, TUNING_FILE, error)
            return "", None

    def _at_hand(self, avatar_id: str) -> PreparedAvatar | None:
        """The avatar in memory, unless its files were replaced; those that cannot be read were
        not."""
        with self._guard:
            prepared = self._recall(avatar_id)
        if prepared is None:
            return None
        try:
            is_same = self.digest(avatar_id) == prepared.digest
        except AvatarError:
            return prepared
        return prepared if is_same else None

    def _recall(self, avatar_id: str) -> PreparedAvatar | None:
        if avatar_id in self._ready:
            self._ready.move_to_end(avatar_id)
        return self._ready.get(avatar_id)

    def _remember(self, prepared: PreparedAvatar) -> None:
        self._ready[prepared.id] = prepared
        while len(self._ready) > 1 and _used(self._ready) > self._memory_bytes:
            self._ready.popitem(last=False)


def _used(avatars: Mapping[str, PreparedAvatar]) -> int:
    return sum(avatar.nbytes for avatar in avatars.values())
