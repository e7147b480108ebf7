"""The sound of a video, in pieces: of a file, or of a text and a voice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from wsavatar.dialogue.tts import Voice, VoiceError
from wsavatar.dialogue.tts.base import VOICE_RATE
from wsavatar.dialogue.tts.text import check_speakable, phrases
from wsavatar.media.audio import Resampler
from wsavatar.media.audio_file import AudioFile
from wsavatar.media.video_kinds import SoundFormat
from wsavatar.videos.one_thread import OneThread, iterated

__all__ = [
    "MAX_TEXT_CHARS",
    "FileSource",
    "SamplesSource",
    "SoundSource",
    "TextSource",
    "at_rate",
]

MAX_TEXT_CHARS = 100_000
"""About two hours of speech."""


class SoundSource(Protocol):
    """Sound to speak. ``seconds`` None: not known before it is made."""

    @property
    def form(self) -> SoundFormat: ...

    @property
    def seconds(self) -> Fraction | None: ...

    def pieces(self) -> AsyncGenerator[np.ndarray, None]:
        """All of it, float32 [n, channels] each. Raises AudioFileError or VoiceError."""


class FileSource:
    """The sound of a file. `open` reads it through once; raises AudioFileError."""

    def __init__(self, file: AudioFile) -> None:
        self._file = file

    @classmethod
    async def open(cls, path: Path) -> FileSource:
        return cls(await asyncio.to_thread(AudioFile, path))

    @property
    def form(self) -> SoundFormat:
        return SoundFormat(self._file.sample_rate, self._file.channels)

    @property
    def seconds(self) -> Fraction | None:
        return self._file.seconds

    def pieces(self) -> AsyncGenerator[np.ndarray, None]:
        return iterated(self._in_tenths(), OneThread("read-sound"))

    def _in_tenths(self) -> Generator[np.ndarray, None, None]:
        """Pieces of a tenth of a second or more: a decoder's are much shorter."""
        waiting: list[np.ndarray] = []
        for piece in self._file.pieces():
            waiting.append(piece)
            if sum(map(len, waiting)) >= self._file.sample_rate // 10:
                yield np.concatenate(waiting)
                waiting = []
        if waiting:
            yield np.concatenate(waiting)


class SamplesSource:
    """Sound in memory: float32 mono [n]."""

    def __init__(self, samples: np.ndarray, sample_rate: int) -> None:
        self._samples = samples
        self.form = SoundFormat(sample_rate, 1)
        self.seconds: Fraction | None = Fraction(len(samples), sample_rate)

    async def pieces(self) -> AsyncGenerator[np.ndarray, None]:
        yield self._samples[:, None]


class TextSource:
    """A text, spoken by ``voice`` while the video is made. Raises TextError where nothing of it
    can be said, or it is longer than `MAX_TEXT_CHARS`."""

    form = SoundFormat(VOICE_RATE, 1)
    seconds = None

    def __init__(self, text: str, voice: Voice) -> None:
        check_speakable(text, MAX_TEXT_CHARS)
        self._text = text
        self._voice = voice

    async def pieces(self) -> AsyncGenerator[np.ndarray, None]:
        voice, sounded = self._voice.for_response(), False
        for phrase in phrases(self._text):
            if phrase.silent:
                continue
            async with aclosing(voice.speak(phrase.text.rstrip(" "))) as parts:
                async for part in parts:
                    if isinstance(part, np.ndarray) and len(part):
                        sounded = True
                        yield part[:, None]
        if not sounded:
            raise VoiceError("There is nothing in the text that can be heard.")


def at_rate(source: SoundSource, sample_rate: int) -> SoundSource:
    """The same sound at another rate; itself where that is its own."""
    return source if source.form.sample_rate == sample_rate else _Resampled(source, sample_rate)


class _Resampled:
    def __init__(self, source: SoundSource, sample_rate: int) -> None:
        self._source = source
        self.form = SoundFormat(sample_rate, source.form.channels)
        self.seconds = source.seconds

    async def pieces(self) -> AsyncGenerator[np.ndarray, None]:
        resampler = Resampler(
            self._source.form.sample_rate, self.form.sample_rate, self.form.channels
        )
        taken = given = 0
        async with aclosing(self._source.pieces()) as pieces:
            async for piece in pieces:
                taken += len(piece)
                made = resampler.push(piece)
                given += len(made)
                yield made
        # As long as the original, rounded up: so it has as many frames.
        whole = -(-taken * self.form.sample_rate // self._source.form.sample_rate)
        rest = resampler.flush()
        yield np.pad(rest, ((0, max(0, whole - given - len(rest))), (0, 0)))[: whole - given]
