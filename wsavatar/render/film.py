"""Renders finished videos of an avatar: the idle cycle, speech, the idle cycle.

Uses a `FacePool` and a `Player` like a live output, but without a clock: frames are those of a live
session for the same audio, and none is late or dropped. It knows no files.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TypeAlias

import numpy as np
import soxr  # type: ignore[import-untyped]

from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.config import RenderSettings
from wsavatar.errors import WsavatarError
from wsavatar.faces.base import Chunk, FaceModel, SpeechChunker
from wsavatar.media.video import AudioTrack
from wsavatar.render.encoders import raw_picture
from wsavatar.render.jobs import DroppedFrame, FrameOutcome, VideoFormat
from wsavatar.render.player import Player, Speech, Tick
from wsavatar.render.pool import FacePool

__all__ = ["FilmError", "FilmTick", "film", "frame_total"]

_CHUNK_S = 2
_AHEAD_S = 4
"""Frames submitted ahead of the player: enough to keep a device busy, little enough memory."""

FilmTick: TypeAlias = Tick[np.ndarray]
"""Its picture is uint8 [H, W, 3] RGB."""


class FilmError(WsavatarError, RuntimeError):
    """A frame could not be rendered."""


def frame_total(audio: AudioTrack, fps: Fraction) -> int:
    """``ceil(seconds * fps)``, exactly: all audio has a frame."""
    return -int(-audio.seconds * fps // 1)


def film(
    model: FaceModel,
    avatar: PreparedAvatar,
    audio: AudioTrack,
    fps: Fraction,
    settings: RenderSettings,
    *,
    rest_s: float = 0.0,
) -> Iterator[FilmTick]:
    """The avatar speaks ``audio``: `frame_total` ticks, with ``rest_s`` of idle before and after.

    The ticks have the audio at its own rate; with ``rest_s`` 0 the last one ends with it. Blocks:
    not for an event loop. Raises FilmError for a frame that cannot be rendered, PoolError if the
    model cannot run.
    """
    with asyncio.Runner() as runner:
        ticks = _film(model, avatar, audio, fps, settings, round(rest_s * fps))
        try:
            while (tick := runner.run(_next(ticks))) is not None:
                yield tick
        finally:
            runner.run(_end(ticks))


async def _next(ticks: AsyncIterator[FilmTick]) -> FilmTick | None:
    return await anext(ticks, None)


async def _end(ticks: AsyncIterator[FilmTick]) -> None:
    await ticks.aclose()  # type: ignore[attr-defined]


async def _film(
    model: FaceModel,
    avatar: PreparedAvatar,
    audio: AudioTrack,
    fps: Fraction,
    settings: RenderSettings,
    rest: int,
) -> AsyncIterator[FilmTick]:
    player: Player[np.ndarray] = Player(
        list(avatar.frames),
        Fraction(avatar.fps).limit_denominator(1001),
        fps=fps,
        sample_rate=audio.sample_rate,
        channels=audio.samples.shape[1],
    )
    pool = FacePool([model], settings)
    await pool.start()
    try:
        for _ in range(rest):
            yield player.tick()
        left = len(audio.samples)
        async for tick in _speak(player, pool, avatar, audio, fps):
            yield tick if rest else replace(tick, audio=tick.audio[:left])
            left -= len(tick.audio)
        for _ in range(rest):
            yield player.tick()
    finally:
        await pool.close()


async def _speak(
    player: Player[np.ndarray],
    pool: FacePool,
    avatar: PreparedAvatar,
    audio: AudioTrack,
    fps: Fraction,
) -> AsyncIterator[FilmTick]:
    first = player.cycle_index_in(0)
    speech = player.begin(first)
    outcomes: asyncio.Queue[FrameOutcome] = asyncio.Queue()  # bounded by what is asked for
    video = VideoFormat(fps, encoder="raw")
    stream = pool.open_stream(avatar, video, 0, first, outcomes.put_nowait)
    asked = 0
    for piece, chunks in _pieces(audio, fps, pool.open_chunker(fps, 1000 * _CHUNK_S)):
        speech.push_audio(piece)
        for chunk in chunks:
            stream.submit(chunk, math.inf)
            asked += chunk.frame_count
        while asked > _AHEAD_S * fps:
            _push(speech, await outcomes.get())
            asked -= 1
            for tick in _ready(player):
                yield tick
    speech.end()
    stream.close()
    for _ in range(asked):
        _push(speech, await outcomes.get())
        for tick in _ready(player):
            yield tick


def _pieces(
    audio: AudioTrack, fps: Fraction, chunker: SpeechChunker
) -> Iterator[tuple[np.ndarray, Sequence[Chunk]]]:
    """The audio and the model's chunks of it, `_CHUNK_S` at a time."""
    speech = _resampled(audio, fps, chunker.sample_rate)
    heard, model_step = _CHUNK_S * audio.sample_rate, _CHUNK_S * chunker.sample_rate
    for number in range(-(-max(len(audio.samples), 1) // heard)):
        piece = slice(number * model_step, (number + 1) * model_step)
        chunks = chunker.push(speech[piece])
        yield audio.samples[number * heard : (number + 1) * heard], chunks
    chunks = [*chunker.push(speech[(number + 1) * model_step :]), *chunker.flush()]
    yield audio.samples[:0], chunks


def _resampled(audio: AudioTrack, fps: Fraction, sample_rate: int) -> np.ndarray:
    """The model's audio: float32 mono [n], just long enough for `frame_total` frames."""
    mono = audio.samples.mean(axis=1, dtype=np.float32)
    speech = soxr.resample(mono, audio.sample_rate, sample_rate).astype(np.float32, copy=False)
    # Resampling rounds the length, which could give one frame more or less.
    total = frame_total(audio, fps)
    longest = int(total * sample_rate / fps)
    shortest = int((total - 1) * sample_rate / fps) + 1
    speech = speech[:longest]
    return np.pad(speech, (0, max(0, shortest - len(speech))))


def _push(speech: Speech[np.ndarray], outcome: FrameOutcome) -> None:
    if isinstance(outcome, DroppedFrame):
        raise FilmError(f"frame {outcome.frame_index} could not be rendered ({outcome.reason})")
    speech.push_picture(outcome.frame_index, raw_picture(outcome.data, outcome.size))


def _ready(player: Player[np.ndarray]) -> Iterator[FilmTick]:
    while player.speaking and not player.waiting:
        yield player.tick()
