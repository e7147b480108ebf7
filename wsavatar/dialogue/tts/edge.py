"""Microsoft Edge's online voices, through the ``edge-tts`` package. Needs a network, no account.

MP3 is decoded as it arrives.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from numpy.typing import NDArray

from wsavatar.media.audio import Resampler

from .base import VOICE_RATE, Chunks, VoiceError, VoiceTimeout, VoiceUnreachable

if TYPE_CHECKING:
    import edge_tts

__all__ = ["EdgeVoice"]

_DEFAULT = "en-US-AvaMultilingualNeural"
_NAME = re.compile(r"^[a-z]{2,3}-[A-Za-z-]+-[A-Za-z]+Neural$")


class EdgeVoice:
    """A `Voice`. ``name`` as "de-DE-KatjaNeural"; anything else is an American English voice.

    ``connect_s``: how long the service may take to open a connection, and to answer its handshake;
    ``audio_s``: from the request to the first audio, and from there to the next.
    """

    def __init__(self, name: str = "", *, connect_s: float = 4.0, audio_s: float = 8.0) -> None:
        self.name = name if _NAME.match(name) else _DEFAULT
        self._connect_s = connect_s
        self._audio_s = audio_s

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

    def for_response(self) -> EdgeVoice:
        return self

    async def _mp3(self, text: str) -> AsyncGenerator[bytes, None]:
        """The service's audio messages.

        The handshake carries neither the text nor the voice's name. So whatever fails until it is
        done is `VoiceUnreachable`; whatever fails after it is a `VoiceError` of this text.
        """
        import aiohttp  # with edge-tts, half a second's import that only this voice needs
        from edge_tts.exceptions import EdgeTTSException, NoAudioReceived, SkewAdjustmentError

        try:
            async with aclosing(self._request(text).stream()) as messages:
                while True:
                    async with asyncio.timeout(self._audio_s):
                        message: Any = await anext(messages, None)
                    if message is None:
                        return
                    if message["type"] == "audio":
                        yield message["data"]
        except TimeoutError as error:
            if isinstance(error, aiohttp.ClientError):  # of the connection or the handshake
                raise VoiceUnreachable(
                    f"The online voice did not answer within {self._connect_s:g} s."
                ) from error
            raise VoiceTimeout(f"The online voice sent no audio for {self._audio_s:g} s.") from None
        except (aiohttp.ClientError, SkewAdjustmentError, OSError) as error:
            raise VoiceUnreachable(f"The online voice cannot be reached: {error}.") from error
        except NoAudioReceived:
            raise VoiceError(
                f"The online voice {self.name!r} sent no audio for this text: it does not speak "
                "its language, it was withdrawn, or the connection was lost."
            ) from None
        except (EdgeTTSException, ValueError, LookupError, TypeError) as error:
            raise VoiceError(f"The online voice's answer cannot be read: {error}.") from error

    def _request(self, text: str) -> edge_tts.Communicate:
        import aiohttp
        import edge_tts

        try:
            request = edge_tts.Communicate(text, self.name)
        except ValueError as error:
            raise VoiceError(
                f"There is no online voice {self.name!r}; `edge-tts --list-voices` lists them."
            ) from error
        # Its own settings are whole seconds, and leave out the name look-up. `sock_read` ends with
        # the handshake.
        request.session_timeout = aiohttp.ClientTimeout(
            total=None, connect=self._connect_s, sock_read=self._connect_s
        )
        return request


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
