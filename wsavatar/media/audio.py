"""PCM, G.711, resampling, the input buffer. numpy and soxr; no clock, no network, no asyncio.

Inside the server audio is float32, mono, in [-1, 1]. At its edges it is bytes in one of three
encodings. Every transport message holds whole samples: an odd number of PCM16 bytes is an error,
and that message is refused as a whole, because to guess which byte is missing would turn all that
follows into noise.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import soxr  # type: ignore[import-untyped]
from numpy.typing import NDArray

from wsavatar.errors import WsavatarError

__all__ = [
    "AudioError",
    "Encoding",
    "InputBuffer",
    "Resampler",
    "decode",
    "encode",
    "resample",
]

Encoding = Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
Samples = NDArray[np.float32]


class AudioError(WsavatarError, ValueError):
    """Audio that cannot be taken. ``code`` is the wire's: ``odd_byte_count``, ``buffer_full``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


# -- bytes <-> samples ----------------------------------------------------------------------------


def decode(data: bytes, encoding: Encoding) -> Samples:
    """Bytes of a message as float32 samples. Raises `AudioError` for half a PCM16 sample."""
    if encoding == "audio/pcm":
        if len(data) % 2:
            raise AudioError(
                "odd_byte_count",
                f"PCM16 has two bytes a sample; {len(data)} bytes are no whole number of samples. "
                "None of them were taken.",
            )
        return np.frombuffer(data, "<i2").astype(np.float32) * np.float32(1 / 32768)
    table = _ULAW_DECODE if encoding == "audio/pcmu" else _ALAW_DECODE
    samples: Samples = table[np.frombuffer(data, np.uint8)]
    return samples


def encode(samples: Samples, encoding: Encoding) -> bytes:
    """Float32 samples as bytes; beyond [-1, 1] they are clipped, never wrapped."""
    pcm = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2")
    if encoding != "audio/pcm":
        table = _ULAW_ENCODE if encoding == "audio/pcmu" else _ALAW_ENCODE
        return bytes(table[pcm.view("<u2")])
    return bytes(pcm)


def _ulaw_to_linear() -> NDArray[np.int16]:
    """ITU-T G.711 u-law: 256 codes -> int16 [256]."""
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    exponent, mantissa = (code >> 4) & 7, code & 15
    magnitude = ((mantissa << 3) + 0x84 << exponent) - 0x84
    linear: NDArray[np.int16] = np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)
    return linear


def _alaw_to_linear() -> NDArray[np.int16]:
    """ITU-T G.711 A-law: 256 codes -> int16 [256]."""
    code = np.arange(256, dtype=np.int32) ^ 0x55
    exponent, mantissa = (code >> 4) & 7, code & 15
    magnitude = np.where(
        exponent > 0, (mantissa << 4) + 0x108 << np.maximum(exponent - 1, 0), (mantissa << 4) + 8
    )
    linear: NDArray[np.int16] = np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)
    return linear


def _linear_to_ulaw() -> NDArray[np.uint8]:
    """Every int16, seen as uint16, -> its u-law code, uint8 [65536]."""
    pcm = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.minimum(np.abs(pcm), 32635) + 0x84
    exponent = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    mantissa = (magnitude >> (exponent + 3)) & 15
    sign = np.where(pcm < 0, 0x80, 0)
    codes: NDArray[np.uint8] = (~(sign | exponent << 4 | mantissa) & 0xFF).astype(np.uint8)
    return codes


def _linear_to_alaw() -> NDArray[np.uint8]:
    """Every int16, seen as uint16, -> its A-law code, uint8 [65536]."""
    pcm = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.where(pcm < 0, -pcm - 1, pcm)
    exponent = np.maximum(np.floor(np.log2(np.maximum(magnitude, 1))).astype(np.int32) - 7, 0)
    mantissa = (magnitude >> np.where(exponent > 0, exponent + 3, 4)) & 15
    sign = np.where(pcm < 0, 0, 0x80)
    codes: NDArray[np.uint8] = ((sign | exponent << 4 | mantissa) ^ 0x55).astype(np.uint8)
    return codes


