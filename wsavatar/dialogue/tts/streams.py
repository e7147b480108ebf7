"""MP3, WAV and plain PCM in pieces of any size, to float32 mono at VOICE_RATE."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator
from typing import Any, Protocol

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext

from wsavatar.media.audio import Resampler

from .base import VOICE_RATE, Samples, VoiceError

__all__ = ["Decoder", "Mp3Decoder", "PcmDecoder", "WavDecoder", "decoder_for"]

_MAX_HEADER = 64 * 1024


class Decoder(Protocol):
    def push(self, data: bytes) -> Iterator[Samples]:
        """More of the stream. Raises VoiceError for what is no audio."""

    def flush(self) -> Iterator[Samples]:
        """The stream is over."""


def decoder_for(content_type: str, beginning: bytes) -> Decoder:
    """By the first bytes of an HTTP answer, at least four, and what it says it is.

    Raises VoiceError if it is text.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if beginning.startswith(b"RIFF"):
        return WavDecoder()
    if kind in ("audio/mpeg", "audio/mp3") or beginning.startswith(b"ID3"):
        return Mp3Decoder()
    if kind.startswith("text/") or kind == "application/json":
        raise VoiceError(f"The speech endpoint sent {kind}, not audio.")
    if kind in ("audio/ogg", "audio/opus", "audio/aac", "audio/flac", "audio/webm"):
        raise VoiceError(f"The speech endpoint sent {kind}; it must send PCM, WAV or MP3.")
    rate = re.search(r"rate=(\d{4,6})", content_type)
    return PcmDecoder(int(rate[1]) if rate else VOICE_RATE)


class PcmDecoder:
    """PCM of 16 bits, little endian, or of float32 (``kind`` "<f4"), ``channels`` in turn."""

    def __init__(self, rate: int, channels: int = 1, kind: str = "<i2") -> None:
        self._rest = b""
        self._channels = channels
        self._kind = np.dtype(kind)
        self._resampler = Resampler(rate, VOICE_RATE) if rate != VOICE_RATE else None

    def push(self, data: bytes) -> Iterator[Samples]:
        data = self._rest + data
        size = self._kind.itemsize * self._channels
        whole = len(data) - len(data) % size
        self._rest = data[whole:]
        samples = np.frombuffer(data[:whole], self._kind).astype(np.float32)
        if self._kind.kind == "i":
            samples /= np.float32(32768)
        mono = samples.reshape(-1, self._channels).mean(axis=1, dtype=np.float32)
        mono = self._resampler.push(mono) if self._resampler is not None else mono
        if len(mono):
            yield mono

    def flush(self) -> Iterator[Samples]:
        if self._resampler is not None:
            yield self._resampler.flush()


class WavDecoder:
    """WAV whose length need not be known, as of a stream."""

    def __init__(self) -> None:
        self._header = b""
        self._pcm: PcmDecoder | None = None
        self._left = 0  # bytes of sound; what follows them is no sound

    def push(self, data: bytes) -> Iterator[Samples]:
        if self._pcm is None:
            self._header += data
            found = _wav_data(self._header)
            if found is None:
                if len(self._header) > _MAX_HEADER:
                    raise VoiceError("The speech endpoint sent a WAV without sound.")
                return
            self._pcm, start, self._left = found
            data, self._header = self._header[start:], b""
        yield from self._pcm.push(data[: self._left])
        self._left -= min(len(data), self._left)

    def flush(self) -> Iterator[Samples]:
        if self._pcm is not None:
            yield from self._pcm.flush()


def _wav_data(data: bytes) -> tuple[PcmDecoder, int, int] | None:
    """How to decode it, where the sound begins, and its bytes; None: not decided by these."""
    at, decoder = 12, None
    while len(data) >= at + 8:
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8
        if name == b"data":
            if decoder is None:
                raise VoiceError("The speech endpoint sent a WAV that does not say what it has.")
            known = 0 < size < 0x7FFF0000  # a stream's length is written as 0 or the largest
            return decoder, at, size if known else sys.maxsize
        if name == b"fmt ":
            if len(data) < at + 26:
                return None
            code, channels, rate = struct.unpack_from("<HHI", data, at)
            bits = struct.unpack_from("<H", data, at + 14)[0]
            if code == 0xFFFE and size >= 26:  # extensible: the code is in its long form
                code = struct.unpack_from("<H", data, at + 24)[0]
            kind = {(1, 16): "<i2", (3, 32): "<f4"}.get((code, bits))
            if kind is None or not 1 <= channels <= 8 or not 4000 <= rate <= 384_000:
                raise VoiceError(
                    "The speech endpoint sent a WAV of a kind that is not known: it must be PCM of "
                    "16 bits or float."
                )
            decoder = PcmDecoder(rate, channels, kind)
        at += size + size % 2
    return None


class Mp3Decoder:
    """MP3 in pieces of any size -> float32 mono at VOICE_RATE.

    What is no frame (tags, damage) is passed over, as players do, unless there is no frame at all.
    """

    def __init__(self) -> None:
        self._fault: av.FFmpegError | None = None  # the last
        codec = av.CodecContext.create("mp3", "r")
        assert isinstance(codec, AudioCodecContext)
        self._codec = codec
        self._resampler: Resampler | None = None

    def push(self, data: bytes) -> Iterator[Samples]:
        for packet in self._codec.parse(data):
            yield from self._decode(packet)

    def flush(self) -> Iterator[Samples]:
        for packet in self._codec.parse(b""):
            yield from self._decode(packet)
        yield from self._decode(None)
        if self._resampler is not None:
            yield self._resampler.flush()
        elif self._fault is not None:
            raise VoiceError(f"The voice's service sent no MP3: {self._fault}.")

    def _decode(self, packet: av.Packet[Any] | None) -> Iterator[Samples]:
        try:
            frames = self._codec.decode(packet)
        except av.FFmpegError as error:
            self._fault = error
            return
        for frame in frames:
            planes = frame.to_ndarray()
            if planes.dtype != np.float32:
                planes = planes.astype(np.float32) / np.float32(32768)
            if self._resampler is None:
                self._resampler = Resampler(frame.sample_rate, VOICE_RATE)
            yield self._resampler.push(planes.mean(axis=0, dtype=np.float32))
