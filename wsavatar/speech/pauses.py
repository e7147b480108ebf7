"""Takes breath and room out of the pauses of the sound that a face is drawn from.

A model that must follow a whisper opens its mouth for a breath too, for within the second that it
hears of a pause the breath is the loudest there is. How loud somebody speaks is known only over a
longer time; this module keeps it, and knows nothing else. What listeners hear is never touched,
only what the face is drawn from.

Sound that stays `BELOW_DB` under the speech is turned down by `CUT_DB`, `HOLD_S` after it became so
quiet: pauses between words, and the weak ends of words, stay as they are.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["PauseGate"]

BLOCK_S = 0.005
BELOW_DB = 30.0
CUT_DB = 26.0
HOLD_S = 0.2
FALL_S = 0.02
"""How fast it is turned down; up again at once,"""
AHEAD_S = 0.06
"""and so long before, for speech begins softly."""

NOW_S = 0.03
"""Over so long it is heard how loud it is now,"""
SPEECH_S = 0.1
"""and over so long how loud speech is: a click is no speech."""

FIRST_LEVEL_DB = -15.0
"""Taken for the level of speech, RMS of full scale, until there is some,"""
SURE_DB = -38.0
"""which what is louder than this must be."""
FORGET_DB_PER_S = 0.5
"""A quieter speaker is believed only slowly: pauses are quiet too."""


class PauseGate:
    """One stream's gate. What it says does not depend on the pieces that the samples come in."""

    def __init__(self, rate: int) -> None:
        self._block = max(1, round(BLOCK_S * rate))
        self._ahead = round(AHEAD_S * rate / self._block)
        self._begun = np.zeros(0, np.float32)  # samples of the block that is not complete
        self._gains: list[float] = []  # of complete blocks, from `_first` on
        self._first = 0
        self._now = 0.0  # mean squares
        self._recent = 0.0
        self._speech = _power(FIRST_LEVEL_DB)
        self._has_spoken = False
        self._held = 0
        self._gain = 1.0
        block_s = self._block / rate
        self._now_share = -math.expm1(-block_s / NOW_S)
        self._recent_share = -math.expm1(-block_s / SPEECH_S)
        self._fall = -math.expm1(-block_s / FALL_S)
        self._forget = _power(-FORGET_DB_PER_S * block_s)
        self._below, self._sure = _power(-BELOW_DB), _power(SURE_DB)
        self._cut = math.sqrt(_power(-CUT_DB))
        self._hold_blocks = round(HOLD_S / block_s)

    def hear(self, samples: np.ndarray) -> None:
        """The next samples, float32 [n] in [-1, 1]."""
        heard = np.concatenate([self._begun, samples])
        whole = len(heard) - len(heard) % self._block
        for block in heard[:whole].reshape(-1, self._block):
            self._decide(float(np.dot(block, block)) / self._block)
            self._gains.append(self._gain)
        self._begun = heard[whole:]

    def gains(self, start: int, stop: int) -> np.ndarray:
        """float32 [stop - start], for samples whose numbers those are; 1 where none were heard.

        What comes before ``stop`` counts, nothing behind it: an onset opens the gate `AHEAD_S`
        before it. Both are multiples of a block, and nothing forgotten is between them.
        """
        first, last = start // self._block, stop // self._block
        known = self._gains[max(0, first) - self._first : last - self._first]
        lead, tail = max(0, -first), last - max(0, first) - len(known)
        gains = np.array([1.0] * lead + known + [1.0] * tail, np.float32)
        padded = np.concatenate([gains, np.zeros(self._ahead, np.float32)])
        opened = np.lib.stride_tricks.sliding_window_view(padded, self._ahead + 1).max(1)
        return np.repeat(opened, self._block)

    def forget(self, stop: int) -> None:
        """Nobody asks for samples before ``stop`` any more."""
        gone = stop // self._block - self._first
        if gone > 0:
            del self._gains[:gone]
            self._first += gone

    def _decide(self, power: float) -> None:
        """One block's mean square, and what it means for the next."""
        self._now += self._now_share * (power - self._now)
        self._recent += self._recent_share * (power - self._recent)
        if not self._has_spoken and self._recent > self._sure:
            self._has_spoken, self._speech = True, self._recent
        self._speech = max(self._speech * self._forget, self._recent)
        if self._now > self._speech * self._below:
            self._held = self._hold_blocks
        self._held -= self._held > 0
        if self._held:
            self._gain = 1.0
        else:
            self._gain += self._fall * (self._cut - self._gain)


def _power(db: float) -> float:
    """Of full scale, or a ratio of two."""
    return float(10 ** (db / 10))
