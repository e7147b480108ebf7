"""The audio that a face is drawn from: hum and offsets gone, speech as it was."""

from __future__ import annotations

import numpy as np
import pytest

from wsavatar.speech.front_end import FrontEnd

RATE = 16_000


def cleaned(samples: np.ndarray, piece: int = 1000) -> np.ndarray:
    front_end = FrontEnd(RATE)
    for at in range(0, len(samples), piece):
        front_end.push(samples[at : at + piece])
    front_end.flush()
    return front_end.window(0, -(-len(samples) // 80) * 80)[: len(samples)]


def tone(hertz: float, db: float, seconds: float = 1.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (10 ** (db / 20) * np.sqrt(2) * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def level_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(samples.astype(np.float64) ** 2) + 1e-20))


@pytest.mark.parametrize("hertz", [50, 60, 100])
def test_hum_is_removed_without_voice(hertz: float) -> None:
    """Below what a face model takes for sound (-95 dBFS), within 60 ms of its beginning."""
    made = cleaned(tone(hertz, -40))
    assert level_db(made[RATE // 16 :]) < -95


def test_a_low_voice_keeps_its_fundamental() -> None:
    """100 Hz below harmonics that are as loud is there while they are, and gone after them."""
    voice = tone(100, -24) + tone(400, -24) + tone(800, -24)
    made = cleaned(np.concatenate([voice, tone(100, -24)]))

    def hundred(part: np.ndarray) -> float:
        return float(20 * np.log10(abs(part @ tone(100, 0)[: len(part)]) / len(part) + 1e-20))

    assert hundred(made[RATE // 2 : RATE]) == pytest.approx(-24, abs=4)
    assert hundred(made[RATE * 3 // 2 :]) < -75


@pytest.mark.parametrize("piece", [1, 7, 80, 333, 5328])
def test_pieces_do_not_matter(piece: int) -> None:
    """Bit for bit the same, however the samples come."""
    noise = np.random.default_rng(0).normal(0, 0.1, 9_999).astype(np.float32)
    noise[3000:8000] *= 0.001
    noise += tone(50, -30)[:9_999] + np.float32(0.1)
    assert np.array_equal(cleaned(noise, piece), cleaned(noise, len(noise)))


def test_what_is_dropped_changes_no_later_window() -> None:
    """Windows are the same whether or not the audio before them is kept; outside it they are 0."""
    noise = np.random.default_rng(1).normal(0, 0.1, 2 * RATE).astype(np.float32)
    one, other = FrontEnd(RATE), FrontEnd(RATE)
    for front_end in (one, other):
        front_end.push(noise)
    other.drop_before(RATE)
    assert np.array_equal(one.window(RATE, 2 * RATE), other.window(RATE, 2 * RATE))
    assert (one.window(-RATE, 0) == 0).all() and (one.window(3 * RATE, 4 * RATE) == 0).all()
