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
    digest: str = ""

    @classmethod
    def of(cls, avatar: AvatarFile, background: str, digest: str = "") -> RemoteAvatar:
        said = {field.name for field in fields(cls)} & avatar.__class__.model_fields.keys()
        words = {name: getattr(avatar, name) for name in said}
        return cls(**words, background=background, digest=digest)


class RemoteAvatars(AvatarLibrary):
    """``prepare``: a device's process prepares the avatar; blocks; may raise AvatarError."""

    def __init__(
        self,
        settings: AvatarSettings,
        prepare: Callable[[RemoteAvatar], None],
        mask_maker: MaskMaker | None = None,
    ) -> None:
        super().__init__(settings, mask_maker)
        self._ask = prepare
        self._guard = threading.Lock()
        self._prepared: dict[tuple[str, bool], str] = {}  # (id, with masks): digest

    def get(
        self, avatar_id: str, progress: Progress | None = None, *, background: str | None = None
    ) -> RemoteAvatar:
        """The avatar, once it is prepared; seconds where it is not cached. Raises AvatarError.

        ``progress`` is called while the person is looked for alone: another process prepares it.
        """
        avatar = self.read(avatar_id)
        behind = self.backgrounds.named(background)
        name = ORIGINAL if behind is None else behind.name
        made = RemoteAvatar.of(avatar, name, self.digest(avatar_id))
        key = avatar_id, behind is not None
        with self._guard:
            is_prepared = self._prepared.get(key) == made.digest
        if not is_prepared:
            if behind is not None:  # here, where its progress is known; devices read the result
                self._person(avatar_id, progress)
            self._ask(made)
            with self._guard:
                self._prepared[key] = made.digest
        return made

    def delete(self, avatar_id: str) -> None:
        """Delete an avatar that a client made. Raises AvatarError."""
        super().delete(avatar_id)
        with self._guard:
            for with_masks in (True, False):
                self._prepared.pop((avatar_id, with_masks), None)
