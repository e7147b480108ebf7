"""What makes avatars while the server runs: creation with the configured landmarks.

A part of `wsavatar.serve.assembly`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np

from wsavatar.avatar_jobs.dropped import DroppedFiles
from wsavatar.avatar_jobs.failures import KnownFailures
from wsavatar.avatar_jobs.maker import AvatarMaker, Avatars
from wsavatar.avatar_jobs.upload import clean_up
from wsavatar.avatars.format import AvatarError
from wsavatar.avatars.library import avatar_directory, uploads_directory
from wsavatar.config import Settings
from wsavatar.creation import create_avatar
from wsavatar.errors import WsavatarError
from wsavatar.landmarks.base import Face, LandmarkDetector
from wsavatar.landmarks.registry import load_landmarks
from wsavatar.resources import cache_directory, embedded_weights

__all__ = ["avatar_making"]

_READERS = ("av", "pillow")


def avatar_making(
    settings: Settings, avatars: Avatars, is_busy: Callable[[], bool]
) -> tuple[AvatarMaker, DroppedFiles | None]:
    """The maker of avatars, and what finds files for it if the settings want that.

    ``is_busy``: while it is true, no avatar is begun of a file that was found, and others are made
    more slowly.
    """
    places = [avatar_directory(settings.avatars), uploads_directory(settings.avatars)]
    for place in places:
        clean_up(place)
    create = partial(create_avatar, detector=_LazyDetector(settings))
    maker = AvatarMaker(settings.avatars, avatars, create, is_busy)
    if not settings.avatars.watch:
        return maker, None
    cache = settings.avatars.cache or cache_directory()
    known = KnownFailures(cache, _version(settings))
    return maker, DroppedFiles(maker, places, is_busy, known)


def _version(settings: Settings) -> str:
    """Changes with whatever decides of which files avatars can be made."""
    chosen = settings.avatars
    digest = hashlib.sha256(f"{chosen.landmarks} {chosen.dwpose}".encode())
    for library in _READERS:
        digest.update(f"{library} {metadata.version(library)}".encode())
    package = Path(__file__).parents[1]
    folders = [package / name for name in ("creation", "landmarks", "media")]
    folders.append(embedded_weights() / "landmarks")
    for path in sorted(path for folder in folders for path in folder.glob("[!_.]*.*")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class _LazyDetector:
    """The configured landmark detector, loaded when the first picture comes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loading = threading.Lock()
        self._loaded: LandmarkDetector | None = None

    def find(self, picture: np.ndarray, /) -> list[Face]:
        return self._detector().find(picture)

    def follow(self, picture: np.ndarray, face: Face, /) -> Face | None:
        return self._detector().follow(picture, face)

    def _detector(self) -> LandmarkDetector:
        with self._loading:
            if self._loaded is None:
                try:
                    self._loaded = load_landmarks(self._settings)
                except WsavatarError as error:
                    raise AvatarError(f"no face can be found: {error}") from error
            return self._loaded
