"""A noise gate for the audio that a face is drawn from: breath and noise in pauses are attenuated.

A model that must follow a whisper opens its mouth for a breath too, because within the second that
it hears of a pause the breath is the loudest sound. How loud somebody speaks is known only over a
longer time; this module tracks it, and knows nothing else.

Sound more than `THRESHOLD_DB` below the speech level is attenuated by `ATTENUATION_DB` after a
hangover of `HANGOVER_S`: pauses between words, and the weak ends of words, stay as they are. So is
sound that may be a breath: it is not voiced, quieter than most speech, and not next to sound that
is. A second gain is for the lowest frequencies, where a voice has its fundamental and the mains
hum: it is 1 only while there is voice, and 0 else.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

__all__ = ["NoiseGate"]

BLOCK_S = 0.005
THRESHOLD_DB = 30.0
ATTENUATION_DB = 26.0
HANGOVER_S = 0.2
RELEASE_S = 0.02
"""Time constant of closing. The gate opens at once,"""
LOOK_AHEAD_S = 0.06
"""and so long before an onset, because speech begins softly."""

LEVEL_S = 0.03
"""Time constant of the present level,"""
SPEECH_LEVEL_S = 0.1
"""and of the speech level, which a click must not raise."""

LOW_THRESHOLD_DB = 24.0
LOW_LEVEL_S = 0.01
LOW_HANGOVER_S = 0.03
LOW_RELEASE_S = 0.01
"""The same for the gain of the lowest frequencies."""

FIRST_SPEECH_DB = -15.0
"""Speech level until there is speech, RMS of full scale,"""
CERTAIN_SPEECH_DB = -38.0
"""which is what exceeds this level."""
SPEECH_DECAY_DB_PER_S = 0.5
"""A quieter speaker is followed only slowly, because pauses are quiet too."""

BREATH_DB = -36.0
"""Until there is certain speech, what is not louder is sure to be speech only if it is voiced;"""
BREATH_BELOW_DB = 12.0
"""from then on, what is so far below the speech level."""
VOICED = 0.75
"""Voiced: it is like itself one period of a voice earlier (a breath 0.6 at most, a vowel 0.9)."""
VOICE_HZ = 80, 400
VOICED_WINDOW_S = 0.025
SURE_S = 0.1
"""What is not sure opens the gate for so long after sure speech: words end in weak consonants."""
SURE_LOOK_AHEAD_S = 0.15
"""Sure speech opens it so long before: words begin with them."""

_SAMPLES = 10
"""Of a block, for `VOICED`: what is above 1 kHz says nothing of a voice's period."""


