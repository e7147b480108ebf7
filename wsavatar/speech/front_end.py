"""The audio that a face is drawn from: without offsets and mains hum, without noise in pauses.

A pure low tone, however quiet, is unlike anything that lips do, and a face model may hold the mouth
open for it. Offsets and hum at 50 and 60 Hz are always removed. Everything up to 100 Hz, and so hum
at twice the mains' frequency, is removed where there is no voice. Where there is, it stays: it is
the fundamental of low voices, and the lips follow them less well without it. Noise in pauses is
attenuated (`wsavatar.speech.noise_gate`).

Causal but for the gate's look-ahead, and independent of the pieces that the samples come in. The
audio that is played is not changed.
"""

from __future__ import annotations

import numpy as np

from wsavatar.speech.high_pass import HighPass
from wsavatar.speech.noise_gate import NoiseGate

__all__ = ["FrontEnd"]


class FrontEnd:
    """One stream. Samples are float32 mono, counted from 0."""

    def __init__(self, rate: int) -> None:
        self._without_hum = HighPass(rate, order=5, stop_hz=62.0, stop_db=40.0)
        self._without_low = HighPass(rate, order=7, stop_hz=101.0, stop_db=50.0)
        self._gate = NoiseGate(rate)
        # What the two filters give, [2, n]; complete blocks only, the rest of one waits in them.
        self._pieces: list[np.ndarray] = []
        self._start = 0  # the sample that the first piece begins with

    def push(self, samples: np.ndarray) -> None:
        """The next samples, [n]."""
        self._add(self._without_hum.push(samples), last=False)

    def flush(self) -> None:
        """The audio has ended."""
        self._add(self._without_hum.flush(), last=True)

    def _add(self, without_hum: np.ndarray, *, last: bool) -> None:
        without_low = self._without_low.push(without_hum)
        if last:
            without_low = np.concatenate([without_low, self._without_low.flush()])
        self._gate.push(without_low)
        self._pieces.append(np.stack([without_low, without_hum - without_low]))

    def window(self, start: int, stop: int) -> np.ndarray:
        """Those samples as the face's model shall hear them: [stop - start], zeros outside the
        audio. Both are multiples of the gate's block, and none was dropped."""
        audio = self._joined()
        lead = max(0, -start)
        known = audio[:, start + lead - self._start : stop - self._start]
        gains = self._gate.gains(start, stop)[:, lead : lead + known.shape[1]]
        window = np.zeros(stop - start, np.float32)
        window[lead : lead + known.shape[1]] = known[0] * gains[0] + known[1] * gains[1]
        return window

    def drop_before(self, sample: int) -> None:
        """No window will need samples before this one, nor is one pushed before it."""
        audio = self._joined()
        dropped = min(max(0, sample - self._start), audio.shape[1])
        self._pieces = [audio[:, dropped:].copy()]
        self._start += dropped
        self._gate.drop_before(self._start)

    def _joined(self) -> np.ndarray:
        if len(self._pieces) != 1:
            self._pieces = [np.concatenate([np.zeros((2, 0), np.float32), *self._pieces], axis=1)]
        return self._pieces[0]