_ULAW_DECODE = _ulaw_to_linear().astype(np.float32) / np.float32(32768)
_ALAW_DECODE = _alaw_to_linear().astype(np.float32) / np.float32(32768)
_ULAW_ENCODE = _linear_to_ulaw()
_ALAW_ENCODE = _linear_to_alaw()


# -- resampling -----------------------------------------------------------------------------------


class Resampler:
    """One stream from one rate to another. However it is cut, what comes out is the same.

    The filter looks ahead, so output lags input by some milliseconds until `flush` brings the rest:
    in all ``round(samples * to_rate / from_rate)``. ``channels`` None: samples are [n], else
    [n, channels].
    """

    def __init__(self, from_rate: int, to_rate: int, channels: int | None = None) -> None:
        self.from_rate = from_rate
        self.to_rate = to_rate
        self._channels = channels
        self._stream: soxr.ResampleStream | None = None
        self.reset()

    def push(self, samples: Samples) -> Samples:
        """Float32 in at ``from_rate``; what is ready at ``to_rate`` out, possibly nothing."""
        return self._run(samples, last=False)

    def flush(self) -> Samples:
        """The stream has ended: the rest of it. The next `push` begins a new stream."""
        nothing = (0,) if self._channels is None else (0, self._channels)
        rest = self._run(np.empty(nothing, np.float32), last=True)
        self.reset()
        return rest

    def reset(self) -> None:
        """Forget what was pushed: the next `push` begins a new stream."""
        if self.from_rate != self.to_rate:
            self._stream = soxr.ResampleStream(
                self.from_rate,
                self.to_rate,
                num_channels=self._channels or 1,
                dtype="float32",
                quality="HQ",
            )

    def _run(self, samples: Samples, *, last: bool) -> Samples:
        samples = np.ascontiguousarray(samples, dtype=np.float32)
        if self._stream is None:
            return samples
        resampled: Samples = self._stream.resample_chunk(samples, last=last)
        return resampled


def resample(samples: Samples, from_rate: int, to_rate: int) -> Samples:
    """A whole recording at another rate."""
    resampler = Resampler(from_rate, to_rate)
    return np.concatenate([resampler.push(samples), resampler.flush()])


# -- the input buffer -----------------------------------------------------------------------------


class InputBuffer:
    """A session's uncommitted input audio: float32 mono, bounded.

    Full-queue policy: an append that does not fit is refused as a whole with `AudioError`
    ``buffer_full``, and what is in the buffer stays, so that the client can commit or clear and
    nothing is lost unsaid.
    """

    def __init__(self, sample_rate: int, max_seconds: float) -> None:
        self.sample_rate = sample_rate
        self.max_samples = int(max_seconds * sample_rate)
        self._parts: list[Samples] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, samples: Samples) -> None:
        """Add samples, or raise `AudioError` and add none."""
        if self._length + len(samples) > self.max_samples:
            raise AudioError(
                "buffer_full",
                f"The input buffer holds {self._length / self.sample_rate:.1f} s of at most "
                f"{self.max_samples / self.sample_rate:.1f} s; this append was not taken. "
                "Commit or clear it first.",
            )
        if not len(samples):
            return
        self._length += len(samples)
        if self._parts and len(self._parts[-1]) < self.sample_rate // 50:
            samples = np.concatenate([self._parts.pop(), samples])  # tiny ones cost memory
        self._parts.append(samples)

    def take(self) -> Samples:
        """All of it; the buffer is empty afterwards."""
        whole = np.concatenate(self._parts) if self._parts else np.empty(0, np.float32)
        self._parts, self._length = [], 0
        return whole

    def keep_last(self, samples: int) -> None:
        """Drop all but the newest ``samples``."""
        excess = self._length - samples
        while self._parts and excess >= len(self._parts[0]):
            excess -= len(self._parts[0])
            self._length -= len(self._parts.pop(0))
        if excess > 0:
            self._length -= excess
            self._parts[0] = self._parts[0][excess:]

    def clear(self) -> None:
        """Forget what is in it."""
        self.take()
