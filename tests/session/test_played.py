"""What a client plays, for the echo guard: which sample is heard when, at any rate."""

from __future__ import annotations

import numpy as np
import pytest

from tests.session.held import Clock
from wsavatar.dialogue.echo_delay import ECHO_RATE
from wsavatar.media.audio import resample
from wsavatar.session.played import PlayedAudio
from wsavatar.session.timeline import PREROLL_S, PlaybackEstimate


def played(rate: int) -> tuple[PlayedAudio, PlaybackEstimate, Clock]:
    clock, playback = Clock(), PlaybackEstimate()
    return PlayedAudio(rate, playback, clock), playback, clock


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000])
def test_samples_are_where_they_are_heard(rate: int) -> None:
    """At 16 kHz, by their number, whatever the rate of the speech and its pieces."""
    audio, _, _ = played(rate)
    noise = 0.1 * np.random.default_rng(0).standard_normal(2 * rate).astype("f4")
    speech = resample(resample(noise, rate, 6_000), 6_000, rate)
    for piece in np.array_split(speech, 7):
        audio.add(piece)
    expected = resample(speech, rate, ECHO_RATE)
    got = audio.read(1000, 25_000)
    assert np.corrcoef(got, expected[1000:25_000])[0, 1] > 0.99


def test_where_there_is_nothing_is_silence() -> None:
    """Before the first sample and behind the last."""
    audio, _, _ = played(ECHO_RATE)
    audio.add(np.ones(100, np.float32))
    assert audio.read(-50, 150).tolist() == [0.0] * 50 + [1.0] * 100 + [0.0] * 50
    assert audio.read(500, 600).tolist() == [0.0] * 100
    assert len(audio.read(10, 10)) == 0


def test_the_position_is_the_clients() -> None:
    """By the estimate until it reports, then by the report; before it begins, below 0."""
    audio, playback, clock = played(ECHO_RATE)
    assert audio.position_s() < 0
    playback.sent(10.0, clock())
    assert audio.position_s() == pytest.approx(-PREROLL_S)
    clock.now_s += 2.0
    assert audio.position_s(ago_s=0.25) == pytest.approx(1.75 - PREROLL_S)
    playback.reported(1.9, clock())
    clock.now_s += 0.1
    assert audio.position_s() == pytest.approx(2.0)


def test_only_the_last_seconds_are_kept() -> None:
    """A response of minutes takes no more memory than one of seconds."""
    audio, playback, clock = played(ECHO_RATE)
    for _ in range(600):
        playback.sent(0.1, clock())
        audio.add(np.ones(ECHO_RATE // 10, np.float32))
        clock.now_s += 0.1
    assert sum(map(len, audio._pieces)) < 6 * ECHO_RATE
    end = round(audio.position_s() * ECHO_RATE)
    assert audio.read(end - 3 * ECHO_RATE, end).min() == 1.0


def test_it_may_be_heard_until_its_echo_is_gone() -> None:
    """Two seconds behind its end, no longer."""
    audio, playback, clock = played(ECHO_RATE)
    playback.sent(1.0, clock())
    audio.add(np.ones(ECHO_RATE, np.float32))
    assert audio.may_be_heard
    clock.now_s += PREROLL_S + 1.0 + 1.9
    assert audio.may_be_heard
    clock.now_s += 0.2
    assert not audio.may_be_heard
