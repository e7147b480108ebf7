"""Resampling with a delay of some milliseconds, for audio that somebody waits for.

`wsavatar.media.audio.Resampler` is better, and holds back up to 37 ms from 24 to 16 kHz and 117 ms
from 8 kHz, because it filters in long blocks.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, gcd, pi

import numpy as np
from numpy.typing import NDArray

__all__ = ["LowDelayResampler"]

Samples = NDArray[np.float32]

_PERIODS = 20
"""Periods of both rates that are computed at once. Always the same, so that how a stream is cut
changes no bit."""
_ATTENUATION_DB = 60.0
_TRANSITION = 0.1
"""Of the lower rate: below half of it, by so much, frequencies are kept."""


class LowDelayResampler:
    """One stream from one rate to another, as `wsavatar.media.audio.Resampler` does it.

    A linear-phase filter of 60 dB, in polyphase form. Between 8, 16, 24 and 48 kHz output lags
    input by at most 5 ms.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        self.from_rate = from_rate
        self.to_rate = to_rate
        common = gcd(from_rate, to_rate)
        self._step = from_rate // common  # inputs of a period
        self._matrix, self._before = _filter(self._step, to_rate // common)
        self._kept: Samples
        self._received: int
        self._returned: int
        self.reset()

    def push(self, samples: Samples) -> Samples:
        """Float32 mono in at ``from_rate``; what is ready at ``to_rate`` out, possibly nothing."""
        if self.from_rate == self.to_rate:
            return samples
        self._received += len(samples)
        audio = np.concatenate([self._kept, samples])
        width, outputs = self._matrix.shape
        block = _PERIODS * self._step
        count = max(0, (len(audio) - width + block) // block)
        out = np.empty((count, outputs), np.float32)
        for row, start in zip(out, range(0, count * block, block), strict=True):
            np.matmul(audio[start : start + width], self._matrix, out=row)
        self._kept = audio[count * block :].copy()
        self._returned += out.size
        return out.ravel()

    def flush(self) -> Samples:
        """The stream has ended: the rest of it. The next `push` begins a new stream."""
        if self.from_rate == self.to_rate:
            return np.empty(0, np.float32)
        rest = round(self._received * self.to_rate / self.from_rate) - self._returned
        out = self.push(np.zeros(2 * len(self._matrix), np.float32))[:rest]
        self.reset()
        return out

    def reset(self) -> None:
        """Forget what was pushed: the next `push` begins a new stream."""
        self._kept = np.zeros(self._before, np.float32)
        self._received = self._returned = 0


@lru_cache(maxsize=16)
def _filter(step: int, outputs: int) -> tuple[Samples, int]:
    """The outputs of `_PERIODS` periods as products of their inputs and the inputs around them.

    Returns the matrix [inputs, outputs], and how many of the inputs are before the first period.
    The filter is a sinc with a Kaiser window; its length is by Kaiser's formula (Oppenheim and
    Schafer, Discrete-Time Signal Processing, 7.5).
    """
    most = max(step, outputs)  # the lower rate, as a share of the rate at which the filter runs
    half = ceil((_ATTENUATION_DB - 8) / (2.285 * 2 * pi * _TRANSITION / most) / 2)
    cutoff = (0.5 - _TRANSITION / 2) / most
    n = np.arange(-half, half + 1)
    beta = 0.1102 * (_ATTENUATION_DB - 8.7)
    taps = 2 * cutoff * np.sinc(2 * cutoff * n) * np.kaiser(len(n), beta) * outputs
    before = ceil(half / outputs)
    inputs = outputs * (np.arange(before + _PERIODS * step + before) - before)
    offsets = step * np.arange(_PERIODS * outputs) - inputs[:, None]
    within = np.abs(offsets) <= half
    return np.where(within, taps[np.where(within, offsets + half, 0)], 0).astype(np.float32), before
