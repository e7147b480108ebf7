"""Avatars of a process that renders nothing: it reads their files; devices' processes prepare them.

It knows neither how a face is prepared nor how a process is called.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from wsavatar.avatars.format import AvatarFile
from wsavatar.avatars.library import AvatarLibrary
from wsavatar.config import AvatarSettings
from wsavatar.faces.base import Progress

__all__ = ["RemoteAvatars"]


class RemoteAvatars(AvatarLibrary):
    """``prepare(id)``: a device's process prepares the avatar; blocks; may raise AvatarError."""

    def __init__(self, settings: AvatarSettings, prepare: Callable[[str], None]) -> None:
        super().__init__(settings)
        self._ask = prepare
        self._guard = threading.Lock()
        self._prepared: set[str] = set()  # bounded by the folders that there are

    def get(self, avatar_id: str, progress: Progress | None = None) -> AvatarFile:
        """The avatar, once it is prepared; seconds where it is not cached. Raises AvatarError.

        ``progress`` is not called: another process does the work.
        """
        avatar = self.read(avatar_id)
        with self._guard:
            is_prepared = avatar_id in self._prepared
        if not is_prepared:
            self._ask(avatar_id)
            with self._guard:
                self._prepared.add(avatar_id)
        return avatar

    def delete(self, avatar_id: str) -> None:
        """Delete an avatar that a client made. Raises AvatarError."""
        super().delete(avatar_id)
        with self._guard:
            self._prepared.discard(avatar_id)
