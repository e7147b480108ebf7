"""What makes avatars while the server runs: creation with the configured landmarks.

Landmarks are loaded for the first file, not at the start. A part of `wsavatar.serve.assembly`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from wsavatar.avatar_jobs.dropped import DroppedFiles
from wsavatar.avatar_jobs.maker import AvatarMaker, Avatars
from wsavatar.avatar_jobs.upload import clean_up
from wsavatar.avatars.format import AvatarError
from wsavatar.avatars.library import avatar_directory, uploads_directory
from wsavatar.config import Settings
from wsavatar.creation import AvatarRequest, Created, SourceLimits, create_avatar
from wsavatar.errors import WsavatarError

if TYPE_CHECKING:
    from wsavatar.landmarks.base import LandmarkDetector

__all__ = ["avatar_making"]


def avatar_making(
    settings: Settings, avatars: Avatars, is_busy: Callable[[], bool]
) -> tuple[AvatarMaker, DroppedFiles | None]:
    """The maker of avatars, and what finds files for it if the settings want that.

    ``is_busy``: while it is true, no avatar is begun of a file that was found, and others are made
    more slowly.
    """
    places = [avatar_directory(settings.avatars), uploads_directory(settings.avatars)]
    clean_up(places[1])
    maker = AvatarMaker(settings.avatars, avatars, _Creation(settings), is_busy)
    return maker, DroppedFiles(maker, places, is_busy) if settings.avatars.watch else None


class _Creation:
    """`create_avatar` with the configured landmarks."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loading = threading.Lock()
        self._detector: LandmarkDetector | None = None

    def __call__(
        self,
        source: Path,
        directory: Path,
        request: AvatarRequest,
        progress: Callable[[str, int, int], None],
        limits: SourceLimits,
        cancelled: threading.Event,
    ) -> Created:
        detector = self._landmarks()
        return create_avatar(
            source, directory, detector, request, progress, limits, cancelled=cancelled
        )

    def _landmarks(self) -> LandmarkDetector:
        from wsavatar.landmarks.registry import load_landmarks

        with self._loading:
            if self._detector is None:
                try:
                    self._detector = load_landmarks(self._settings)
                except WsavatarError as error:
                    raise AvatarError(f"no face can be found: {error}") from error
            return self._detector