class NoiseGate:
    """One stream's gate. Its gains do not depend on the pieces that the samples come in."""

    def __init__(self, rate: int) -> None:
        self._block = max(1, round(BLOCK_S * rate))
        self._look_ahead = round(LOOK_AHEAD_S * rate / self._block)
        self._sure_look_ahead = round(SURE_LOOK_AHEAD_S * rate / self._block)
        self._waiting = np.zeros(0, np.float32)  # samples of the block that is not complete
        # Of complete blocks, from `_first` on: both gains; the first where speech is sure, else 0.
        self._gains: list[tuple[float, float, float]] = []
        self._first = 0
        self._level = 0.0  # mean squares
        self._low_level = 0.0
        self._smooth_level = 0.0
        self._speech_level = _power(FIRST_SPEECH_DB)
        self._has_spoken = False
        self._voice = _Voice()
        self._hangover = self._low_hangover = 0
        block_s = self._block / rate
        self._level_share = -math.expm1(-block_s / LEVEL_S)
        self._smooth_share = -math.expm1(-block_s / SPEECH_LEVEL_S)
        self._release = -math.expm1(-block_s / RELEASE_S)
        self._decay = _power(-SPEECH_DECAY_DB_PER_S * block_s)
        self._threshold, self._certain = _power(-THRESHOLD_DB), _power(CERTAIN_SPEECH_DB)
        self._breath, self._below = _power(BREATH_DB), _power(-BREATH_BELOW_DB)
        self._sure_blocks, self._sure = round(SURE_S / block_s), 0
        self._closed_gain = math.sqrt(_power(-ATTENUATION_DB))
        self._hangover_blocks = round(HANGOVER_S / block_s)
        self._low_share = -math.expm1(-block_s / LOW_LEVEL_S)
        self._low_keep = math.exp(-block_s / LOW_RELEASE_S)
        self._low_threshold = _power(-LOW_THRESHOLD_DB)
        self._low_hangover_blocks = round(LOW_HANGOVER_S / block_s)
        # A stream may begin with noise; its first word opens the gate.
        self._gain, self._low_gain = self._closed_gain, 0.0

    def push(self, samples: np.ndarray) -> None:
        """The next samples, float32 [n] in [-1, 1]."""
        waiting = np.concatenate([self._waiting, samples])
        whole = len(waiting) - len(waiting) % self._block
        for block in waiting[:whole].reshape(-1, self._block):
            self._voice.push(block)
            self._update(float(np.dot(block, block)) / self._block)
            is_sure = self._sure == self._sure_blocks
            self._gains.append((self._gain, self._low_gain, self._gain if is_sure else 0.0))
        self._waiting = waiting[whole:]

    def gains(self, start: int, stop: int) -> np.ndarray:
        """float32 [2, stop - start], both gains of those samples; 1 before the first sample.

        They depend on the samples before ``stop`` alone: an onset opens the gate `LOOK_AHEAD_S`
        before it, sure speech `SURE_LOOK_AHEAD_S`. Both are multiples of a block, and no dropped
        block is between them. After the last complete block the gate stays as it is.
        """
        first, last = start // self._block, stop // self._block
        known = self._gains[max(0, first) - self._first : last - self._first]
        lead, tail = max(0, -first), last - max(0, first) - len(known)
        present = (self._gain, self._low_gain, 0.0)
        blocks = [(1.0, 1.0, 0.0)] * lead + known + [present] * tail
        gains = np.array(blocks, np.float32).reshape(-1, 3).T
        opened = gains[:2].copy()
        for ahead in range(1, min(self._look_ahead + 1, len(blocks))):
            np.maximum(opened[:, :-ahead], gains[:2, ahead:], out=opened[:, :-ahead])
        for ahead in range(1, min(self._sure_look_ahead + 1, len(blocks))):
            np.maximum(opened[0, :-ahead], gains[2, ahead:], out=opened[0, :-ahead])
        return np.repeat(opened, self._block, axis=1)

    def drop_before(self, stop: int) -> None:
        """No gains of samples before ``stop`` are needed any more."""
        dropped = stop // self._block - self._first
        if dropped > 0:
            del self._gains[:dropped]
            self._first += dropped

    def _update(self, power: float) -> None:
        """Take one block's mean square into the levels, and set its gain."""
        self._level += self._level_share * (power - self._level)
        self._smooth_level += self._smooth_share * (power - self._smooth_level)
        if not self._has_spoken and self._hangover and self._smooth_level > self._certain:
            self._has_spoken, self._speech_level = True, self._smooth_level
        self._speech_level = max(self._speech_level * self._decay, self._smooth_level)
        self._sure -= self._sure > 0
        if self._level > self._speech_level * self._threshold and self._is_speech():
            self._hangover = self._hangover_blocks
        self._hangover -= self._hangover > 0
        if self._hangover:
            self._gain = 1.0
        else:
            self._gain += self._release * (self._closed_gain - self._gain)
        self._low_level += self._low_share * (power - self._low_level)
        if self._hangover and self._low_level > self._speech_level * self._low_threshold:
            self._low_hangover = self._low_hangover_blocks
        self._low_hangover -= self._low_hangover > 0
        self._low_gain = 1.0 if self._low_hangover else self._low_gain * self._low_keep

    def _is_speech(self) -> bool:
        """Of a present level that may be speech: whether it is, or follows some."""
        breath = self._speech_level * self._below if self._has_spoken else self._breath
        if self._level > breath or self._voice.is_voiced():
            self._sure = self._sure_blocks
        return self._sure > 0


class _Voice:
    """Tells whether the sound of the last blocks is periodic as a voice is."""

    def __init__(self) -> None:
        rate = _SAMPLES / BLOCK_S
        self._lags = np.arange(round(rate / VOICE_HZ[1]), round(rate / VOICE_HZ[0]) + 1)
        self._count = round(rate * VOICED_WINDOW_S)
        self._needed = self._count + int(self._lags[-1])
        self._recent: deque[np.ndarray] = deque(maxlen=-(-self._needed // _SAMPLES))

    def push(self, block: np.ndarray) -> None:
        """The next block, [n]; of any rate from 2 kHz on."""
        self._recent.append(block.copy())

    def is_voiced(self) -> bool:
        """Whether a shift by some period changes little, at the end of what was pushed."""
        blocks = np.stack(self._recent)
        together = blocks.shape[1] // _SAMPLES
        known = blocks[:, : together * _SAMPLES].reshape(-1, together).mean(axis=1)
        recent = np.concatenate([np.zeros(self._needed, np.float32), known])[-self._needed :]
        last = recent[-self._count :]
        shifted = np.lib.stride_tricks.sliding_window_view(recent, self._count)
        earlier = shifted[len(shifted) - 1 - self._lags]
        power = np.square(earlier).sum(axis=1) * np.dot(last, last)
        return bool((earlier @ last > VOICED * np.sqrt(power)).any())


def _power(db: float) -> float:
    """Of full scale, or a ratio of two."""
    return float(10 ** (db / 10))
