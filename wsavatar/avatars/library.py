"""Avatars by their files: the configured ones, and those that clients made. Nothing is prepared.

Thread-safe. It reads the disk, so do not call it on an event loop.
"""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from wsavatar.avatars.background import Backgrounds, CutOut
from wsavatar.avatars.cache import FaceCache, cache_key
from wsavatar.avatars.format import ID_PATTERN, AvatarError, AvatarFile, file_in, read_avatar_file
from wsavatar.avatars.landmarks import read_landmarks
from wsavatar.avatars.person_masks import MaskMaker, PersonSearch
from wsavatar.avatars.pictures import open_pictures
from wsavatar.avatars.writing import rename_avatar
from wsavatar.config import AvatarSettings
from wsavatar.faces.base import Progress
from wsavatar.faces.masks import Masks
from wsavatar.media import jpeg
from wsavatar.media.pictures import DecodedPictures, Pictures
from wsavatar.media.video import VideoError, open_video
from wsavatar.resources import cache_directory, data_directory, resource_dir

__all__ = ["AvatarEntry", "AvatarLibrary", "avatar_directory", "uploads_directory"]

_log = logging.getLogger(__name__)

_PREVIEW = 192  # pixels a side
_BUNDLED = "leo"
"""The default of the bundled ones: a man, as is the one natural voice that needs no network."""


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
    removable: bool
    """A client made it: clients may rename and delete it."""


# Inside the class below, `list` is its method.
_Infos = list[AvatarEntry]
_Folders = list[Path]
_Read = tuple[tuple[int, int, int] | None, AvatarEntry]


def avatar_directory(settings: AvatarSettings) -> Path:
    """The configured directory of avatars, or the bundled one."""
    return settings.directory if settings.directory is not None else resource_dir("avatars")


def uploads_directory(settings: AvatarSettings) -> Path:
    """The directory of the avatars that clients make."""
    return settings.uploads_directory or data_directory() / "avatars"


