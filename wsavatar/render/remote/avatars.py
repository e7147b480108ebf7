"""Avatars of a process that renders nothing: it reads their files; devices' processes prepare them.

It knows neither how a face is prepared nor how a process is called.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, fields

from wsavatar.avatars.background import ORIGINAL
from wsavatar.avatars.format import AvatarFile
from wsavatar.avatars.library import AvatarLibrary
from wsavatar.avatars.person_masks import MaskMaker
from wsavatar.config import AvatarSettings
from wsavatar.faces.base import Progress

__all__ = ["RemoteAvatar", "RemoteAvatars"]


@dataclass(frozen=True, slots=True)
class RemoteAvatar:
    """An `AvatarInfo` of an avatar's file."""

    id: str
    fps: float
    frame_count: int
    width: int
    height: int
    voice: str
    language: str
    instructions: str
    greeting: str
    background: str = ORIGINAL

    @classmethod
    def of(cls, avatar: AvatarFile, background: str) -> RemoteAvatar:
        said = {field.name for field in fields(cls)} & avatar.__class__.model_fields.keys()
        return cls(**{name: getattr(avatar, name) for name in said}, background=background)


class RemoteAvatars(AvatarLibrary):
    """``prepare(id, background)``: a device's process prepares the avatar; blocks; may raise
    AvatarError."""

    def __init__(
        self,
        settings: AvatarSettings,
        prepare: Callable[[str, str], None],
        mask_maker: MaskMaker | None = None,
    ) -> None:
        super().__init__(settings, mask_maker)
        self._ask = prepare
        self._guard = threading.Lock()
        self._prepared: set[tuple[str, bool]] = set()  # (id, with masks)

    def get(
        self, avatar_id: str, progress: Progress | None = None, *, background: str | None = None
    ) -> RemoteAvatar:
        """The avatar, once it is prepared; seconds where it is not cached. Raises AvatarError.

        ``progress`` is called while the person is looked for alone: another process prepares it.
        """
        avatar = self.read(avatar_id)
        behind = self.backgrounds.named(background)
        name = ORIGINAL if behind is None else behind.name
        key = avatar_id, behind is not None
        with self._guard:
            is_prepared = key in self._prepared
        if not is_prepared:
            if behind is not None:  # here, where its progress is known; devices read the result
                self._person(avatar_id, progress)
            self._ask(avatar_id, name)
            with self._guard:
                self._prepared.add(key)
        return RemoteAvatar.of(avatar, name)

    def delete(self, avatar_id: str) -> None:
        """Delete an avatar that a client made. Raises AvatarError."""
        super().delete(avatar_id)
        with self._guard:
            self._prepared -= {(avatar_id, True), (avatar_id, False)}
