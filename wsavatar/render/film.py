"""Makes finished videos of an avatar: the idle cycle, speech, the idle cycle.

Uses a renderer and a `Player` like a live output, but without a clock: frames are those of a live
session for the same audio, and none is late or dropped. The sound comes in pieces of any length,
and memory does not grow with it. It knows no files.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from fractions import Fraction
from typing import Protocol, TypeAlias

import numpy as np

from wsavatar.avatars.avatar import AvatarInfo, PreparedAvatar
from wsavatar.config import RenderSettings
from wsavatar.errors import WsavatarError
from wsavatar.faces.base import Chunk, FaceModel, SpeechChunker
from wsavatar.media.audio import Resampler
from wsavatar.media.audio_file import AudioTrack
from wsavatar.media.video_kinds import SoundFormat
from wsavatar.render.encoders import raw_picture
from wsavatar.render.jobs import DroppedFrame, FrameOutcome, VideoFormat
from wsavatar.render.player import Cycle, Player, Speech, Tick
from wsavatar.render.pool import FacePool

__all__ = ["FilmError", "FilmTick", "Pieces", "Renderer", "film", "film_of", "frame_total"]

_log = logging.getLogger(__name__)

CHUNK_MS = 500
AHEAD_BYTES = 96 * 2**20
"""Pictures of a film that wait for the player or are being rendered; see `_ahead`."""
AHEAD_S = 4
TRIES = 4
RETRY_S = 2.0
"""Pause before frames are asked for again that an overload or a lost device has cost."""

Pieces: TypeAlias = AsyncIterator[np.ndarray]
"""Sound in pieces of any length: float32 [n, channels] in [-1, 1]."""

FilmTick: TypeAlias = Tick[np.ndarray]
"""Its picture is uint8 [H, W, 3] RGB."""


class FilmError(WsavatarError, RuntimeError):
    """A frame could not be rendered."""


class FrameStream(Protocol):
    """A stream of the renderer."""

    def submit(self, chunk: Chunk, due_s: float) -> None: ...

    def cancel(self) -> None: ...

    def close(self) -> None: ...


class Renderer(Protocol):
    """`FacePool`, as a film uses it."""

    def open_chunker(self, fps: Fraction, chunk_ms: int, first_ms: int) -> SpeechChunker: ...

    def open_stream(
        self,
        avatar: AvatarInfo,
        video: VideoFormat,
        generation: int,
        first_cycle_index: int,
        on_frame: Callable[[FrameOutcome], None],
    ) -> FrameStream: ...


def frame_total(seconds: Fraction, fps: Fraction) -> int:
    """``ceil(seconds * fps)``, exactly: all audio has a frame."""
    return -int(-seconds * fps // 1)


async def film(
    renderer: Renderer,
    avatar: AvatarInfo,
    idle: Cycle[np.ndarray],
    sound: SoundFormat,
    pieces: Pieces,
    fps: Fraction,
    *,
    rest_s: float = 0.0,
) -> AsyncGenerator[FilmTick, None]:
    """The avatar speaks ``pieces``: `frame_total` ticks, with ``rest_s`` of idle before and after.

    ``renderer`` is started; ``idle``: the avatar's pictures, uint8 [H, W, 3] each. The ticks have
    the audio at its own rate; with ``rest_s`` 0 the last one ends with it. Raises FilmError for a
    frame that cannot be rendered, and what ``pieces`` raises.
    """
    player: Player[np.ndarray] = Player(
        idle,
        Fraction(avatar.fps).limit_denominator(1001),
        fps=fps,
        sample_rate=sound.sample_rate,
        channels=sound.channels,
    )
    rest = round(rest_s * fps)
    for _ in range(rest):
        yield player.tick()
    async with aclosing(_speak(player, renderer, avatar, sound, pieces, fps)) as ticks:
        async for tick, left in ticks:
            yield tick if rest else replace(tick, audio=tick.audio[:left])
    for _ in range(rest):
        yield player.tick()


def film_of(
    model: FaceModel,
    avatar: PreparedAvatar,
    audio: AudioTrack,
    fps: Fraction,
    settings: RenderSettings,
) -> Iterator[FilmTick]:
    """The film of a whole sound by one model alone. Blocks: not for an event loop.

    Raises FilmError, and PoolError if the model cannot run.
    """
    with asyncio.Runner() as runner:
        ticks = _film_of(model, avatar, audio, fps, settings)
        try:
            while (tick := runner.run(_next(ticks))) is not None:
                yield tick
        finally:
            runner.run(ticks.aclose())


async def _next(ticks: AsyncGenerator[FilmTick, None]) -> FilmTick | None:
    return await anext(ticks, None)


async def _film_of(
    model: FaceModel,
    avatar: PreparedAvatar,
    audio: AudioTrack,
    fps: Fraction,
    settings: RenderSettings,
) -> AsyncGenerator[FilmTick, None]:
    async def pieces() -> AsyncIterator[np.ndarray]:
        yield audio.samples

    sound = SoundFormat(audio.sample_rate, audio.samples.shape[1])
    pool = FacePool([model], settings)
    await pool.start()
    try:
        ticks = film(pool, avatar, avatar.pictures, sound, pieces(), fps)
        async with aclosing(ticks):
            async for tick in ticks:
                yield tick
    finally:
        await pool.close()


async def _speak(
    player: Player[np.ndarray],
    renderer: Renderer,
    avatar: AvatarInfo,
    sound: SoundFormat,
    pieces: Pieces,
    fps: Fraction,
) -> AsyncGenerator[tuple[FilmTick, int], None]:
    """Ticks, each with the samples that were left before it."""
    first = player.cycle_index_in(0)
    speech = player.begin(first)
    frames = _Frames(renderer, avatar, fps, first)
    hearing = _Hearing(renderer.open_chunker(fps, CHUNK_MS, CHUNK_MS), sound.sample_rate, fps)
    ahead = _ahead(avatar, fps)
    given = 0
    try:
        async for piece in _cut(pieces, sound.sample_rate * CHUNK_MS // 1000):
            speech.push_audio(piece)
            frames.submit(hearing.push(piece))
            while frames.asked > ahead:
                await frames.take(speech)
                for tick in _ready(player):
                    yield tick, hearing.samples - given
                    given += len(tick.audio)
        speech.end()
        frames.submit(hearing.flush())
        while frames.asked:
            await frames.take(speech)
            for tick in _ready(player):
                yield tick, hearing.samples - given
                given += len(tick.audio)
    finally:
        frames.close()


def _ahead(avatar: AvatarInfo, fps: Fraction) -> int:
    """Frames that are asked for ahead of the player: enough to keep devices busy, and for any
    picture's size at most `AHEAD_BYTES`, or the least that batches need."""
    fitting = AHEAD_BYTES // (3 * avatar.width * avatar.height)
    return max(16, min(fitting, int(AHEAD_S * fps)))


