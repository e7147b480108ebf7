"""The sound that a face is drawn from: speech as it is, pauses without breath and room."""

from __future__ import annotations

import numpy as np
import pytest

from wsavatar.pauses import PauseGate

RATE = 16_000


def sound(seconds: float, db: float, seed: int = 0) -> np.ndarray:
    """Noise whose RMS is ``db`` of full scale."""
    rng = np.random.default_rng(seed)
    return (10 ** (db / 20) * rng.normal(0, 1, round(seconds * RATE))).astype(np.float32)


def level_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(samples**2) + 1e-20))


def test_a_breath_in_a_pause_is_turned_down() -> None:
    """What lies 30 dB and more under the speech around it is as good as silence."""
    speech, breath = sound(2, -18), sound(1, -52, seed=1)
    made = PauseGate(RATE)(np.concatenate([breath, speech, breath, speech]))
    for start in (0, 3):
        pause = made[round((start + 0.5) * RATE) : (start + 1) * RATE]
        assert level_db(pause) < -75


def test_speech_comes_through_as_it_is() -> None:
    """Not one sample of speech and of its short gaps changes."""
    speech = np.concatenate([np.tile(sound(0.3, -20), 1), sound(0.1, -60), sound(0.4, -38)] * 4)
    assert np.array_equal(PauseGate(RATE)(speech), speech)


def test_speech_after_a_pause_is_there_from_its_first_moments() -> None:
    """At most 10 ms of an onset are missing."""
    gate = PauseGate(RATE)
    gate(np.concatenate([sound(2, -18), sound(2, -60)]))
    onset = sound(0.2, -20, seed=3)
    made = gate(onset)
    assert np.array_equal(made[160:], onset[160:])


@pytest.mark.parametrize("db", [-45, -60])
def test_a_quiet_speaker_is_believed(db: float) -> None:
    """A low microphone moves the mouth all the same, after half a minute at the latest."""
    gate = PauseGate(RATE)
    gate(sound(40, db))
    speech = sound(1, db, seed=4)
    assert np.array_equal(gate(speech), speech)


@pytest.mark.parametrize("size", [1, 7, 80, 333, 5328])
def test_pieces_do_not_matter(size: int) -> None:
    """Bit for bit the same samples, however they come."""
    heard = np.concatenate([sound(0.5, -18), sound(0.7, -55), sound(0.2, -20)])
    whole = PauseGate(RATE)(heard)
    gate = PauseGate(RATE)
    parts = [gate(heard[start : start + size]) for start in range(0, len(heard), size)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_silence_stays_silence() -> None:
    """Zeros and nothing at all are fine."""
    gate = PauseGate(RATE)
    assert len(gate(np.zeros(0, np.float32))) == 0
    assert not gate(np.zeros(RATE, np.float32)).any()
