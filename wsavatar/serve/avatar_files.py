"""The avatars over HTTP: their list, and each one's idle cycle, video and poster.

What is shown before another background than an avatar's own is made when it is asked for, one at a
time, and kept for a while. It reads the disk and computes, so it runs on a thread.
"""

from __future__ import annotations

import os
import struct
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from dataclasses import asdict, is_dataclass
from fractions import Fraction
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from wsavatar.avatars.background import ORIGINAL, TRANSPARENT, default_name
from wsavatar.avatars.format import AvatarError
from wsavatar.config import Settings
from wsavatar.errors import without_folders
from wsavatar.machine import yield_to_others
from wsavatar.media.pictures import Pictures
from wsavatar.media.video_kinds import MP4, WEBM
from wsavatar.media.video_writer import VideoWriter
from wsavatar.protocol.binary import pack_frame
from wsavatar.render.encoders import encoder_for
from wsavatar.serve.http import NotFound, Reply, data_reply, file_reply, json_reply, not_yet
from wsavatar.session.avatar_list import avatar_urls
from wsavatar.session.configuration import first_codec
from wsavatar.session.engine import Engine

__all__ = ["AvatarFiles", "idle_cycle"]

Made = TypeVar("Made")

_PATIENCE_S = 3.0
"""How long a request waits for pictures before another background; then it is to come again."""
_KEPT = 8
"""Idle cycles and videos that were made, in files: some megabytes each, a hundred for 30 s at
1080p. Full: the least recently used is removed."""
_POSTERS_KEPT = 64
_POSTER_QUALITY = 90


