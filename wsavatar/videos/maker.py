"""From sound and an avatar to a finished file, by the renderer that serves.

A video has exactly ``ceil(seconds * fps)`` frames and the original sound, not the model's 16 kHz.
Sound, pictures and the file are streamed: memory does not grow with the length. It knows neither
where orders come from nor who waits for them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from wsavatar.avatars.avatar import AvatarInfo
from wsavatar.avatars.background import ORIGINAL, TRANSPARENT, Background
from wsavatar.media.matting import put_before
from wsavatar.media.video_kinds import KINDS, SoundFormat, VideoKind
from wsavatar.media.video_writer import VideoWriter
from wsavatar.render.film import FilmTick, Renderer, film, frame_total
from wsavatar.render.player import Cycle
from wsavatar.videos.keying import ColourKey
from wsavatar.videos.one_thread import OneThread
from wsavatar.videos.sources import SoundSource, at_rate

__all__ = ["Avatars", "Made", "Progress", "VideoMaker", "unfinished"]

Progress = Callable[[int, int | None], None]
"""Called with (frames written, frames in all: None while that is not known)."""


class Avatars(Protocol):
    """The avatars, as a video needs them. Blocking. Raises AvatarError."""

    def get(self, avatar_id: str, /, *, background: str | None = None) -> AvatarInfo: ...

    def idle_pictures(
        self, avatar_id: str, background: str | None = None, /
    ) -> Cycle[np.ndarray]: ...


@dataclass(frozen=True, slots=True)
class Made:
    """A finished video. ``sound_s`` and ``write_s``: how long it waited for its sound, and for its
    file (compression too), of the ``wall_s`` that it took."""

    path: Path
    avatar_id: str
    frame_count: int
    seconds: float
    wall_s: float
    sound_s: float
    write_s: float


class VideoMaker:
    """Makes videos; several `make` may run at the same time.

    ``rest_s``: seconds at rest before and after. ``key``: this background becomes transparent.
    """

    def __init__(
        self,
        renderer: Renderer,
        avatars: Avatars,
        fps: Fraction,
        *,
        rest_s: float = 0.0,
        key: ColourKey | None = None,
    ) -> None:
        self._renderer = renderer
        self._avatars = avatars
        self._fps = fps
        self._rest_s = rest_s
        self._key = key

    async def make(
        self,
        source: SoundSource,
        avatar_id: str,
        path: Path,
        progress: Progress = lambda done, total: None,
        background: str | Background | None = None,
    ) -> Made:
        """Write the video to ``path``, of the kind of its suffix; it appears when it is complete.

        ``background``: its name, or one with a picture of the order's own, which is laid behind
        transparent frames here; None: the configured one, or, where that is transparent and such a
        file cannot be, the avatar's own. Raises AvatarError, FilmError, VideoError, and what the
        source raises.
        """
        begun_s = time.monotonic()
        kind = KINDS[path.suffix.lower()]
        own = background if isinstance(background, Background) else None
        name = TRANSPARENT if isinstance(background, Background) else background
        avatar, idle = await asyncio.to_thread(self._before, avatar_id, name, kind)
        behind = own.filling(avatar.width, avatar.height) if own is not None else None
        source = at_rate(source, kind.sample_rate(source.form.sample_rate))
        rest = 2 * round(self._rest_s * self._fps)
        total = None
        if source.seconds is not None:
            total = frame_total(source.seconds, self._fps) + rest
        sound, file = _Stopwatch(), _Stopwatch()
        frames = samples = 0
        async with (
            self._written(path, kind, avatar, behind, source.form, file) as write,
            aclosing(source.pieces()) as pieces,
            aclosing(
                film(
                    self._renderer,
                    avatar,
                    idle,
                    source.form,
                    sound.of(pieces),
                    self._fps,
                    rest_s=self._rest_s,
                )
            ) as ticks,
        ):
            async for tick in ticks:
                await write(tick)
                frames += 1
                samples += len(tick.audio)
                progress(frames, total)
        return Made(
            path,
            avatar_id,
            frames,
            samples / source.form.sample_rate,
            time.monotonic() - begun_s,
            sound.seconds,
            file.seconds,
        )

    def _before(
        self, avatar_id: str, background: str | None, kind: VideoKind
    ) -> tuple[AvatarInfo, Cycle[np.ndarray]]:
        """The avatar and its idle cycle before a background that such a file can have."""
        avatar = self._avatars.get(avatar_id, background=background)
        if avatar.background == TRANSPARENT and not kind.has_alpha and background is None:
            background = ORIGINAL
            avatar = self._avatars.get(avatar_id, background=background)
        return avatar, self._avatars.idle_pictures(avatar_id, background)

    @asynccontextmanager
    async def _written(
        self,
        path: Path,
        kind: VideoKind,
        avatar: AvatarInfo,
        behind: np.ndarray | None,
        sound: SoundFormat,
        watch: _Stopwatch,
    ) -> AsyncIterator[Callable[[FilmTick], Awaitable[None]]]:
        """Writes ticks on a thread, and counts its time. The file is complete, or there is none.

        ``behind``: laid behind transparent pictures; None: they are written as they are."""
        part, thread = unfinished(path), OneThread("write-video")
        writer = partial(
            VideoWriter,
            part,
            width=avatar.width,
            height=avatar.height,
            fps=self._fps,
            sound=sound,
            kind=kind,
            alpha=behind is None and (self._key is not None or avatar.background == TRANSPARENT),
        )
        video: VideoWriter | None = None

        async def write(tick: FilmTick) -> None:
            assert video is not None
            with watch:
                await thread.call(partial(self._write, video, tick, behind))

        try:
            video = await thread.call(writer)
            yield write
            with watch:
                await thread.call(video.finish)
            await thread.call(partial(os.replace, part, path))
        except BaseException:
            await thread.call(partial(_discard, video, part))
            raise
        finally:
            thread.close()

    def _write(self, video: VideoWriter, tick: FilmTick, behind: np.ndarray | None) -> None:
        picture = tick.picture
        if behind is not None:
            picture = put_before(picture, behind)
        elif self._key is not None:
            picture = self._key.cut(picture)
        video.write(picture, tick.audio)


def unfinished(path: Path) -> Path:
    """Where a video is written until it is complete."""
    return path.with_name(path.name + ".part")


def _discard(video: VideoWriter | None, part: Path) -> None:
    if video is not None:
        video.abandon()
    part.unlink(missing_ok=True)


class _Stopwatch:
    """Adds up time."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._begun_s = 0.0

    def __enter__(self) -> None:
        self._begun_s = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self.seconds += time.monotonic() - self._begun_s

    async def of(
        self, pieces: AsyncGenerator[np.ndarray, None]
    ) -> AsyncGenerator[np.ndarray, None]:
        """The same pieces; counts the time until each is there."""
        while True:
            with self:
                piece = await anext(pieces, None)
            if piece is None:
                return
            yield piece
