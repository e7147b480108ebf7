"""The echo of loudspeakers in a microphone, as the benchmark and the echo guard's tests have it."""

from __future__ import annotations

import numpy as np
import pytest

from wsavatar.bench.loudspeaker import Loudspeaker

RATE = 16_000


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(round(seconds * RATE)).astype("f4")


def test_without_a_room_it_is_the_sound_later_and_quieter() -> None:
    """Half a second later at -20 dB: a tenth of every sample."""
    sound = noise(1.0)
    heard = Loudspeaker(RATE, delay_s=0.5, gain_db=-20, reverberation_s=0).push(sound)
    np.testing.assert_allclose(heard[: RATE // 2], 0, atol=1e-6)
    np.testing.assert_allclose(heard[RATE // 2 :], 0.1 * sound[: RATE // 2], atol=1e-6)


@pytest.mark.parametrize("gain_db", [-20, -10])
def test_a_room_changes_the_sound_and_not_its_power(gain_db: float) -> None:
    """Reverberation is part of the echo's power, and goes on behind the sound."""
    room = Loudspeaker(RATE, delay_s=0.1, gain_db=gain_db, reverberation_s=0.4)
    heard, tail = room.push(noise(4.0)), room.push(np.zeros(RATE, np.float32))
    power = np.mean(heard[RATE:] ** 2)
    assert 10 * np.log10(power) == pytest.approx(gain_db, abs=0.5)
    assert np.abs(tail[: RATE // 5]).max() > 1e-3 and np.abs(tail[RATE * 6 // 10 :]).max() < 1e-5


def test_how_it_is_cut_changes_nothing() -> None:
    """Blocks of any size give the same echo."""
    sound = noise(1.0)
    at_once = Loudspeaker(RATE, delay_s=0.05).push(sound)
    room = Loudspeaker(RATE, delay_s=0.05)
    parts = np.split(sound, [1, 7, 320, 321, 5000])
    np.testing.assert_allclose(np.concatenate([room.push(p) for p in parts]), at_once, atol=1e-5)
