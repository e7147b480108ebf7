"""Resampling with little delay: the same sound, soon, and however it is cut."""

from __future__ import annotations

import numpy as np
import pytest

from wsavatar.media.audio import resample
from wsavatar.media.low_delay import LowDelayResampler

PAIRS = [(24_000, 16_000), (48_000, 16_000), (8_000, 16_000), (16_000, 24_000)]


def tone(rate: int, hz: float, seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype("f4")


def whole(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    resampler = LowDelayResampler(from_rate, to_rate)
    return np.concatenate([resampler.push(samples), resampler.flush()])


@pytest.mark.parametrize(("from_rate", "to_rate"), PAIRS)
def test_a_tone_stays_where_it_is(from_rate: int, to_rate: int) -> None:
    """The same tone, of the same phase, with one sample for each of the other rate."""
    out = whole(tone(from_rate, 1000), from_rate, to_rate)
    expected = tone(to_rate, 1000)
    assert len(out) == len(expected)
    np.testing.assert_allclose(out[100:-100], expected[100:-100], atol=1e-3)


@pytest.mark.parametrize(("from_rate", "hz"), [(24_000, 9_000), (48_000, 9_000), (48_000, 20_000)])
def test_what_the_lower_rate_cannot_have_is_removed(from_rate: int, hz: float) -> None:
    """A tone above half of the lower rate does not come back as another one: 60 dB."""
    assert np.abs(whole(tone(from_rate, hz), from_rate, 16_000)[200:-200]).max() < 0.5e-3


@pytest.mark.parametrize(("from_rate", "to_rate"), PAIRS)
def test_it_is_at_most_five_milliseconds_late(from_rate: int, to_rate: int) -> None:
    """After each packet of 20 ms, all but the last 5 ms have come out."""
    resampler = LowDelayResampler(from_rate, to_rate)
    received = returned = 0
    for _ in range(50):
        received += from_rate // 50
        returned += len(resampler.push(np.zeros(from_rate // 50, np.float32)))
        assert received / from_rate - returned / to_rate <= 0.005


@pytest.mark.parametrize(("from_rate", "to_rate"), PAIRS)
def test_how_it_is_cut_changes_no_bit(from_rate: int, to_rate: int) -> None:
    """Packets of any size give the same samples, and a second stream begins anew."""
    random = np.random.default_rng(0)
    noise = random.standard_normal(from_rate // 4).astype("f4")
    at_once = whole(noise, from_rate, to_rate)
    resampler = LowDelayResampler(from_rate, to_rate)
    cuts = sorted(random.integers(0, len(noise), 60).tolist())
    for _ in range(2):
        parts = [resampler.push(part) for part in np.split(noise, cuts)]
        assert np.array_equal(np.concatenate([*parts, resampler.flush()]), at_once)
    similar = resample(noise, from_rate, to_rate)
    assert np.corrcoef(at_once[100:-100], similar[100:-100])[0, 1] > 0.97


def test_equal_rates_change_nothing() -> None:
    """Nothing is filtered where nothing is to do."""
    noise = np.random.default_rng(1).standard_normal(500).astype("f4")
    assert np.array_equal(whole(noise, 16_000, 16_000), noise)


def test_a_stream_without_samples_ends_with_none() -> None:
    """Nothing in, nothing out."""
    assert len(LowDelayResampler(24_000, 16_000).flush()) == 0