class AvatarFiles:
    """The avatars' list and files, from the store. No path of a client is opened."""

    def __init__(
        self,
        engine: Callable[[], Engine | None],
        progress: Callable[[], str],
        settings: Settings,
        may_change_avatars: Callable[[str], bool],
    ) -> None:
        self._engine = engine
        self._progress = progress
        self._render = settings.render
        self._limits = settings.avatars
        self._background = default_name(settings.avatars.background)
        self._may_change = may_change_avatars
        self._guard = threading.Lock()
        self._made = _Recent[_UnnamedFile](_KEPT)
        self._posters = _Recent[bytes](_POSTERS_KEPT)
        self._making: tuple[_Version, Future[_UnnamedFile]] | None = None

    def listing(self, path: str, headers: Mapping[str, str]) -> Reply:
        """``/api/avatars``: all avatars, and the default one."""
        if path != "/api/avatars":
            raise NotFound(f"nothing at {path}")
        engine = self._engine()
        if engine is None:
            return not_yet(self._progress())
        avatars = engine.avatars
        listed = [_public(info) for info in avatars.list()]
        may_change = engine.maker is not None and self._may_change(headers.get("host", ""))
        failures = engine.dropped.failures if engine.dropped is not None else {}
        body = {
            "avatars": listed,
            "default": avatars.default_id if listed else None,
            "uploads": {"max_bytes": self._limits.max_upload_mb << 20} if may_change else None,
            "background": {
                "name": self._background,
                "codec": first_codec(self._render.codecs, self._background),
                "codecs": self._render.codecs,
                "choose": self._limits.choose_background,
            },
            "failed": [{"file": name, "problem": why} for name, why in failures.items()],
            "videos": engine.videos is not None,
        }
        return json_reply(body)

    def file(self, path: str, headers: Mapping[str, str], query: Mapping[str, str]) -> Reply:
        """``/avatars/<id>/`` and one of avatar.json, idle.bin, idle.mp4, poster.jpg.

        The last three before the ``background`` of the query, else the server's; idle.bin with its
        ``codec``. What cannot be transparent comes in another format then: a WebM, a WebP.
        """
        engine = self._engine()
        if engine is None:
            return not_yet(self._progress())
        avatar_id, _, name = path.removeprefix("/avatars/").partition("/")
        try:
            match name:
                case "avatar.json":
                    return self._about(engine, avatar_id)
                case "idle.bin" | "idle.mp4" | "poster.jpg":
                    version = self._version(engine, avatar_id, name, query)
                    answer = {
                        "idle.bin": self._idle,
                        "idle.mp4": self._video,
                        "poster.jpg": self._poster,
                    }
                    return answer[name](engine, version, headers)
        except AvatarError as error:
            raise NotFound(without_folders(str(error))) from error
        except FileNotFoundError as error:  # it was deleted meanwhile
            raise NotFound(f"no avatar {avatar_id!r}") from error
        raise NotFound(f"nothing at {path}")

    def _about(self, engine: Engine, avatar_id: str) -> Reply:
        for info in engine.avatars.list():
            if info.id == avatar_id:
                return json_reply(_public(info))
        raise NotFound(f"no avatar {avatar_id!r}")

    def _version(
        self, engine: Engine, avatar_id: str, name: str, query: Mapping[str, str]
    ) -> _Version:
        """Raises NotFound for what a client may not ask for, AvatarError."""
        background = query.get("background", "").lower()
        if background and not self._limits.choose_background:
            raise NotFound("the background is the server's to choose (avatars.choose_background)")
        codec = query.get("codec", "")
        if codec and codec not in self._render.codecs:
            raise NotFound(f"pictures are {', '.join(self._render.codecs)} (render.codecs)")
        stat = engine.avatars.idle_video(avatar_id).stat()
        shown = background or self._background
        return _Version(avatar_id, stat.st_ino, stat.st_mtime_ns, name, shown, codec)

    def _idle(self, engine: Engine, version: _Version, headers: Mapping[str, str]) -> Reply:
        made = self._file_of(engine, version)
        if made is None:
            return self._later(engine, version)
        caching = {"Cache-Control": "no-cache"}
        kind = "application/octet-stream"
        return Reply(HTTPStatus.OK, made.read(), kind, caching)

    def _video(self, engine: Engine, version: _Version, headers: Mapping[str, str]) -> Reply:
        if version.background == ORIGINAL:
            return file_reply(engine.avatars.idle_video(version.avatar_id), headers)
        made = self._file_of(engine, version)
        if made is None:
            return self._later(engine, version)
        kind = WEBM if version.background == TRANSPARENT else MP4
        return data_reply(made.read(), f"video/{kind.container}", headers)

    def _poster(self, engine: Engine, version: _Version, headers: Mapping[str, str]) -> Reply:
        """Until its person was looked for, which a poster alone is not worth, the avatar's own."""
        own = engine.avatars.poster(version.avatar_id)
        if own is None:
            raise NotFound(f"{version.avatar_id!r} has no poster")
        made = self._posters.get(version)
        codec = "webp" if version.background == TRANSPARENT else "jpeg"
        if made is None:
            still = engine.avatars.still(version.avatar_id, version.background)
            if still is None:
                return file_reply(own, headers)
            made = encoder_for(codec).encode(still, _POSTER_QUALITY)
            self._posters.keep(version, made)
        return data_reply(made, f"image/{codec}", headers)

    def _later(self, engine: Engine, version: _Version) -> Reply:
        found = engine.avatars.finding(version.avatar_id)
        if found is None:
            return not_yet("pictures before another background are being made")
        return not_yet(f"finding the person: {found[0]} of {found[1]} pictures")

    def _file_of(self, engine: Engine, version: _Version) -> _UnnamedFile | None:
        """What was made or is made now; None: that takes longer than a request may.

        Raises NotFound for a format that cannot have the background, AvatarError.
        """
        made = self._made.get(version)
        if made is not None:
            return made
        if engine.avatars.cut_out(version.avatar_id, version.background) is not None:
            return None
        if version.background == ORIGINAL:
            return self._make(engine, version)
        return self._made_beside(engine, version)

    def _made_beside(self, engine: Engine, version: _Version) -> _UnnamedFile | None:
        """None: it is being made still, or another one is.

        One at a time, so that clients cannot take all cores; only the request that began it waits,
        so that they cannot take all threads. Raises what `_make` raises.
        """
        with self._guard:
            begins = self._making is None
            if begins:
                made: Future[_UnnamedFile] = Future()
                self._making = version, made
                work = partial(_settle, made, partial(self._make, engine, version))
                # No daemon: one that is in a network while the process ends would abort it.
                threading.Thread(target=work, name="idle cycle").start()
            assert self._making is not None
            wanted, future = self._making
        if not wait([future], _PATIENCE_S if begins else 0).done:
            return None
        with self._guard:
            if self._making == (wanted, future):
                self._making = None
        return future.result() if wanted == version else None

    def _make(self, engine: Engine, version: _Version) -> _UnnamedFile:
        avatar = engine.avatars.get(version.avatar_id, background=version.background)
        pictures = engine.avatars.idle_pictures(version.avatar_id, version.background)
        if version.name == "idle.mp4":
            made = _UnnamedFile.written(partial(_write_video, pictures, avatar.fps))
        else:
            codec = version.codec or first_codec(self._render.codecs, version.background)
            if codec == "jpeg" and version.background == TRANSPARENT:
                raise NotFound(
                    "JPEG pictures cannot be transparent: ask for codec=webp or codec=png"
                )
            messages = idle_cycle(pictures, avatar.fps, self._render.jpeg_quality, codec)
            made = _UnnamedFile.of(messages)
        self._made.keep(version, made)
        return made


