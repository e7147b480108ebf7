"""A high-pass filter for streams: constant offsets and everything below a frequency are removed.

Chebyshev type II of odd order: flat above, and offsets are removed entirely. This module knows one
filter and nothing of what it is for.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

__all__ = ["HighPass"]

BLOCK_S = 0.005


class HighPass:
    """One stream's filter: ``stop_db`` of attenuation up to ``stop_hz``. ``order`` is odd.

    Causal; its output does not depend on the pieces that the samples come in. Samples are filtered
    in whole blocks of 5 ms, by one matrix product each, so that every sample is always computed by
    the same operations; the rest of a block waits for it, or for `flush`. The stream is taken to
    have had its first sample's value for ever before, so an offset makes no step at the start.
    """

    def __init__(self, rate: int, order: int, stop_hz: float, stop_db: float) -> None:
        self._block, self._matrix = _block_matrix(rate, order, stop_hz, stop_db)
        self._input = np.zeros(len(self._matrix))  # a block, then the state before it
        self._output = np.zeros(len(self._matrix))
        self._waiting = np.zeros(0)
        self._offset: float | None = None

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Float32 [n] in; the blocks now complete out, float32 [m]."""
        if self._offset is None and len(samples):
            self._offset = float(samples[0])
        waiting = np.concatenate([self._waiting, samples - np.float64(self._offset or 0.0)])
        whole = len(waiting) - len(waiting) % self._block
        self._waiting = waiting[whole:]
        blocks = waiting[:whole].reshape(-1, self._block)
        filtered = np.empty_like(blocks, np.float32)
        block, state = self._input[: self._block], self._input[self._block :]
        made, next_state = self._output[: self._block], self._output[self._block :]
        for row, samples_of_row in zip(filtered, blocks, strict=True):
            block[:] = samples_of_row
            np.dot(self._input, self._matrix, out=self._output)
            row[:] = made
            state[:] = next_state
        return filtered.reshape(-1)

    def flush(self) -> np.ndarray:
        """The audio has ended: the samples that still wait, float32 [m]."""
        count = len(self._waiting)
        return self.push(np.full(-count % self._block, self._offset or 0.0))[:count]


@lru_cache
def _block_matrix(rate: int, order: int, stop_hz: float, stop_db: float) -> tuple[int, np.ndarray]:
    """Samples of a block, and the matrix that makes (a block's output, the state after it) of (its
    input, the state before it)."""
    block = max(1, round(BLOCK_S * rate))
    sections = _sections(rate, order, stop_hz, stop_db)
    size = block + 2 * len(sections)
    values = np.eye(size)  # the filter is linear: what it makes of each unit vector
    states = [values[:, block + 2 * i : block + 2 * i + 2].copy() for i in range(len(sections))]
    outputs = np.empty((size, block))
    for n in range(block):
        x = values[:, n]
        for (b0, b1, b2, a1, a2), state in zip(sections, states, strict=True):
            y = b0 * x + state[:, 0]  # transposed direct form II
            state[:, 0], state[:, 1] = b1 * x - a1 * y + state[:, 1], b2 * x - a2 * y
            x = y
        outputs[:, n] = x
    matrix = np.concatenate([outputs, *states], axis=1)
    matrix.flags.writeable = False
    return block, matrix


def _sections(
    rate: int, order: int, stop_hz: float, stop_db: float
) -> list[tuple[float, float, float, float, float]]:
    """Second-order sections (b0, b1, b2, a1, a2) of the filter at a sample rate."""
    ripple = np.arcsinh(np.sqrt(10 ** (stop_db / 10) - 1)) / order
    warped = 2 * rate * np.tan(np.pi * stop_hz / rate)
    sections = []
    for m in range(order - 1, -1, -2):  # one of each conjugate pair; 0: the real pole
        angle = np.pi * m / (2 * order)
        prototype = -complex(np.sinh(ripple) * np.cos(angle), np.cosh(ripple) * np.sin(angle))
        pole = _bilinear(warped * prototype, rate)
        if m == 0:
            gain = (1 + pole.real) / 2  # 1 at the highest frequency
            sections.append((gain, -gain, 0.0, -pole.real, 0.0))
            continue
        zero = _bilinear(1j * warped * np.sin(angle), rate)
        a1, a2 = -2 * pole.real, abs(pole) ** 2
        gain = (1 - a1 + a2) / (2 + 2 * zero.real)
        sections.append((gain, -2 * gain * zero.real, gain, a1, a2))
    return sections


def _bilinear(s: complex, rate: int) -> complex:
    return (2 * rate + s) / (2 * rate - s)
