"""The high-pass filter: what is below is gone, what is above is not, however it is cut."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from wsavatar.speech.high_pass import HighPass

RATE = 16_000
ORDER, STOP_HZ, STOP_DB = 7, 101.0, 50.0


def filtered(samples: np.ndarray, piece: int = 1000, rate: int = RATE) -> np.ndarray:
    high_pass = HighPass(rate, ORDER, STOP_HZ, STOP_DB)
    pieces = [high_pass.push(samples[at : at + piece]) for at in range(0, len(samples), piece)]
    return np.concatenate([*pieces, high_pass.flush()])


def tone(hertz: float, seconds: float = 2.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)


def gain_db(hertz: float) -> float:
    """Once the filter has settled."""
    before, after = tone(hertz)[RATE:], filtered(tone(hertz))[RATE:]
    return float(10 * np.log10(np.mean(after**2) / np.mean(before**2)))


@pytest.mark.parametrize("hertz", [49.5, 50, 50.5, 59.5, 60, 60.5, 99, 100, 101])
def test_low_frequencies_are_removed(hertz: float) -> None:
    """Mains hum and its octave, also where the frequency is off by half a hertz."""
    assert gain_db(hertz) <= -49.9


@pytest.mark.parametrize("hertz", [180, 200, 300, 1000, 4000, 7500])
def test_what_is_above_stays_as_it_is(hertz: float) -> None:
    """To 0.2 dB, from the second harmonic of low voices on."""
    assert abs(gain_db(hertz)) < 0.2


@pytest.mark.parametrize("offset", [-0.5, 0.001, 0.3])
def test_an_offset_is_removed_from_the_first_sample(offset: float) -> None:
    """It makes no click at the start, and leaves nothing."""
    assert np.abs(filtered(np.full(RATE, offset, np.float32))).max() < 1e-9
    noise = np.random.default_rng(1).normal(0, 0.1, RATE).astype(np.float32)
    made = filtered(noise + np.float32(offset)) - filtered(noise)
    assert np.abs(made).max() < 1e-6


@pytest.mark.parametrize("rate", [8000, 16_000, 48_000])
def test_it_is_the_textbook_filter(rate: int) -> None:
    """Chebyshev type II as SciPy designs it, sample by sample."""
    noise = np.random.default_rng(2).normal(0, 0.1, rate).astype(np.float32)
    noise[0] = 0
    sections = signal.cheby2(ORDER, STOP_DB, STOP_HZ, "highpass", fs=rate, output="sos")
    wanted = signal.sosfilt(sections, noise.astype(np.float64))
    np.testing.assert_allclose(filtered(noise, rate=rate), wanted, atol=1e-7)


@pytest.mark.parametrize("piece", [1, 7, 80, 333, 5328])
def test_pieces_do_not_matter(piece: int) -> None:
    """Bit for bit the same samples, as many as came in."""
    noise = np.random.default_rng(3).normal(0, 0.1, 12_345).astype(np.float32)
    assert np.array_equal(filtered(noise, piece), filtered(noise, len(noise)))
    assert len(filtered(noise, piece)) == len(noise)
    assert len(filtered(noise[:0])) == 0
