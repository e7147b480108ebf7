"""Videos that clients of a server order: a few at a time, within limits, for some time.

A video is found by a name that cannot be guessed, until it expires. Everything is bounded: how
many wait, how long each is, how much disk all take, how long they stay. It knows neither sessions
nor the wire; its methods belong to the event loop, but for `VideoJobs.find`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Protocol

import numpy as np

from wsavatar.avatars.background import PICTURE, Background
from wsavatar.avatars.format import MAX_SIDE
from wsavatar.config import VideoSettings
from wsavatar.errors import WsavatarError
from wsavatar.media.picture import read_still
from wsavatar.media.video_kinds import VideoKind
from wsavatar.videos.maker import Made, Progress, VideoMaker, unfinished
from wsavatar.videos.sources import SoundSource

__all__ = ["Finished", "Maker", "VideoJob", "VideoJobs", "VideoRefused"]

_log = logging.getLogger(__name__)

_LOOK_AT_DISK_FRAMES = 25
_MAX_PICTURE_PIXELS = 16_000_000


class VideoRefused(WsavatarError, RuntimeError):
    """A video is not made. ``code``: ``videos_busy``, ``video_too_long``, ``disk_full``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Maker(Protocol):
    """`VideoMaker`, as jobs use it."""

    async def make(
        self,
        source: SoundSource,
        avatar_id: str,
        path: Path,
        progress: Progress,
        background: str | Background | None,
    ) -> Made: ...


@dataclass(frozen=True, slots=True)
class Finished:
    """A video that can be fetched by ``name`` for ``expires_s`` seconds."""

    name: str
    size: int
    made: Made
    expires_s: float


@dataclass(frozen=True, slots=True, eq=False)
class VideoJob:
    """An order that was taken. ``background``: its name, or the content of a picture's file."""

    source: SoundSource
    avatar_id: str
    kind: VideoKind
    progress: Progress
    background: str | bytes | None = None


class VideoJobs:
    """The videos of one server. `close` it once, after its jobs were cancelled."""

    def __init__(
        self,
        settings: VideoSettings,
        maker: Maker | VideoMaker,
        *,
        new_name: Callable[[], str] = lambda: secrets.token_urlsafe(24),
    ) -> None:
        self._settings = settings
        self._maker = maker
        self._new_name = new_name
        self._turn = asyncio.Semaphore(settings.parallel)
        self._taken = 0
        self._folder: Path | None = None
        self._making_folder = asyncio.Lock()
        self._ready: OrderedDict[str, tuple[Path, int]] = OrderedDict()  # by name, with its size
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def max_seconds(self) -> float:
        """How long a video may be."""
        return self._settings.max_s

    async def make(self, job: VideoJob) -> Finished:
        """Wait for a turn and make the video; cancel this to stop it.

        Raises VideoRefused, PictureError, and what `VideoMaker.make` raises.
        """
        if self._taken >= self._settings.parallel + self._settings.max_waiting:
            raise VideoRefused(
                "videos_busy", f"{self._taken} videos are being made or wait; try again later."
            )
        self._taken += 1
        try:
            async with self._turn:
                return await self._make(job)
        finally:
            self._taken -= 1

    def find(self, name: str) -> Path | None:
        """The file of a finished video. Thread-safe."""
        path, _ = self._ready.get(name, (None, 0))
        return path

    async def close(self) -> None:
        """Delete all videos."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._ready.clear()
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _make(self, job: VideoJob) -> Finished:
        name = self._new_name() + job.kind.suffix
        path = await self._ensure_folder() / name
        part = unfinished(path)

        def progress(done: int, total: int | None) -> None:
            if not done % _LOOK_AT_DISK_FRAMES:
                self._check_size(_size(part))
            job.progress(done, total)

        background: str | Background | None
        if isinstance(job.background, bytes):  # large once it is decoded, so only in its turn
            background = await asyncio.to_thread(_of_picture, job.background)
        else:
            background = job.background
        source = _Limited(job.source, self._settings.max_s)
        made_video = await self._maker.make(source, job.avatar_id, path, progress, background)
        size = (await asyncio.to_thread(path.stat)).st_size
        try:
            self._check_size(size)  # the end of a file may be large
        except VideoRefused:
            await asyncio.to_thread(path.unlink)
            raise
        self._keep(name, path, size)
        return Finished(name, size, made_video, self._settings.keep_s)

    async def _ensure_folder(self) -> Path:
        """The folder of all videos, made for the first one."""
        async with self._making_folder:
            if self._folder is None:
                prefix, parent = "wsavatar-videos-", self._settings.directory
                made = await asyncio.to_thread(tempfile.mkdtemp, prefix=prefix, dir=parent)
                self._folder = Path(made)
        return self._folder

    def _check_size(self, size: int) -> None:
        if size > self._disk_bytes:
            raise VideoRefused("disk_full", f"It is over {self._settings.disk_mb} MB.")

    @property
    def _disk_bytes(self) -> int:
        return self._settings.disk_mb << 20

    def _keep(self, name: str, path: Path, size: int) -> None:
        """The oldest make room for it."""
        self._ready[name] = path, size
        while sum(size for _, size in self._ready.values()) > self._disk_bytes:
            self._forget(next(iter(self._ready)))
        loop = asyncio.get_running_loop()
        self._timers[name] = loop.call_later(self._settings.keep_s, self._forget, name)

    def _forget(self, name: str) -> None:
        path, _ = self._ready.pop(name)
        if timer := self._timers.pop(name, None):
            timer.cancel()
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("%s: cannot be deleted (%s)", path, error)


def _of_picture(data: bytes) -> Background:
    pixels = read_still(BytesIO(data), max_side=MAX_SIDE, max_pixels=_MAX_PICTURE_PIXELS)
    return Background(PICTURE, pixels)


def _size(part: Path) -> int:
    """What is on the disk of it; a compressor holds back the first frames."""
    return part.stat().st_size if part.exists() else 0


class _Limited:
    """A source whose length is limited. Raises VideoRefused beyond, at once where it is known."""

    def __init__(self, source: SoundSource, max_s: float) -> None:
        self._source = source
        self._max_s = max_s
        self.form = source.form
        self.seconds: Fraction | None = source.seconds
        if self.seconds is not None and self.seconds > max_s:
            raise self._too_long()

    async def pieces(self) -> AsyncGenerator[np.ndarray, None]:
        left = int(self._max_s * self.form.sample_rate)
        async with aclosing(self._source.pieces()) as pieces:
            async for piece in pieces:
                left -= len(piece)
                if left < 0:
                    raise self._too_long()
                yield piece

    def _too_long(self) -> VideoRefused:
        return VideoRefused("video_too_long", f"A video may last {self._max_s:g} s; shorten it.")
