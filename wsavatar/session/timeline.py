"""One response's clock: audio samples in, wire audio and model chunks out, and when each is heard.

Everything on a response is counted in samples of its own audio. `SpeechTimeline` turns what a
dialogue says into the client's format and into chunks for the renderer, both from the same
samples. `PlaybackEstimate` says where the client is in it, `IdleClock` which frame of the
avatar's idle cycle is on show. Times are handed in: this module reads no clock, and knows neither
sockets nor asyncio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsavatar.faces.base import Chunk, SpeechChunker
from wsavatar.media.audio import Resampler, encode
from wsavatar.protocol.session_config import AudioFormat

__all__ = [
    "PATIENCE_S",
    "PREROLL_S",
    "IdleClock",
    "PlaybackEstimate",
    "SpeechTimeline",
    "Spoken",
]

PREROLL_S = 0.5
"""Time that a client is assumed to wait after its first frame before it plays."""
PATIENCE_S = 1.0
"""Longest time that a client is assumed to hold audio for its first frame."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a piece of speech became. ``offset``: first sample of ``wire``, at the wire's rate."""

    wire: bytes
    offset: int
    chunks: Sequence[Chunk]


class SpeechTimeline:
    """Counts one response's audio. Push what is said, then flush once; stateful, so seamless.

    ``rate``: samples per second of what is said. Where the client's format has the same rate, it
    gets the same samples. Without a ``chunker`` there are no frames.
    """

    def __init__(self, rate: int, wire_format: AudioFormat, chunker: SpeechChunker | None) -> None:
        self._rate = rate
        self._format = wire_format
        self._to_wire = Resampler(rate, wire_format.rate)
        self._chunker = chunker
        self._to_model = Resampler(rate, chunker.sample_rate if chunker else rate)
        self._wire_samples = 0
        self._speech_samples = 0

    @property
    def seconds(self) -> float:
        """How much was said so far."""
        return self._speech_samples / self._rate

    def push(self, samples: np.ndarray) -> Spoken:
        """Add float32 mono samples at ``rate``."""
        self._speech_samples += len(samples)
        chunks: Sequence[Chunk] = ()
        if self._chunker is not None:
            chunks = self._chunker.push(self._to_model.push(samples))
        return self._spoken(self._to_wire.push(samples), chunks)

    def flush(self) -> Spoken:
        """The speech has ended: give out what the resamplers and the chunker still hold."""
        chunks: Sequence[Chunk] = ()
        if self._chunker is not None:
            rest = self._chunker.push(self._to_model.flush())
            chunks = [*rest, *self._chunker.flush()]
        return self._spoken(self._to_wire.flush(), chunks)

    def _spoken(self, wire: np.ndarray, chunks: Sequence[Chunk]) -> Spoken:
        offset = self._wire_samples
        self._wire_samples += len(wire)
        return Spoken(encode(wire, self._format.type), offset, chunks)


class PlaybackEstimate:
    """Where the client is in a response: guessed from what was sent, corrected by its reports.

    A client begins `PREROLL_S` after its first frame, plays at the speed of time, and stops where
    its audio ends. All times are seconds of one monotonic clock.
    """

    def __init__(self) -> None:
        self._origin_s: float | None = None  # when sample 0 is, or would have been, heard
        self._sent_s = 0.0
        self._reported = False

    def sent(self, seconds: float, now_s: float) -> None:
        """More audio was sent. Where the client had run dry, it starts again from here."""
        if self._origin_s is None:
            self._origin_s = now_s + PREROLL_S
        elif now_s - self._origin_s > self._sent_s:
            self._origin_s = now_s - self._sent_s
        self._sent_s += seconds

    def rendering(self, now_s: float) -> None:
        """The first frames are being made: the client waits for them, but not for ever."""
        if not self._reported:
            self._origin_s = now_s + PATIENCE_S

    def showing(self, now_s: float) -> None:
        """The first frame is on its way."""
        if not self._reported:
            self._origin_s = now_s + PREROLL_S

    def reported(self, position_s: float, now_s: float) -> None:
        """The client says what it hears now. More than was sent cannot be heard."""
        self._reported = True
        self._origin_s = now_s - min(position_s, self._sent_s)

    def stopped(self, position_s: float, now_s: float) -> None:
        """The client has played up to here, and plays no more."""
        self._sent_s = min(self._sent_s, position_s)
        self._origin_s = now_s - self._sent_s

    def position_s(self, now_s: float) -> float:
        """What is heard now, on the response's timeline: from 0 to what was sent."""
        if self._origin_s is None:
            return 0.0
        return min(max(0.0, now_s - self._origin_s), self._sent_s)

    def ahead_s(self, now_s: float) -> float:
        """How much the client has in hand."""
        return self._sent_s - self.position_s(now_s)

    def due_s(self, offset_s: float, now_s: float) -> float:
        """When this moment of the response is to be heard."""
        origin = now_s + PREROLL_S if self._origin_s is None else self._origin_s
        return origin + offset_s


class IdleClock:
    """Which frame of the avatar's idle cycle is on show, so that speech can continue it."""

    def __init__(self, frame_count: int, fps: float, now_s: float) -> None:
        self._period = max(1, 2 * (frame_count - 1))
        self._fps = fps
        self._index = 0
        self._since_s = now_s

    def index_at(self, now_s: float) -> int:
        """The index in the cycle (forward, then backward), below its period."""
        shown = max(0, int((now_s - self._since_s) * self._fps))
        return (self._index + shown) % self._period

    def resume(self, index: int, now_s: float) -> None:
        """From ``now_s`` on (it may lie ahead) the cycle goes on from ``index``."""
        self._index = index % self._period
        self._since_s = now_s