class AvatarLibrary:
    """Lists avatars and reads their files. Changes on the disk take effect at once.

    Of two avatars with one id, the one of the configured directory counts. ``mask_maker``: None:
    only avatars with an alpha channel can have other backgrounds. `close` it once. Raises
    BackgroundError for ``settings.background``.
    """

    def __init__(self, settings: AvatarSettings, mask_maker: MaskMaker | None = None) -> None:
        self._directory = avatar_directory(settings)
        self._uploads = uploads_directory(settings)
        self._more = settings.more_directories
        self._default = settings.default
        self._decoded_bytes = settings.decoded_mb * 2**20
        self._files = FaceCache(settings.cache or cache_directory())
        self._read: dict[Path, _Read] = {}
        self._reporting = threading.Lock()
        self._reported: dict[str, str] = {}
        self._changing = threading.Lock()
        self.backgrounds = Backgrounds(settings.background)
        self._persons = PersonSearch(self._files, mask_maker)
        self._deleted: set[str] = set()  # an id names one face: what was rendered of it stays known

    @property
    def default_id(self) -> str:
        """The configured avatar; else the first by name, and of the bundled ones `_BUNDLED`. Raises
        AvatarError if there is none.

        Those of other directories than the configured one only where that has none.
        """
        if self._default:
            return self.read(self._default).id
        avatars = self.list()
        avatars = [one for one in avatars if (self._directory / one.id).is_dir()] or avatars
        if not avatars:
            raise AvatarError(f"{self._directory} has no avatar")
        bundled = resource_dir("avatars") / _BUNDLED
        return next((i.id for i in avatars if self._folder(i.id) == bundled), avatars[0].id)

    def list(self) -> _Infos:
        """All valid avatars by name. An invalid folder is left out and logged once."""
        infos: dict[str, AvatarEntry] = {}
        read: dict[Path, _Read] = {}
        for folder in self._folders():
            try:
                read[folder] = self._read_anew(folder)
                infos.setdefault(folder.name, read[folder][1])
            except AvatarError as error:
                self._report(folder.name, str(error))
        self._read = read
        return sorted(infos.values(), key=lambda info: (info.name.casefold(), info.id))

    def _read_anew(self, folder: Path) -> _Read:
        """A folder's entry; its file is read only if it has changed: pages ask often."""
        try:
            stat = (folder / "avatar.json").stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            stamp = None
        known = self._read.get(folder)
        if known is not None and known[0] == stamp:
            return known
        return stamp, _info(folder, read_avatar_file(folder), self._is_removable(folder))

    def read(self, avatar_id: str) -> AvatarFile:
        """The avatar's ``avatar.json``. Raises AvatarError, which names the known avatars."""
        return read_avatar_file(self._folder(avatar_id))

    def digest(self, avatar_id: str) -> str:
        """Of its files as they are: another one for other pictures, whatever it is called. Raises
        AvatarError."""
        return cache_key(self._folder(avatar_id), self.read(avatar_id), "")

    def taken(self) -> set[str]:
        """Ids that a new avatar may not have: of those that are, or were since the start."""
        return {folder.name for folder in self._folders()} | self._deleted

    def preview(self, avatar_id: str) -> bytes:
        """A small JPEG of the face in the first picture. Raises AvatarError."""
        avatar = self.read(avatar_id)
        points = read_landmarks(self._folder(avatar_id), avatar)[0]
        low, high = points.min(axis=0), points.max(axis=0)
        return self._crop(avatar_id, (int(low[0]), int(low[1]), int(high[0]) + 1, int(high[1]) + 1))

    def _crop(self, avatar_id: str, box: tuple[int, int, int, int]) -> bytes:
        """``box`` (x1, y1, x2, y2) of the first picture as a square JPEG."""
        picture = self.idle_pictures(avatar_id)[0]
        x1, y1, x2, y2 = (max(0, value) for value in box)
        kernel = cv2.INTER_AREA if x2 - x1 > _PREVIEW else cv2.INTER_CUBIC
        part = cv2.resize(picture[y1:y2, x1:x2], (_PREVIEW, _PREVIEW), interpolation=kernel)
        return jpeg.encode(part)

    def rename(self, avatar_id: str, name: str) -> None:
        """Give an avatar that a client made another name. Raises AvatarError."""
        with self._changing:
            rename_avatar(self._removable(avatar_id), name)

    def delete(self, avatar_id: str) -> None:
        """Delete an avatar that a client made, with all that was computed of it.

        Raises AvatarError; for the default avatar too, since new sessions need one.
        """
        with self._changing:
            folder = self._removable(avatar_id)
            if avatar_id == self.default_id:
                raise AvatarError(f"{avatar_id!r} is the default avatar: it cannot be deleted")
            try:
                # It is gone at once, whatever becomes of its files.
                grave = Path(tempfile.mkdtemp(prefix=".deleted-", dir=folder.parent))
                try:
                    folder.rename(grave / avatar_id)
                    self._deleted.add(avatar_id)
                finally:
                    shutil.rmtree(grave, ignore_errors=True)
            except OSError as error:
                raise AvatarError(f"{avatar_id!r} cannot be deleted ({error.strerror})") from error
        self._files.forget(avatar_id)
        self._persons.forget(avatar_id)

    def cut_out(self, avatar_id: str, background: str | None = None) -> Future[Masks] | None:
        """The search for the person in the avatar's pictures, begun now if it was not yet; None
        where the background of this name needs none.

        Raises AvatarError, and the search BackgroundError.
        """
        if self.backgrounds.named(background) is None:
            return None
        found = self._person_or_search(avatar_id)
        return found if isinstance(found, Future) else None

    def close(self) -> None:
        """Stop what is computed of avatars beside the calls that wait for it."""
        self._persons.close()

    def finding(self, avatar_id: str) -> tuple[int, int] | None:
        """In how many of the avatar's pictures, of how many, the person was found so far; None:
        nobody looks for it now."""
        return self._persons.finding(avatar_id)

    def idle_pictures(self, avatar_id: str, background: str | None = None) -> Pictures:
        """The pictures of the idle cycle, before the configured background or another. Raises
        AvatarError."""
        behind = self.backgrounds.named(background)
        pictures = self._own_pictures(avatar_id)
        if behind is None:
            return pictures
        return CutOut(pictures, self._person(avatar_id), behind)

    def still(self, avatar_id: str, background: str | None = None) -> np.ndarray | None:
        """The first picture of the idle cycle before another background than its own; None where
        that is its own, or its person was never looked for. Cheap: nothing is prepared.

        Raises AvatarError.
        """
        behind = self.backgrounds.named(background)
        if behind is None:
            return None
        masks = self._persons.known(self._folder(avatar_id), self.read(avatar_id))
        if masks is None:
            return None
        try:
            with open_video(self.idle_video(avatar_id)) as (_, shown):
                first = DecodedPictures(next(shown).picture[None])
        except VideoError as error:
            raise AvatarError(str(error)) from error
        return CutOut(first, masks, behind).picture(0)

    def idle_video(self, avatar_id: str) -> Path:
        """The avatar's idle video, for a browser to loop. Raises AvatarError."""
        return file_in(self._folder(avatar_id), self.read(avatar_id).video)

    def poster(self, avatar_id: str) -> Path | None:
        """The avatar's still picture, if it has one. Raises AvatarError."""
        poster = self.read(avatar_id).poster
        return file_in(self._folder(avatar_id), poster) if poster else None

    def _folder(self, avatar_id: str) -> Path:
        """Where the avatar is. Raises AvatarError, which names the known avatars."""
        # The pattern comes first: an id from the network must never become a path.
        if re.fullmatch(ID_PATTERN, avatar_id):
            for directory in self._directories():
                if (directory / avatar_id).is_dir():
                    return directory / avatar_id
        known = ", ".join(info.id for info in self.list()) or "none"
        raise AvatarError(f"no avatar {avatar_id[:64]!r}; known: {known}")

    def _removable(self, avatar_id: str) -> Path:
        folder = self._folder(avatar_id)
        if not self._is_removable(folder):
            raise AvatarError(f"{avatar_id!r} was not made by a client: it cannot be changed here")
        return folder

    def _is_removable(self, folder: Path) -> bool:
        return folder.parent == self._uploads

    def _directories(self) -> _Folders:
        """The configured one, which must be there, that of the clients' avatars, and more."""
        others = (self._uploads, *self._more)
        return [self._directory, *(folder for folder in others if folder.is_dir())]

    def _folders(self) -> _Folders:
        folders: _Folders = []
        for directory in self._directories():
            try:
                children = sorted(directory.iterdir())
            except OSError as error:
                self._report("", f"{directory}: cannot be read ({error})")
                continue
            folders += [path for path in children if path.name[0] != "." and path.is_dir()]
        return folders

    def _person(self, avatar_id: str, progress: Progress | None = None) -> Masks:
        """Where the person is in the avatar's pictures. Raises AvatarError."""
        found = self._person_or_search(avatar_id, progress)
        return found.result() if isinstance(found, Future) else found

    def _person_or_search(
        self, avatar_id: str, progress: Progress | None = None
    ) -> Masks | Future[Masks]:
        folder, avatar = self._folder(avatar_id), self.read(avatar_id)
        masks = self._persons.known(folder, avatar)
        if masks is not None:
            return masks
        return self._persons.search(
            folder, avatar, partial(self._own_pictures, avatar_id), progress
        )

    def _own_pictures(self, avatar_id: str) -> Pictures:
        """The avatar's pictures before its own background. Raises AvatarError."""
        return self._open_pictures(self.read(avatar_id))

    def _open_pictures(self, avatar: AvatarFile) -> Pictures:
        video = file_in(self._folder(avatar.id), avatar.video)
        return open_pictures(video, avatar, self._decoded_bytes, self._files.directory)

    def _report(self, name: str, fault: str) -> None:
        with self._reporting:
            if self._reported.get(name) == fault:
                return
            self._reported[name] = fault
        _log.warning("avatar left out: %s", fault)


def _info(folder: Path, avatar: AvatarFile, removable: bool) -> AvatarEntry:
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
        removable=removable,
    )
