"""Finds the delay of an echo: where in what a client plays the microphone's last sound is.

By generalised cross-correlation with phase transform (Knapp and Carter, 1976). Pure.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["ECHO_RATE", "FOUND", "SILENCE", "STILL_THERE", "WINDOW", "EchoDelay", "EchoReference"]

ECHO_RATE = 16_000
WINDOW = 4096
"""Samples of the microphone that are searched for: 256 ms."""
SILENCE = 1e-6
"""Power below which the avatar's audio is silent."""

Array = NDArray[np.float32]

_EARLIER, _LATER = 20_864, 9_600  # 1.3 s, 0.6 s; with WINDOW 2^8 * 3^3 * 5, for the transform
"""How far the echo may be behind the position that the server knows, and before it."""
FOUND = 11.0
"""Peak of the correlation over its root mean square: 18 to 33 of echoes, 6 of other speech."""
STILL_THERE = 4.5
"""The same, at a delay that is known."""
_SAME = ECHO_RATE // 250
"""Delays that differ by less than 4 ms are the same: a clock may be off by 0.1 %."""
_LOW_HZ, _HIGH_HZ = 200, 6000
_FAINT = 0.03
"""Share of the loudest window's energy; sound below it is not searched."""


class EchoReference(Protocol):
    """The audio of one response, as the client plays it, at `ECHO_RATE`."""

    def position_s(self, ago_s: float) -> float:
        """Seconds of it that had been heard so many seconds ago, as far as is known. Below 0: it
        had not begun."""

    def read(self, start: int, stop: int) -> Array:
        """Samples [start, stop); zeros where there are none."""


class EchoDelay:
    """The delay between one response and its echo.

    ``offset``: a sample's number in the microphone's stream less its number in the response; None
    until it was found twice, in sound that has nothing in common.
    """

    def __init__(self, reference: EchoReference) -> None:
        self.reference = reference
        self.offset: int | None = None
        self.around: Array = np.empty(0, np.float32)
        """What may be in the microphone now, by the position that the server knows."""
        self.has_begun = False
        """Whether some of it was heard, as far as the server knows."""
        self._start = 0  # of `around` in the response
        self._candidate: int | None = None
        self._candidate_at = 0  # position in the stream where it was found

    def look(self, ago_s: float) -> bool:
        """Read what may be heard in sound of so long ago. Returns whether there is any."""
        position_s = self.reference.position_s(ago_s)
        self.has_begun = position_s > 0
        latest = round(position_s * ECHO_RATE) + _LATER
        self._start = latest - _LATER - _EARLIER - WINDOW
        self.around = self.reference.read(self._start, latest)
        return latest > 0 and float(np.mean(self.around**2)) > SILENCE

    def search(self, heard: Array, end: int) -> float:
        """How strongly ``heard`` [WINDOW], which ends at sample ``end`` of the stream, is found:
        0, or from `STILL_THERE` on at a delay that is known, from `FOUND` on anywhere."""
        strength = _correlation(heard, self.around)
        at = int(np.argmax(strength))
        base = end - WINDOW - self._start
        if strength[at] >= FOUND:
            self._found(base - at, end)
            return float(strength[at])
        known = self.offset if self.offset is not None else self._candidate
        if known is None:
            return 0.0
        near = strength[max(base - known - _SAME, 0) : max(base - known + _SAME, 0)]
        there = float(np.max(near, initial=0.0))
        return there if there >= STILL_THERE else 0.0

    def _found(self, offset: int, end: int) -> None:
        if self._candidate is None or abs(offset - self._candidate) > _SAME:
            self._candidate, self._candidate_at = offset, end
        elif end - self._candidate_at >= WINDOW:
            self.offset = self._candidate = offset
            self._candidate_at = end


_HZ = np.fft.rfftfreq(_EARLIER + _LATER + WINDOW, 1 / ECHO_RATE)
_OUTSIDE = (_HZ < _LOW_HZ) | (_HZ > _HIGH_HZ)


def _correlation(heard: Array, around: Array) -> Array:
    """Correlation at each place of ``heard`` in ``around``, over its root mean square."""
    size = len(around)
    product = np.fft.rfft(around) * np.conj(np.fft.rfft(heard, size))
    product[_OUTSIDE] = 0
    magnitude = np.abs(product)
    root = np.sqrt(np.maximum(magnitude, 1e-6 * magnitude.max() + 1e-30))
    weight = root * np.sqrt(root)  # to the power 3/4; 1 would be phases alone, which noise has too
    places = size - len(heard) + 1
    strength: Array = np.abs(np.fft.irfft(product / weight, size)[:places]).astype(np.float32)
    energy = np.concatenate([[0.0], np.cumsum(around.astype(np.float64) ** 2)])
    windows: NDArray[np.float64] = energy[len(heard) :] - energy[: -len(heard)]
    strength[windows < _FAINT * float(np.max(windows))] = 0
    searched = max(int(np.count_nonzero(strength)), 1)
    return strength / np.float32(max(float(np.sum(strength**2)) / searched, 1e-30) ** 0.5)
