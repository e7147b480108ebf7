"""The content of HTTP answers: health, statistics, avatars, the protocol's description.

`wsavatar.serve.http` makes answers of requests. Routes are called on the event loop and only read
numbers; `AvatarFiles` reads the disk and runs on a thread.
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
from dataclasses import asdict, is_dataclass, replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST

from wsavatar import __version__
from wsavatar.avatars.background import TRANSPARENT, default_name
from wsavatar.avatars.format import AvatarError
from wsavatar.config import Settings
from wsavatar.dialogue.engine import EngineStatus
from wsavatar.errors import without_folders
from wsavatar.machine import yield_to_others
from wsavatar.media.pictures import Pictures
from wsavatar.metrics import Metrics
from wsavatar.protocol.asyncapi import describe
from wsavatar.protocol.binary import pack_frame
from wsavatar.render.encoders import encoder_for
from wsavatar.serve.http import NotFound, Reply, Site, file_reply, json_reply
from wsavatar.session.avatar_list import avatar_urls
from wsavatar.session.configuration import first_codec
from wsavatar.session.engine import Engine

__all__ = ["ENDPOINT", "AvatarFiles", "build_site", "idle_cycle"]

ENDPOINT = "/v1/realtime"

_PATIENCE_S = 3.0
"""How long a request waits for pictures before another background; then it is to come again."""
_IDLE_CYCLES_KEPT = 8
"""Encoded idle cycles, in files: some megabytes each, a hundred for 30 s at 1080p. Full: the least
recently used is removed."""


def build_site(
    frontend: Path,
    metrics: Metrics,
    engine: Callable[[], Engine | None],
    progress: Callable[[], str],
    settings: Settings,
    may_change_avatars: Callable[[str], bool],
) -> Site:
    """The site of one server. ``engine()`` is None until it is loaded; ``progress()`` says why.

    ``may_change_avatars``: whether a client with this ``Host`` may, over the WebSocket.
    """
    avatars = AvatarFiles(engine, progress, settings, may_change_avatars)

    def ready() -> Reply:
        loaded = engine()
        health = {} if loaded is None else dict(loaded.renderer.health())
        is_ready = not all(health.values())  # without devices: not loaded
        status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
        problems = {name: without_folders(problem) for name, problem in health.items() if problem}
        body = {"ready": is_ready, "progress": progress(), "problems": problems}
        return json_reply(body, status)

    def prometheus() -> Reply:
        return Reply(HTTPStatus.OK, metrics.prometheus(), CONTENT_TYPE_LATEST)

    def voices() -> Reply:
        loaded = engine()
        if loaded is None:
            return _not_yet(progress())
        if loaded.speech is None:
            return json_reply({"voices": [], "complete": True})
        return json_reply(asdict(loaded.speech.voice_list()))

    def engines() -> Reply:
        loaded = engine()
        if loaded is None:
            return _not_yet(progress())
        return json_reply([_told(one) for one in loaded.speech.status()] if loaded.speech else [])

    def endpoint() -> Reply:
        sentence = b"This is a WebSocket: connect to it with a WebSocket client.\n"
        upgrade = {"Upgrade": "websocket", "Cache-Control": "no-store"}
        return Reply(HTTPStatus.UPGRADE_REQUIRED, sentence, headers=upgrade)

    return Site(
        frontend,
        routes={
            ENDPOINT: endpoint,
            "/healthz": lambda: json_reply({"status": "ok", "version": __version__}),
            "/readyz": ready,
            "/metrics": prometheus,
            "/api/engines": engines,
            "/api/voices": voices,
            "/api/stats": lambda: json_reply(metrics.snapshot()),
            "/asyncapi.json": lambda: json_reply(describe()),
        },
        files={
            "/api/avatars": avatars.listing,
            "/videos/": partial(_video, engine),
        },
        queries={"/avatars/": avatars.file},
        origins=settings.server.allowed_origins,
    )


def _video(engine: Callable[[], Engine | None], path: str, headers: Mapping[str, str]) -> Reply:
    """``/videos/<name>``: a finished video, whose name only its client knows."""
    loaded = engine()
    videos = loaded.videos if loaded is not None else None
    file = videos.find(path.removeprefix("/videos/")) if videos is not None else None
    if file is None:
        raise NotFound("no such video: it has expired, or there never was one")
    return file_reply(file, headers)


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
        self._cycles: OrderedDict[_Version, _UnnamedFile] = OrderedDict()
        self._making: tuple[_Version, Future[_UnnamedFile]] | None = None

    def listing(self, path: str, headers: Mapping[str, str]) -> Reply:
        """``/api/avatars``: all avatars, and the default one."""
        if path != "/api/avatars":
            raise NotFound(f"nothing at {path}")
        engine = self._engine()
        if engine is None:
            return _not_yet(self._progress())
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
        """``/avatars/<id>/`` and one of avatar.json, idle.mp4, idle.bin, poster.jpg.

        idle.bin with the ``background`` and ``codec`` of the query, as sessions have them.
        """
        engine = self._engine()
        if engine is None:
            return _not_yet(self._progress())
        avatar_id, _, name = path.removeprefix("/avatars/").partition("/")
        try:
            match name:
                case "avatar.json":
                    return self._about(engine, avatar_id)
                case "idle.mp4":
                    return file_reply(engine.avatars.idle_video(avatar_id), headers)
                case "idle.bin":
                    return self._idle(engine, avatar_id, query)
                case "poster.jpg":
                    poster = engine.avatars.poster(avatar_id)
                    if poster is not None:
                        return file_reply(poster, headers)
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

    def _idle(self, engine: Engine, avatar_id: str, query: Mapping[str, str]) -> Reply:
        background = query.get("background")
        if background is not None and not self._limits.choose_background:
            raise NotFound("the background is the server's to choose (avatars.choose_background)")
        codec = query.get("codec", "")
        if codec and codec not in self._render.codecs:
            raise NotFound(f"pictures are {', '.join(self._render.codecs)} (render.codecs)")
        version = _Version.of(engine.avatars.idle_video(avatar_id), avatar_id, background, codec)
        cycle = self._kept(version)
        if cycle is None and background is None:
            cycle = self._make(engine, version)
        elif cycle is None:
            cycle = self._made_beside(engine, version)
            if cycle is None:
                return _not_yet("pictures before another background are being made")
        caching = {"Cache-Control": "no-cache"}
        return Reply(HTTPStatus.OK, cycle.read(), "application/octet-stream", caching)

    def _kept(self, version: _Version) -> _UnnamedFile | None:
        with self._guard:
            cycle = self._cycles.get(version)
            if cycle is not None:
                self._cycles.move_to_end(version)
        return cycle

    def _made_beside(self, engine: Engine, version: _Version) -> _UnnamedFile | None:
        """A cycle before another background; None: it is being made still, or another one is.

        It may take a minute where masks are to be made, longer than a request may. One at a time,
        so that clients cannot take all cores; only the request that began it waits, so that they
        cannot take all threads. Raises what `_make` raises.
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
        """Raises NotFound for a format that cannot have the background."""
        avatar = engine.avatars.get(version.avatar_id, background=version.background)
        codec = version.codec or first_codec(self._render.codecs, avatar.background)
        if codec == "jpeg" and avatar.background == TRANSPARENT:
            raise NotFound("JPEG pictures cannot be transparent: ask for codec=webp or codec=png")
        pictures = engine.avatars.idle_pictures(version.avatar_id, version.background)
        messages = idle_cycle(pictures, avatar.fps, self._render.jpeg_quality, codec)
        cycle = _UnnamedFile(messages)
        with self._guard:
            self._cycles[version] = cycle
            while len(self._cycles) > _IDLE_CYCLES_KEPT:
                self._cycles.popitem(last=False)
        return cycle


