"""What makes avatars while the server runs: creation with the configured landmarks.

A part of `wsavatar.serve.assembly`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import numpy as np

from wsavatar.avatar_jobs.dropped import DroppedFiles
from wsavatar.avatar_jobs.maker import AvatarMaker, Avatars
from wsavatar.avatar_jobs.upload import clean_up
from wsavatar.avatars.format import AvatarError
from wsavatar.avatars.library import avatar_directory, uploads_directory
from wsavatar.config import Settings
from wsavatar.creation import create_avatar
from wsavatar.errors import WsavatarError
from wsavatar.landmarks.base import Face, LandmarkDetector
from wsavatar.landmarks.registry import load_landmarks

__all__ = ["avatar_making"]


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
    return maker, DroppedFiles(maker, places, is_busy) if settings.avatars.watch else None


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
