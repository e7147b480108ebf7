"""Microsoft Edge's online voices, through the ``edge-tts`` package. Needs a network, no account.

The MP3 that comes is decoded as it comes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from numpy.typing import NDArray

from wsavatar.media.audio import Resampler

from .base import VOICE_RATE, Chunks, VoiceError

__all__ = ["EdgeVoice"]

_DEFAULT = "en-US-AvaMultilingualNeural"
_NAME = re.compile(r"^[a-z]{2,3}-[A-Za-z-]+-[A-Za-z]+Neural$")


class EdgeVoice:
    """A `Voice`. ``name`` as "de-DE-KatjaNeural"; anything else is an American English voice.

    ``patience_s``: how long the service may take to answer before it counts as not there.
    """

    def __init__(self, name: str = "", patience_s: float = 4.0) -> None:
        self.name = name if _NAME.match(name) else _DEFAULT
        self._patience_s = patience_s

    async def speak(self, text: str) -> Chunks:
        decoder = _Mp3Decoder()
        async with aclosing(self._mp3(text)) as stream:
            async for data in stream:
                for samples in decoder.push(data):
                    yield samples
        for samples in decoder.flush():
            yield samples
        if decoder.fault is not None and not decoder.frames:
            raise VoiceError(f"The online voice sent no MP3: {decoder.fault}.")

    async def _mp3(self, text: str) -> AsyncGenerator[bytes, None]:
        import aiohttp  # with edge-tts, half a second's import that only this voice needs
        import edge_tts
        from edge_tts.exceptions import EdgeTTSException

        speech = edge_tts.Communicate(
            text, self.name, connect_timeout=max(1, round(self._patience_s)), receive_timeout=20
        )
        try:
            async with aclosing(speech.stream()) as messages:
                while True:
                    async with asyncio.timeout(self._patience_s):
                        message: Any = await anext(messages, None)
                    if message is None:
                        return
                    if message["type"] == "audio":
                        yield message["data"]
        except TimeoutError:
            raise VoiceError(f"The online voice said nothing for {self._patience_s:g} s.") from None
        except (aiohttp.ClientError, EdgeTTSException, OSError, ValueError) as error:
            raise VoiceError(f"The online voice cannot be reached: {error}.") from error


class _Mp3Decoder:
    """MP3 in pieces of any size -> float32 mono at VOICE_RATE.

    What is no frame (tags, damage) is passed over, as players do; ``fault`` is the last of it.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.fault: av.FFmpegError | None = None
        codec = av.CodecContext.create("mp3", "r")
        assert isinstance(codec, AudioCodecContext)
        self._codec = codec
        self._resampler: Resampler | None = None

    def push(self, data: bytes) -> Iterator[NDArray[np.float32]]:
        for packet in self._codec.parse(data):
            yield from self._decode(packet)

    def flush(self) -> Iterator[NDArray[np.float32]]:
        for packet in self._codec.parse(b""):
            yield from self._decode(packet)
        yield from self._decode(None)
        if self._resampler is not None:
            yield self._resampler.flush()

    def _decode(self, packet: av.Packet[Any] | None) -> Iterator[NDArray[np.float32]]:
        try:
            frames = self._codec.decode(packet)
        except av.FFmpegError as error:
            self.fault = error
            return
        for frame in frames:
            self.frames += 1
            planes = frame.to_ndarray()
            if planes.dtype != np.float32:
                planes = planes.astype(np.float32) / np.float32(32768)
            if self._resampler is None:
                self._resampler = Resampler(frame.sample_rate, VOICE_RATE)
            yield self._resampler.push(planes.mean(axis=0, dtype=np.float32))
