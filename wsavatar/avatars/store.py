"""All avatars: lists them from their JSON files, prepares each once, keeps the last used in memory.

Any thread may call anything here; none of it belongs on an event loop, for a first `get` may take
seconds. This module does not know who speaks through an avatar.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.avatars.cache import FaceCache, cache_key
from wsavatar.avatars.format import (
    ID_PATTERN,
    AvatarError,
    AvatarFile,
    file_in,
    read_avatar_file,
    read_landmarks,
)
from wsavatar.config import AvatarSettings
from wsavatar.faces.base import AvatarPreparer, Progress
from wsavatar.media.video import VideoError, read_video
from wsavatar.resources import cache_directory, resource_dir

__all__ = ["AvatarError", "AvatarEntry", "AvatarStore", "avatar_directory"]

DEFAULT_MEMORY_BYTES = 2 * 1024**3
"""About eleven avatars of 8 s at 512x512 and 25 frames/s (190 MB each, nearly all pictures)."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AvatarEntry:
    """What a list of avatars shows of one. Read from its JSON file alone."""

    id: str
    name: str
    description: str
    width: int
    height: int
    fps: float
    frame_count: int
    has_poster: bool
    license: str


# Inside the class below, `list` is its method.
_Infos = list[AvatarEntry]
_Folders = list[Path]


def avatar_directory(settings: AvatarSettings) -> Path:
    """Where avatars lie: the configured directory, or the bundled one."""
    return settings.directory if settings.directory is not None else resource_dir("avatars")


class AvatarStore:
    """Avatars of one directory, prepared for one model.

    Prepared avatars stay in memory up to ``memory_bytes``; beyond it the least recently used go
    (whoever still speaks through one keeps it alive). An avatar edited on disk is seen at the next
    start.
    """

    def __init__(
        self,
        settings: AvatarSettings,
        model: AvatarPreparer,
        *,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
    ) -> None:
        self._directory = avatar_directory(settings)
        self._default = settings.default
        self._model = model
        self._cache = FaceCache(settings.cache or cache_directory())
        self._memory_bytes = memory_bytes
        self._detail = settings.detail
        self._guard = threading.Lock()  # over the three below; never held while preparing
        self._ready: OrderedDict[str, PreparedAvatar] = OrderedDict()
        self._locks: dict[str, threading.Lock] = {}  # one an avatar that exists: bounded by them
        self._reported: dict[str, str] = {}

    @property
    def default_id(self) -> str:
        """The configured avatar, or the first by name. Raises AvatarError where there is none."""
        if self._default:
            return self._read(self._default).id
        avatars = self.list()
        if not avatars:
            raise AvatarError(f"{self._directory} holds no avatar")
        return avatars[0].id

    def list(self) -> _Infos:
        """All fit avatars by name. An unfit folder is left out, and its fault logged once."""
        infos = []
        for folder in self._folders():
            try:
                infos.append(_info(folder, read_avatar_file(folder)))
            except AvatarError as error:
                self._report(folder.name, str(error))
        return sorted(infos, key=lambda info: (info.name.casefold(), info.id))

    def get(self, avatar_id: str, progress: Progress | None = None) -> PreparedAvatar:
        """The avatar, prepared: from memory, from the disk cache, or computed now (seconds).

        Callers that ask for the same avatar at once wait for one preparation. Raises AvatarError.
        """
        with self._guard:
            prepared = self._recall(avatar_id)
        if prepared is not None:
            return prepared
        avatar = self._read(avatar_id)
        with self._guard:
            lock = self._locks.setdefault(avatar_id, threading.Lock())
        with lock:
            with self._guard:
                prepared = self._recall(avatar_id)
            if prepared is None:
                prepared = self._prepare(avatar, progress)
                with self._guard:
                    self._remember(prepared)
        return prepared

    def idle_frames(self, avatar_id: str) -> np.ndarray:
        """Its idle cycle's pictures in order: uint8 [n, H, W, 3] RGB. Raises AvatarError."""
        return self.get(avatar_id).frames

    def idle_video(self, avatar_id: str) -> Path:
        """The avatar's idle video, for a browser to loop. Raises AvatarError."""
        return file_in(self._directory / avatar_id, self._read(avatar_id).video)

    def poster(self, avatar_id: str) -> Path | None:
        """The avatar's still picture, where it has one. Raises AvatarError."""
        poster = self._read(avatar_id).poster
        return file_in(self._directory / avatar_id, poster) if poster else None

    def _folders(self) -> _Folders:
        try:
            children = sorted(self._directory.iterdir())
        except OSError as error:
            self._report("", f"{self._directory}: cannot be read ({error})")
            return []
        return [path for path in children if path.name[0] != "." and path.is_dir()]

    def _read(self, avatar_id: str) -> AvatarFile:
        # The pattern comes first: an id from the network must never become a path.
        if re.fullmatch(ID_PATTERN, avatar_id) and (self._directory / avatar_id).is_dir():
            return read_avatar_file(self._directory / avatar_id)
        known = ", ".join(info.id for info in self.list()) or "none"
        raise AvatarError(f"no avatar {avatar_id[:64]!r}; known: {known}")

    def _prepare(self, avatar: AvatarFile, progress: Progress | None) -> PreparedAvatar:
        folder = self._directory / avatar.id
        landmarks = read_landmarks(folder, avatar)
        frames = _read_frames(folder, avatar)
        model, detail = self._model, self._detail
        key = cache_key(folder, avatar, model.prepared_key(detail=detail))
        face = self._cache.load(avatar.id, key, partial(model.restore, avatar))
        if face is None:
            face = model.prepare(avatar, frames, landmarks, progress, detail=detail)
            self._cache.save(avatar.id, key, face.arrays())
        return PreparedAvatar.of(avatar, frames, face)

    def _recall(self, avatar_id: str) -> PreparedAvatar | None:
        if avatar_id in self._ready:
            self._ready.move_to_end(avatar_id)
        return self._ready.get(avatar_id)

    def _remember(self, prepared: PreparedAvatar) -> None:
        self._ready[prepared.id] = prepared
        while len(self._ready) > 1 and _used(self._ready) > self._memory_bytes:
            self._ready.popitem(last=False)

    def _report(self, name: str, fault: str) -> None:
        with self._guard:
            if self._reported.get(name) == fault:
                return
            self._reported[name] = fault
        _log.warning("avatar left out: %s", fault)


def _info(folder: Path, avatar: AvatarFile) -> AvatarEntry:
    return AvatarEntry(
        id=avatar.id,
        name=avatar.name,
        description=avatar.description,
        width=avatar.width,
        height=avatar.height,
        fps=avatar.fps,
        frame_count=avatar.frame_count,
        has_poster=avatar.poster is not None and (folder / avatar.poster).is_file(),
        license=avatar.license,
    )


def _read_frames(folder: Path, avatar: AvatarFile) -> np.ndarray:
    path = file_in(folder, avatar.video)
    try:
        info, frames = read_video(path, max_frames=avatar.frame_count + 1)
    except VideoError as error:
        raise AvatarError(str(error)) from error
    found = (info.width, info.height, len(frames), round(float(info.fps), 2))
    said = (avatar.width, avatar.height, avatar.frame_count, round(avatar.fps, 2))
    if found != said:
        raise AvatarError(
            f"{path}: is {found[0]}x{found[1]}, {found[2]} frames at {found[3]}/s; "
            f"avatar.json says {said[0]}x{said[1]}, {said[2]} at {said[3]}/s"
        )
    return frames


def _used(avatars: Mapping[str, PreparedAvatar]) -> int:
    return sum(avatar.nbytes for avatar in avatars.values())
