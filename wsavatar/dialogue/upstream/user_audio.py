"""The user's audio as the upstream gets it: PCM16 at 24 kHz, whatever the client sends. Pure.

The newest minute is kept, for the item that it becomes, and for a connection that has to be made
again in the middle of a turn.
"""

from __future__ import annotations

from wsavatar.dialogue.base import Samples
from wsavatar.dialogue.conversation import Recording
from wsavatar.media.audio import Resampler, decode, encode

__all__ = ["KEPT_S", "RATE", "UserAudio"]

RATE = 24_000
KEPT_S = 60.0
_BYTES_PER_MS = 2 * RATE // 1000
_KEPT_BYTES = int(KEPT_S * 1000) * _BYTES_PER_MS
_SLACK_BYTES = 1000 * _BYTES_PER_MS  # so that bytes are moved once a second, not with each packet


class UserAudio:
    """``rate``: samples per second of what is pushed. Positions count from the start of the
    connection."""

    def __init__(self, rate: int) -> None:
        self._resampler = Resampler(rate, RATE)
        self._kept = bytearray()
        self._first = 0  # position of the first kept byte

    @property
    def position_ms(self) -> int:
        """Milliseconds of audio so far in this connection."""
        return (self._first + len(self._kept)) // _BYTES_PER_MS

    def push(self, samples: Samples) -> bytes:
        """Add float32 mono samples; returns what the upstream gets, possibly nothing."""
        return self._keep(encode(self._resampler.push(samples), "audio/pcm"))

    def flush(self) -> bytes:
        """The stream ends here, for a commit: what the resampler still has."""
        return self._keep(encode(self._resampler.flush(), "audio/pcm"))

    def change_rate(self, rate: int) -> bytes:
        """Take audio of this rate from now on; returns the rest of what came before."""
        if rate == self._resampler.from_rate:
            return b""
        rest = self.flush()
        self._resampler = Resampler(rate, RATE)
        return rest

    def cut(self, start_ms: int, end_ms: int) -> Recording | None:
        """A turn, from one position to another; what is before its end is not kept any more."""
        start = max(start_ms * _BYTES_PER_MS - self._first, 0)
        end = min(end_ms * _BYTES_PER_MS - self._first, len(self._kept))
        turn = bytes(self._kept[start:end]) if start < end else b""
        self._forget(max(end, 0))
        return Recording(decode(turn, "audio/pcm"), RATE) if turn else None

    def clear(self) -> None:
        """Drop what is kept, and what the resampler has; the positions go on."""
        self._resampler.reset()
        self._forget(len(self._kept))

    def restart(self, keep_from_ms: int) -> bytes:
        """Another connection begins: returns what is kept from this position, its first audio."""
        self._forget(max(keep_from_ms * _BYTES_PER_MS - self._first, 0))
        self._first = 0
        return bytes(self._kept)

    def _keep(self, pcm: bytes) -> bytes:
        self._kept += pcm
        if len(self._kept) > _KEPT_BYTES + _SLACK_BYTES:
            self._forget(len(self._kept) - _KEPT_BYTES)
        return pcm

    def _forget(self, count: int) -> None:
        count = min(count, len(self._kept))
        del self._kept[:count]
        self._first += count
