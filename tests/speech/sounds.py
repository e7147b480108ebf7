"""Sounds at 16 kHz: a vowel, and those in which nobody speaks."""

from __future__ import annotations

import numpy as np

__all__ = ["RATE", "breath", "noise", "tone", "voice"]

RATE = 16_000


def tone(hertz: float, db: float, seconds: float = 0.8) -> np.ndarray:
    """A sine whose RMS is ``db`` of full scale."""
    time = np.arange(round(seconds * RATE)) / RATE
    return 10 ** (db / 20) * np.sqrt(2) * np.sin(2 * np.pi * hertz * time + 1)


def noise(db: float, seconds: float = 0.8) -> np.ndarray:
    """White noise of this RMS."""
    return 10 ** (db / 20) * np.random.default_rng(0).normal(size=round(seconds * RATE))


def breath(seconds: float, db: float, seed: int = 0) -> np.ndarray:
    """Noise from 300 to 3500 Hz that swells and fades; ``db`` is the RMS of all of it."""
    count = round(seconds * RATE)
    hertz = np.fft.rfftfreq(count, 1 / RATE)
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=count))
    spectrum *= ((hertz > 300) & (hertz < 3500)) / (1 + hertz / 800)
    made = np.fft.irfft(spectrum, count) * np.hanning(count)
    return (made * 10 ** (db / 20) / np.sqrt(np.mean(made**2))).astype(np.float32)


def voice(seconds: float, db: float) -> np.ndarray:
    """A vowel: twenty harmonics of 130 Hz, of which the pitch sways."""
    time = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * 130 * time + 2 * np.sin(2 * np.pi * 1.5 * time)
    made = sum(np.sin(number * phase) / number for number in range(1, 21))
    return (made * 10 ** (db / 20) / np.sqrt(np.mean(made**2))).astype(np.float32)