def _settle(future: Future[_UnnamedFile], make: Callable[[], _UnnamedFile]) -> None:
    yield_to_others()
    try:
        future.set_result(make())
    except Exception as error:  # who asked for it raises it
        future.set_exception(error)


class _Version(NamedTuple):
    """An idle cycle as it was asked for. ``inode``, ``changed_ns``: which file the avatar's video
    is, as it may be deleted and made anew."""

    avatar_id: str
    inode: int
    changed_ns: int
    background: str | None
    codec: str

    @classmethod
    def of(cls, video: Path, avatar_id: str, background: str | None, codec: str) -> _Version:
        stat = video.stat()
        return cls(avatar_id, stat.st_ino, stat.st_mtime_ns, background, codec)


class _UnnamedFile:
    """Bytes on the disk, until nobody holds them or the process ends."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._file, path = tempfile.mkstemp(prefix="wsavatar-")
        weakref.finalize(self, os.close, self._file)
        os.unlink(path)
        with open(self._file, "wb", closefd=False) as file:
            file.writelines(pieces)

    def read(self) -> bytes:
        """All of them. Thread-safe."""
        return os.pread(self._file, os.fstat(self._file).st_size, 0)


def _not_yet(progress: str) -> Reply:
    body = {"error": "not ready", "progress": progress}
    reply = json_reply(body, HTTPStatus.SERVICE_UNAVAILABLE)
    headers = {**reply.headers, "Retry-After": "1"}
    return Reply(reply.status, reply.body, reply.content_type, headers)


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


def _told(engine: EngineStatus) -> dict[str, Any]:
    """An engine as clients read of it."""
    problem, note = without_folders(engine.problem), without_folders(engine.note)
    return asdict(replace(engine, problem=problem, note=note))


def _public(info: Any) -> dict[str, Any]:
    """An avatar as the page sees it."""
    fields = asdict(info) if is_dataclass(info) and not isinstance(info, type) else dict(vars(info))
    urls = avatar_urls(fields["id"], has_poster=bool(fields.get("has_poster")))
    return {**fields, "urls": urls}
