"""The noise gate: speech as it is, pauses without breath and noise."""

from __future__ import annotations

import numpy as np
import pytest

from tests.speech.sounds import RATE, breath, voice
from wsavatar.speech.noise_gate import NoiseGate


def sound(seconds: float, db: float, seed: int = 0) -> np.ndarray:
    """Noise whose RMS is ``db`` of full scale."""
    rng = np.random.default_rng(seed)
    return (10 ** (db / 20) * rng.normal(0, 1, round(seconds * RATE))).astype(np.float32)


def level_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(samples**2) + 1e-20))


def gated(*parts: np.ndarray, piece: int = 1000) -> np.ndarray:
    """The parts one after the other, through the gate."""
    samples = np.concatenate(parts)
    gate = NoiseGate(RATE)
    for start in range(0, len(samples), piece):
        gate.push(samples[start : start + piece])
    return samples * gate.gains(0, len(samples))[0]


def test_a_breath_in_a_pause_is_turned_down() -> None:
    """What is 30 dB and more below the speech around it is as good as silence."""
    speech, noise = sound(2, -16), sound(1, -52, seed=1)
    made = gated(noise, speech, noise, speech)
    for start in (0, 3):
        pause = made[round((start + 0.5) * RATE) : round((start + 0.8) * RATE)]
        assert level_db(pause) < -75


@pytest.mark.parametrize("db", [-42, -50, -55])
def test_a_breath_before_anybody_spoke_is_turned_down(db: float) -> None:
    """All of it, its lowest frequencies too."""
    gate, samples = NoiseGate(RATE), breath(2, db)
    gate.push(samples)
    whole, low = gate.gains(0, len(samples))
    assert (whole < 0.06).all() and (low == 0).all()


def test_the_first_quiet_word_is_there_from_before_its_vowel() -> None:
    """Voice opens the gate far below the loudest breath, and so does the consonant before it."""
    consonant, vowel = sound(0.1, -50, seed=5), voice(0.3, -42)
    made = gated(np.zeros(RATE, np.float32), consonant, vowel)
    assert np.array_equal(made[RATE:], np.concatenate([consonant, vowel]))


def test_a_whisper_opens_the_gate_by_its_loudness() -> None:
    """What is louder than a breath needs no voice."""
    whisper = breath(1.5, -30)
    middle = slice(RATE // 2, RATE)
    assert np.array_equal(gated(whisper)[middle], whisper[middle])


def test_speech_comes_through_as_it_is() -> None:
    """Not one sample of speech and of its short gaps changes."""
    speech = np.concatenate([sound(0.3, -20), sound(0.1, -60), voice(0.4, -46)] * 4)
    assert np.array_equal(gated(speech), speech)


@pytest.mark.parametrize("db", [-42, -45, -50])
def test_a_breath_between_words_is_turned_down(db: float) -> None:
    """From a third of a second after the word, until a moment before the next."""
    before, pause, after = voice(2, -23), np.zeros(RATE // 5, np.float32), voice(1, -23)
    samples = np.concatenate([before, pause, breath(1.5, db), after])
    made = gated(before, pause, breath(1.5, db), after)
    assert np.array_equal(made[: len(before)], before)
    assert np.array_equal(made[-len(after) :], after)
    rest = slice(round(2.35 * RATE), round(3.5 * RATE))
    assert level_db(made[rest]) < level_db(samples[rest]) - 25


def test_weak_consonants_are_left_to_their_words() -> None:
    """A word may begin and end with sound that is as weak as a breath, and not voiced."""
    word = np.concatenate([sound(0.12, -46), voice(0.3, -20), sound(0.12, -46, seed=2)])
    pause = np.zeros(RATE, np.float32)
    made = gated(voice(1, -20), pause, word, pause)
    assert np.array_equal(made[2 * RATE : 2 * RATE + len(word)], word)


def test_speech_after_a_pause_is_there_from_before_its_onset() -> None:
    """Speech begins softly: the last 50 ms before it are as they were."""
    pause, onset = sound(2, -60), sound(0.2, -20, seed=3)
    made = gated(sound(2, -16), pause, onset)
    assert np.array_equal(made[-len(onset) - 800 :], np.concatenate([pause[-800:], onset]))


def test_nothing_after_a_window_counts() -> None:
    """A window's gains are the same whether or not more was pushed since."""
    gate, samples = NoiseGate(RATE), np.concatenate([sound(2, -16), sound(1, -60)])
    gate.push(samples)
    before = gate.gains(RATE, len(samples))
    gate.push(sound(1, -16))
    assert np.array_equal(gate.gains(RATE, len(samples)), before)


@pytest.mark.parametrize("db", [-45, -60])
def test_a_quiet_speaker_is_followed(db: float) -> None:
    """A low microphone moves the mouth all the same, after half a minute at the latest."""
    speech = voice(1, db)
    assert np.array_equal(gated(np.tile(speech, 40), speech)[-RATE:], speech)


@pytest.mark.parametrize("size", [1, 7, 80, 333, 5328])
def test_pieces_do_not_matter(size: int) -> None:
    """Bit for bit the same samples, however they come."""
    parts = sound(0.5, -18), sound(0.7, -55), sound(0.2, -20)
    assert np.array_equal(gated(*parts, piece=size), gated(*parts))


def test_dropped_gains_change_no_others() -> None:
    """Gains that are still kept stay; before the first sample they are 1."""
    gate = NoiseGate(RATE)
    gate.push(np.concatenate([sound(1, -16), sound(1, -60)]))
    kept = gate.gains(RATE, 2 * RATE)
    gate.drop_before(RATE)
    assert np.array_equal(gate.gains(RATE, 2 * RATE), kept)
    assert (gate.gains(-RATE, 0) == 1).all()


def test_noise_before_the_first_word_is_attenuated_from_the_start() -> None:
    """And at the end: with nothing after it, the gate stays as it is."""
    noise = sound(1, -52)
    made = gated(noise)
    for part in (made[: RATE // 10], made[-RATE // 10 :]):
        assert level_db(part) < -75


def test_the_lowest_frequencies_come_through_with_voice_alone() -> None:
    """Their gain is 1 in speech and in its short gaps, and 0 a tenth of a second after it."""
    gate = NoiseGate(RATE)
    gate.push(np.concatenate([sound(0.5, -52), sound(1, -18), sound(0.5, -30), sound(1, -52)]))
    low = gate.gains(0, 3 * RATE)[1]
    assert (low[: round(0.4 * RATE)] == 0).all()
    assert (low[round(0.5 * RATE) : 2 * RATE] == 1).all()
    assert (low[round(2.12 * RATE) :] < 0.01).all()
