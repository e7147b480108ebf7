"""The avatars of one directory, from their files: no model, and nothing prepared.

Thread-safe. It reads the disk, so do not call it on an event loop.
"""

from __future__ import annotations

import logging
import re
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsavatar.avatars.format import ID_PATTERN, AvatarError, AvatarFile, file_in, read_avatar_file
from wsavatar.config import AvatarSettings
from wsavatar.media.video import VideoError, read_video
from wsavatar.resources import resource_dir

__all__ = ["AvatarEntry", "AvatarLibrary", "avatar_directory"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AvatarEntry:
    """An entry of the list of avatars, from its JSON file only."""

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
    """The configured directory of avatars, or the bundled one."""
    return settings.directory if settings.directory is not None else resource_dir("avatars")


class AvatarLibrary:
    """Lists avatars and reads their files. Changes on the disk take effect at once."""

    def __init__(self, settings: AvatarSettings) -> None:
        self._directory = avatar_directory(settings)
        self._default = settings.default
        self._reporting = threading.Lock()
        self._reported: dict[str, str] = {}

    @property
    def default_id(self) -> str:
        """The configured avatar, or the first by name. Raises AvatarError if there is none."""
        if self._default:
            return self.read(self._default).id
        avatars = self.list()
        if not avatars:
            raise AvatarError(f"{self._directory} has no avatar")
        return avatars[0].id

    def list(self) -> _Infos:
        """All valid avatars by name. An invalid folder is left out and logged once."""
        infos = []
        for folder in self._folders():
            try:
                infos.append(_info(folder, read_avatar_file(folder)))
            except AvatarError as error:
                self._report(folder.name, str(error))
        return sorted(infos, key=lambda info: (info.name.casefold(), info.id))

    def read(self, avatar_id: str) -> AvatarFile:
        """The avatar's ``avatar.json``. Raises AvatarError, which names the known avatars."""
        # The pattern comes first: an id from the network must never become a path.
        if re.fullmatch(ID_PATTERN, avatar_id) and (self._directory / avatar_id).is_dir():
            return read_avatar_file(self._directory / avatar_id)
        known = ", ".join(info.id for info in self.list()) or "none"
        raise AvatarError(f"no avatar {avatar_id[:64]!r}; known: {known}")

    def idle_frames(self, avatar_id: str) -> np.ndarray:
        """The pictures of the idle cycle: uint8 [n, H, W, 3] RGB. Raises AvatarError."""
        return self._read_frames(self.read(avatar_id))

    def idle_video(self, avatar_id: str) -> Path:
        """The avatar's idle video, for a browser to loop. Raises AvatarError."""
        return file_in(self._directory / avatar_id, self.read(avatar_id).video)

    def poster(self, avatar_id: str) -> Path | None:
        """The avatar's still picture, if it has one. Raises AvatarError."""
        poster = self.read(avatar_id).poster
        return file_in(self._directory / avatar_id, poster) if poster else None

    def _folders(self) -> _Folders:
        try:
            children = sorted(self._directory.iterdir())
        except OSError as error:
            self._report("", f"{self._directory}: cannot be read ({error})")
            return []
        return [path for path in children if path.name[0] != "." and path.is_dir()]

    def _read_frames(self, avatar: AvatarFile) -> np.ndarray:
        path = file_in(self._directory / avatar.id, avatar.video)
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

    def _report(self, name: str, fault: str) -> None:
        with self._reporting:
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