async def _cut(pieces: Pieces, most: int) -> AsyncIterator[np.ndarray]:
    async for piece in pieces:
        for start in range(0, len(piece), most):
            yield piece[start : start + most]


def _ready(player: Player[np.ndarray]) -> Iterator[FilmTick]:
    while player.speaking and not player.waiting:
        yield player.tick()


class _Frames:
    """Frames of one film in the renderer. Those that are lost are asked for again, some times."""

    def __init__(
        self, renderer: Renderer, avatar: AvatarInfo, fps: Fraction, first_cycle_index: int
    ) -> None:
        self._renderer = renderer
        self._avatar = avatar
        self._video = VideoFormat(fps, encoder="raw")
        self._first = first_cycle_index
        self._chunks: deque[Chunk] = deque()  # with frames that were not taken
        self._next = 0
        """Index of the next frame to take."""
        self._asked_to = 0
        self._outcomes: asyncio.Queue[FrameOutcome] = asyncio.Queue()  # bounded by what is asked
        self._tries = 0
        self._stream = self._open()

    @property
    def asked(self) -> int:
        """Frames submitted and not taken."""
        return self._asked_to - self._next

    def submit(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            self._chunks.append(chunk)
            self._asked_to = chunk.first_frame + chunk.frame_count
            self._stream.submit(chunk, math.inf)

    async def take(self, speech: Speech[np.ndarray]) -> None:
        """Wait for the next frame and push it. Raises FilmError."""
        outcome = await self._outcomes.get()
        while isinstance(outcome, DroppedFrame):
            await self._again(outcome)
            outcome = await self._outcomes.get()
        if outcome.frame_index < self._next:
            return  # of a chunk that was submitted again
        speech.push_picture(outcome.frame_index, raw_picture(outcome.data, outcome.size))
        self._next, self._tries = outcome.frame_index + 1, 0
        while self._chunks and _end(self._chunks[0]) <= self._next:
            self._chunks.popleft()

    def close(self) -> None:
        self._stream.cancel()

    async def _again(self, lost: DroppedFrame) -> None:
        """Submit everything that was not taken, as a new stream."""
        self._tries += 1
        if self._tries == TRIES or lost.reason == "cancelled":
            raise FilmError(f"frame {lost.frame_index} could not be rendered ({lost.reason})")
        _log.warning("frame %d was dropped (%s): again", lost.frame_index, lost.reason)
        self._stream.cancel()
        await asyncio.sleep(RETRY_S)
        self._stream = self._open()
        for chunk in self._chunks:
            self._stream.submit(chunk, math.inf)

    def _open(self) -> FrameStream:
        self._outcomes = asyncio.Queue()  # what a cancelled stream has delivered is not wanted
        return self._renderer.open_stream(
            self._avatar, self._video, 0, self._first, self._outcomes.put_nowait
        )


def _end(chunk: Chunk) -> int:
    return chunk.first_frame + chunk.frame_count


class _Hearing:
    """The model's audio of a sound: as many frames as the sound has, whatever the two rates."""

    def __init__(self, chunker: SpeechChunker, sample_rate: int, fps: Fraction) -> None:
        self.samples = 0
        """Of the sound so far."""
        self._chunker = chunker
        self._rate = sample_rate
        self._fps = fps
        self._resampler = Resampler(sample_rate, chunker.sample_rate)
        # Resampling rounds the length, which could give one frame more or less: the last
        # samples wait until the length is known.
        self._held = np.empty(0, np.float32)
        self._passed = 0

    def push(self, samples: np.ndarray) -> Sequence[Chunk]:
        """Add float32 [n, channels]; return the chunks that are complete."""
        self.samples += len(samples)
        mono = samples.mean(axis=1, dtype=np.float32)
        self._held = np.concatenate([self._held, self._resampler.push(mono)])
        return self._pass(max(0, len(self._held) - self._chunker.sample_rate // 100))

    def flush(self) -> Sequence[Chunk]:
        """The sound has ended: return the rest of its chunks."""
        self._held = np.concatenate([self._held, self._resampler.flush()])
        total = frame_total(Fraction(self.samples, self._rate), self._fps)
        longest = int(total * self._chunker.sample_rate / self._fps) - self._passed
        shortest = int((total - 1) * self._chunker.sample_rate / self._fps) + 1 - self._passed
        missing = max(0, shortest - len(self._held)) if total else 0
        self._held = np.pad(self._held[:longest], (0, missing))
        return [*self._pass(len(self._held)), *self._chunker.flush()]

    def _pass(self, count: int) -> Sequence[Chunk]:
        ready, self._held = self._held[:count], self._held[count:]
        self._passed += count
        return self._chunker.push(ready)
