"""Avatars that are prepared at once: small pictures of one grey."""

from __future__ import annotations

import shutil
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.avatars.background import Backgrounds
from wsavatar.avatars.format import AvatarError
from wsavatar.faces.avatar_face import AvatarFace
from wsavatar.faces.base import Progress
from wsavatar.faces.masks import Masks
from wsavatar.media import jpeg
from wsavatar.media.pictures import DecodedPictures, Pictures

PERSON = np.zeros((32, 32), np.uint8)
"""Where the person is in the pictures of `avatar`."""
PERSON[6:, 6:26] = 255


def avatar(
    avatar_id: str, *, frame_count: int = 8, fps: float = 25.0, **words: str
) -> PreparedAvatar:
    """A prepared avatar of 32x32 pixels; its pictures are all of one grey that its id gives.

    ``words``: its voice, language, instructions and greeting.
    """
    grey = sum(avatar_id.encode()) % 256
    frames = np.full((frame_count, 32, 32, 3), grey, np.uint8)
    face = AvatarFace(
        crop_boxes=np.tile(np.array([8, 8, 24, 24], np.int32), (frame_count, 1)),
        paste_boxes=np.tile(np.array([4, 4, 28, 28], np.int32), (frame_count, 1)),
        masks=(np.full((24, 24), 255, np.uint8),) * frame_count,
        inputs=np.zeros((frame_count, 8, 2, 2), np.float16),
    )
    return PreparedAvatar(
        avatar_id,
        avatar_id.title(),
        32,
        32,
        fps,
        DecodedPictures(frames),
        (4, 16, 24, 12),
        face,
        **words,
    )


@dataclass
class Info:
    id: str
    name: str
    removable: bool = False
    width: int = 32
    height: int = 32
    fps: float = 25.0
    frame_count: int = 8
    has_poster: bool = False


class FakeAvatars:
    """A store of avatars that are always prepared. ``video``: what idle_video gives.

    ``uploads``: a directory of whose folders each is an avatar that a client made.
    """

    def __init__(
        self,
        *avatars: str | PreparedAvatar,
        video: Path | None = None,
        poster: Path | None = None,
        uploads: Path | None = None,
    ) -> None:
        made = [avatar(one) if isinstance(one, str) else one for one in avatars]
        self._avatars = {one.id: one for one in made}
        self._video = video
        self._poster = poster
        self._uploads = uploads
        self._names: dict[str, str] = {}
        self.is_closed = False

    @property
    def default_id(self) -> str:
        return next(iter(self._avatars))

    def list(self) -> list[Info]:
        uploaded = self._uploaded()
        infos = [Info(one, one.title()) for one in self._avatars if one not in uploaded]
        return infos + [Info(one, self._names.get(one, one.title()), True) for one in uploaded]

    def taken(self) -> set[str]:
        return {one.id for one in self.list()}

    def get(
        self, avatar_id: str, progress: Progress | None = None, *, background: str | None = None
    ) -> PreparedAvatar:
        if avatar_id in self._uploaded():
            if progress is not None:
                progress(8, 8)
            self._avatars.setdefault(avatar_id, avatar(avatar_id))
        if avatar_id not in self._avatars:
            raise AvatarError(f"no avatar {avatar_id!r}; known: {', '.join(self._avatars)}")
        plain = self._avatars[avatar_id]
        behind = Backgrounds("original").named(background)
        if behind is None:
            return plain
        person = PERSON.repeat(plain.height // 32, 0).repeat(plain.width // 32, 1)
        return plain.before(behind, Masks([person] * plain.frame_count))

    def cut_out(self, avatar_id: str, background: str | None = None) -> Future[Masks] | None:
        self.get(avatar_id, background=background)
        return None

    def close(self) -> None:
        self.is_closed = True

    def finding(self, avatar_id: str) -> tuple[int, int] | None:
        return None

    def preview(self, avatar_id: str) -> bytes:
        return jpeg.encode(self.get(avatar_id).pictures[0])

    def rename(self, avatar_id: str, name: str) -> None:
        self._removable(avatar_id)
        self._names[avatar_id] = name

    def delete(self, avatar_id: str) -> None:
        shutil.rmtree(self._removable(avatar_id))
        self._avatars.pop(avatar_id, None)

    def _uploaded(self) -> list[str]:
        if self._uploads is None or not self._uploads.is_dir():
            return []
        return sorted(path.name for path in self._uploads.glob("[!.]*") if path.is_dir())

    def _removable(self, avatar_id: str) -> Path:
        if self._uploads is None or avatar_id not in self._uploaded():
            raise AvatarError(f"{avatar_id!r} was not made by a client")
        return self._uploads / avatar_id

    def idle_pictures(self, avatar_id: str, background: str | None = None) -> Pictures:
        return self.get(avatar_id, background=background).pictures

    def idle_video(self, avatar_id: str) -> Path:
        self.get(avatar_id)
        return self._video or Path(__file__)

    def still(self, avatar_id: str, background: str | None = None) -> np.ndarray | None:
        shown = self.get(avatar_id, background=background)
        return None if shown.background == "original" else shown.pictures[0]

    def poster(self, avatar_id: str) -> Path | None:
        self.get(avatar_id)
        return self._poster
