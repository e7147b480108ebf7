"""The timeline of a response: audio for the client, chunks for the renderer, playback position.

A response is counted in samples of its audio. `SpeechTimeline` makes the client's format and the
renderer's chunks from the same samples. `PlaybackEstimate` estimates the client's position,
`IdleClock` the frame of the avatar's idle cycle that is shown. Times are arguments: this module
reads no clock, and knows neither sockets nor asyncio.
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
    """Result of a piece of speech. ``offset``: first sample of ``wire``, at the wire's rate."""

    wire: bytes
    offset: int
    chunks: Sequence[Chunk]


class SpeechTimeline:
    """Converts one response's audio. Push the speech, then flush once. Stateful, without seams.

    ``rate``: samples per second of the speech. If the client's format has the same rate, it gets
    the same samples. Without a ``chunker`` there are no frames.
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
        """Duration of the speech so far."""
        return self._speech_samples / self._rate

    def push(self, samples: np.ndarray) -> Spoken:
        """Add float32 mono samples at ``rate``."""
        self._speech_samples += len(samples)
        chunks: Sequence[Chunk] = ()
        if self._chunker is not None:
            chunks = self._chunker.push(self._to_model.push(samples))
        return self._spoken(self._to_wire.push(samples), chunks)

    def flush(self) -> Spoken:
        """The speech has ended: return the rest of resamplers and chunker."""
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
    """The client's playback position: estimated from the audio sent, corrected by reports.

    A client is assumed to start `PREROLL_S` after its first frame, to play in real time, and to
    stop at the end of its audio. All times are seconds of one monotonic clock.
    """

    def __init__(self) -> None:
        self._origin_s: float | None = None  # when sample 0 is, or would have been, heard
        self._sent_s = 0.0
        self._reported = False

    def sent(self, seconds: float, now_s: float) -> None:
        """More audio was sent. After an underrun the client continues from here."""
        if self._origin_s is None:
            self._origin_s = now_s + PREROLL_S
        elif now_s - self._origin_s > self._sent_s:
            self._origin_s = now_s - self._sent_s
        self._sent_s += seconds

    def rendering(self, now_s: float) -> None:
        """The first frames are being rendered; the client waits for them, up to `PATIENCE_S`."""
        if not self._reported:
            self._origin_s = now_s + PATIENCE_S

    def showing(self, now_s: float) -> None:
        """The first frame was sent."""
        if not self._reported:
            self._origin_s = now_s + PREROLL_S

    def reported(self, position_s: float, now_s: float) -> None:
        """The client reported its position; it is limited to the audio sent."""
        self._reported = True
        self._origin_s = now_s - min(position_s, self._sent_s)

    def stopped(self, position_s: float, now_s: float) -> None:
        """The client stopped here."""
        self._sent_s = min(self._sent_s, position_s)
        self._origin_s = now_s - self._sent_s

    def cut_off(self, sent_s: float, now_s: float) -> None:
        """The client could get no more than this; it has not played what it did not have."""
        if self._origin_s is not None:
            self._origin_s = max(self._origin_s, now_s - min(sent_s, self._sent_s))

    def position_s(self, now_s: float) -> float:
        """The position now, from 0 to the audio sent."""
        if self._origin_s is None:
            return 0.0
        return min(max(0.0, now_s - self._origin_s), self._sent_s)

    def since_start_s(self, now_s: float) -> float:
        """Seconds since the client began to play, also behind the end of the audio. Below 0: until
        it begins, or not known."""
        return -1.0 if self._origin_s is None else now_s - self._origin_s

    def ahead_s(self, now_s: float) -> float:
        """Audio that the client has not played yet."""
        return self._sent_s - self.position_s(now_s)

    def due_s(self, offset_s: float, now_s: float) -> float:
        """When this position of the response is heard."""
        origin = now_s + PREROLL_S if self._origin_s is None else self._origin_s
        return origin + offset_s


class IdleClock:
    """The frame of the avatar's idle cycle that is shown, so that speech continues from it."""

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
        """Continue the cycle from ``index`` at ``now_s``, which may be in the future."""
        self._index = index % self._period
        self._since_s = now_s