def _settle(future: Future[_UnnamedFile], make: Callable[[], _UnnamedFile]) -> None:
    yield_to_others()
    try:
        future.set_result(make())
    except Exception as error:  # who asked for it raises it
        future.set_exception(error)


class _Version(NamedTuple):
    """What was asked for. ``inode``, ``changed_ns``: which file the avatar's video is, as it may be
    deleted and made anew."""

    avatar_id: str
    inode: int
    changed_ns: int
    name: str
    background: str
    codec: str


class _Recent(Generic[Made]):
    """The most recently used of what was made. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._guard = threading.Lock()
        self._made: OrderedDict[_Version, Made] = OrderedDict()

    def get(self, version: _Version) -> Made | None:
        with self._guard:
            made = self._made.get(version)
            if made is not None:
                self._made.move_to_end(version)
        return made

    def keep(self, version: _Version, made: Made) -> None:
        with self._guard:
            self._made[version] = made
            while len(self._made) > self._most:
                self._made.popitem(last=False)


class _UnnamedFile:
    """A file without a name, until nobody holds it or the process ends."""

    def __init__(self, path: Path) -> None:
        """Of the file at ``path``, which loses its name."""
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        path.unlink()

    @classmethod
    def written(cls, write: Callable[[Path], None]) -> _UnnamedFile:
        """What ``write`` writes to the path it is called with."""
        handle, name = tempfile.mkstemp(prefix="wsavatar-")
        os.close(handle)
        try:
            write(Path(name))
        except BaseException:
            os.unlink(name)
            raise
        return cls(Path(name))

    @classmethod
    def of(cls, pieces: Iterable[bytes]) -> _UnnamedFile:
        def write(path: Path) -> None:
            with path.open("wb") as file:
                file.writelines(pieces)

        return cls.written(write)

    def read(self) -> bytes:
        """All of it. Thread-safe."""
        return os.pread(self._file, os.fstat(self._file).st_size, 0)


def _write_video(pictures: Pictures, fps: float, path: Path) -> None:
    """A WebM of pictures with an alpha channel, an MP4 of others."""
    height, width, channels = pictures[0].shape
    with VideoWriter(
        path,
        width=width,
        height=height,
        fps=Fraction(fps).limit_denominator(1001),
        kind=WEBM if channels == 4 else MP4,
        alpha=channels == 4,
    ) as video:
        for picture in pictures:
            video.write(picture)


def idle_cycle(
    pictures: Pictures, fps: float, quality: int, codec: str = "jpeg"
) -> Iterator[bytes]:
    """Pictures in order: each a u32 length, then a binary frame message."""
    encoder = encoder_for(codec)
    for index, picture in enumerate(pictures):
        pts_us = round(index * 1_000_000 / fps)
        region = (0, 0, picture.shape[1], picture.shape[0])
        data = encoder.encode(picture, quality)
        message = pack_frame(0, index, pts_us, region, data, codec)
        yield struct.pack("<I", len(message)) + message


def _public(info: Any) -> dict[str, Any]:
    """An avatar as the page sees it."""
    fields = asdict(info) if is_dataclass(info) and not isinstance(info, type) else dict(vars(info))
    urls = avatar_urls(fields["id"], has_poster=bool(fields.get("has_poster")))
    return {**fields, "urls": urls}
