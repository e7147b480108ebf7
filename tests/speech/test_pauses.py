"""The sound that a face is drawn from: speech as it is, pauses without breath and room."""

from __future__ import annotations

import numpy as np
import pytest

from wsavatar.speech.pauses import PauseGate

RATE = 16_000


def sound(seconds: float, db: float, seed: int = 0) -> np.ndarray:
    """Noise whose RMS is ``db`` of full scale."""
    rng = np.random.default_rng(seed)
    return (10 ** (db / 20) * rng.normal(0, 1, round(seconds * RATE))).astype(np.float32)


def level_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(samples**2) + 1e-20))


def gated(*parts: np.ndarray, piece: int = 1000) -> np.ndarray:
    """The parts one after the other, as a face is drawn from them."""
    heard = np.concatenate(parts)
    gate = PauseGate(RATE)
    for start in range(0, len(heard), piece):
        gate.hear(heard[start : start + piece])
    return heard * gate.gains(0, len(heard))


def test_a_breath_in_a_pause_is_turned_down() -> None:
    """What lies 30 dB and more under the speech around it is as good as silence."""
    speech, breath = sound(2, -16), sound(1, -52, seed=1)
    made = gated(breath, speech, breath, speech)
    for start in (0, 3):
        pause = made[round((start + 0.5) * RATE) : round((start + 0.9) * RATE)]
        assert level_db(pause) < -75


def test_speech_comes_through_as_it_is() -> None:
    """Not one sample of speech and of its short gaps changes."""
    speech = np.concatenate([sound(0.3, -20), sound(0.1, -60), sound(0.4, -46)] * 4)
    assert np.array_equal(gated(speech), speech)


def test_speech_after_a_pause_is_there_from_before_its_onset() -> None:
    """Speech begins softly: the last 50 ms before it are as they were."""
    pause, onset = sound(2, -60), sound(0.2, -20, seed=3)
    made = gated(sound(2, -16), pause, onset)
    assert np.array_equal(made[-len(onset) - 800 :], np.concatenate([pause[-800:], onset]))


def test_nothing_behind_a_window_counts() -> None:
    """A window's sound is the same whether or not more was heard since."""
    gate, heard = PauseGate(RATE), np.concatenate([sound(2, -16), sound(1, -60)])
    gate.hear(heard)
    before = gate.gains(RATE, len(heard))
    gate.hear(sound(1, -16))
    assert np.array_equal(gate.gains(RATE, len(heard)), before)


@pytest.mark.parametrize("db", [-45, -60])
def test_a_quiet_speaker_is_believed(db: float) -> None:
    """A low microphone moves the mouth all the same, after half a minute at the latest."""
    speech = sound(1, db, seed=4)
    assert np.array_equal(gated(sound(40, db), speech)[-RATE:], speech)


@pytest.mark.parametrize("size", [1, 7, 80, 333, 5328])
def test_pieces_do_not_matter(size: int) -> None:
    """Bit for bit the same samples, however they come."""
    parts = sound(0.5, -18), sound(0.7, -55), sound(0.2, -20)
    assert np.array_equal(gated(*parts, piece=size), gated(*parts))


def test_what_is_forgotten_moves_nothing_else() -> None:
    """Gains of what is still kept stay, and what was never heard is left as it is."""
    gate = PauseGate(RATE)
    gate.hear(np.concatenate([sound(1, -16), sound(1, -60)]))
    kept = gate.gains(RATE, 3 * RATE)
    gate.forget(RATE)
    assert np.array_equal(gate.gains(RATE, 3 * RATE), kept)
    assert (kept[RATE:] == 1).all() and (gate.gains(-RATE, 0) == 1).all()
