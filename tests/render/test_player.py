"""The player's promises: a picture a tick, sound to the sample, rest and speech without a gap."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from wsavatar.render.player import MAX_AHEAD_S, Finished, Player, PlayerError, Speech, Tick

RATE, FPS = 24_000, Fraction(25)
TICK = RATE // 25
IDLE = ["i0", "i1", "i2", "i3"]


def player(**options: object) -> Player[str]:
    return Player(IDLE, Fraction(25), **{"fps": FPS, "sample_rate": RATE} | options)


def ramp(samples: int, start: int = 1) -> np.ndarray:
    """Audio in which all samples differ."""
    return np.arange(start, start + samples, dtype=np.float32)


def spoken(speech: Speech[str], samples: int, *, dropped: tuple[int, ...] = ()) -> np.ndarray:
    """A whole speech at once."""
    sound = ramp(samples)
    speech.push_audio(sound)
    for index in range(-(-samples * 25 // RATE)):
        speech.push_picture(index, None if index in dropped else f"s{index}")
    speech.end()
    return sound


def ticks(of: Player[str], count: int) -> list[Tick[str]]:
    return [of.tick() for _ in range(count)]


def shown(made: list[Tick[str]]) -> list[str]:
    return [tick.picture for tick in made]


def heard(made: list[Tick[str]]) -> np.ndarray:
    return np.concatenate([tick.audio for tick in made])[:, 0]


def test_at_rest_the_cycle_runs_forward_and_back_in_silence() -> None:
    """No speech is needed for a track; numbers go on from 0."""
    made = ticks(player(), 8)
    assert shown(made) == ["i0", "i1", "i2", "i3", "i2", "i1", "i0", "i1"]
    assert [tick.index for tick in made] == list(range(8))
    assert not heard(made).any() and len(heard(made)) == 8 * TICK
    assert not any(tick.speaking for tick in made)


def test_the_cycle_keeps_its_own_rate() -> None:
    """At 50 ticks a second each picture of a cycle of 25 is shown twice."""
    assert shown(ticks(player(fps=Fraction(50)), 6)) == ["i0", "i0", "i1", "i1", "i2", "i2"]


def test_rest_and_speech_make_one_track() -> None:
    """Speech takes the cycle's place at its own index, and the cycle goes on from its end."""
    track = player()
    before = ticks(track, 2)
    ends: list[Finished] = []
    speech = track.begin(track.cycle_index_in(0), ends.append)
    sound = spoken(speech, 3 * TICK)
    during, after = ticks(track, 3), ticks(track, 2)
    assert shown(before + during + after) == ["i0", "i1", "s0", "s1", "s2", "i1", "i0"]
    assert (heard(during) == sound).all()
    assert [tick.speaking for tick in before + during + after] == [False] * 2 + [True] * 3 + [
        False
    ] * 2
    assert ends == [Finished(3 * TICK / RATE, interrupted=False)]
    assert speech.over and not track.speaking


@pytest.mark.parametrize("samples", [1, TICK - 1, TICK, TICK + 1, 10 * TICK + 7])
def test_sound_is_given_to_the_sample_and_silence_behind_it(samples: int) -> None:
    """A speech of any length is heard whole; the rest of its last tick is silence."""
    track = player()
    sound = spoken(track.begin(0), samples)
    made = ticks(track, 14)
    assert (heard(made)[:samples] == sound).all()
    assert not heard(made)[samples:].any()


@pytest.mark.parametrize(
    ("fps", "rate"), [(Fraction(30_000, 1001), 24_000), (Fraction(30), 44_100), (Fraction(7), 8000)]
)
def test_an_hour_has_neither_a_sample_nor_a_picture_too_many(fps: Fraction, rate: int) -> None:
    """Where samples do not divide by pictures, ticks differ by one, and never add up to drift."""
    track = player(fps=fps, sample_rate=rate)
    count = int(3600 * fps)
    total = 0
    for _ in range(count):
        total += len(track.tick().audio)
    assert total == int(count * rate / fps)


def test_ticks_are_given_when_they_are_due() -> None:
    """However irregularly it is asked, by a time there were exactly the ticks due until then."""
    track = player()
    given: list[Tick[str]] = []
    for now_s in (100.0, 100.01, 100.039, 100.05, 100.5, 100.5, 101.0):
        given += track.until(now_s)
        assert len(given) == int((now_s - 100.0) * 25 + 1e-9) + 1
    assert [b.index - a.index for a, b in pairwise(given)] == [1] * 25


def test_a_dropped_picture_is_replaced_by_the_one_before_it() -> None:
    """Pictures yield to sound; where the first is dropped, the cycle's is shown until the next."""
    track = player()
    sound = spoken(track.begin(2), 5 * TICK, dropped=(0, 3))
    made = ticks(track, 5)
    assert shown(made) == ["i2", "s1", "s2", "s2", "s4"]
    assert (heard(made) == sound).all()


def test_a_late_picture_is_not_shown_later() -> None:
    """It would be out of step: the next one in time is."""
    track = player()
    speech = track.begin(0)
    speech.push_audio(ramp(4 * TICK))
    speech.push_picture(0, "s0")
    made = ticks(track, 2)
    speech.push_picture(1, "s1")
    speech.push_picture(2, "s2")
    made += ticks(track, 1)
    assert shown(made) == ["s0", "s0", "s2"]


def test_a_speech_waits_for_its_first_picture() -> None:
    """Until it is there, or known never to come, the avatar is at rest and nothing is heard."""
    track = player()
    speech = track.begin(0)
    speech.push_audio(ramp(2 * TICK))
    assert track.waiting
    assert shown(ticks(track, 2)) == ["i0", "i1"]
    speech.push_picture(0, "s0")
    assert not track.waiting
    assert ticks(track, 1)[0].picture == "s0"


def test_a_speech_without_pictures_is_played() -> None:
    """After a second of patience."""
    track = player()
    speech = track.begin(0)
    sound = ramp(2 * TICK)
    speech.push_audio(sound)
    speech.end()
    made = ticks(track, 40)
    assert not heard(made[:25]).any()
    assert (heard(made)[heard(made) != 0] == sound).all()


def test_where_sound_runs_dry_the_speech_waits_and_loses_nothing() -> None:
    """Its last picture is held over silence, and it goes on with the very next sample."""
    track = player()
    speech = track.begin(0)
    for index in range(4):
        speech.push_picture(index, f"s{index}")
    speech.push_audio(ramp(TICK + TICK // 2))
    made = ticks(track, 3)
    speech.push_audio(ramp(3 * TICK - TICK - TICK // 2, start=1 + TICK + TICK // 2))
    speech.end()
    made += ticks(track, 3)
    assert shown(made) == ["s0", "s0", "s0", "s1", "s2", "i3"]
    assert [tick.speaking for tick in made] == [True] * 5 + [False]
    assert (heard(made)[heard(made) != 0] == ramp(3 * TICK)).all()


def test_an_interruption_is_immediate_and_reports_the_position() -> None:
    """The next tick is at rest, and what was said or pushed later is not heard."""
    track = player()
    ends: list[Finished] = []
    speech, waiting = track.begin(0, ends.append), track.begin(0, ends.append)
    spoken(speech, 10 * TICK)
    ticks(track, 4)
    assert speech.position_s == pytest.approx(0.16)
    track.clear()
    speech.push_audio(ramp(TICK))
    speech.push_picture(5, "s5")
    spoken(waiting, TICK)
    made = ticks(track, 2)
    assert shown(made) == ["i2", "i1"] and not heard(made).any()
    assert ends == [Finished(4 * TICK / RATE, True), Finished(0.0, True)]


def test_speeches_are_played_one_after_the_other() -> None:
    """The second begins where the first ended, without a tick between them."""
    track = player()
    one, two = track.begin(0), track.begin(1)
    spoken(one, 2 * TICK)
    spoken(two, TICK)
    assert shown(ticks(track, 4)) == ["s0", "s1", "s0", "i2"]


def test_an_empty_speech_ends_without_a_tick() -> None:
    """An empty speech is reported as ended, and the next one plays."""
    track = player()
    ends: list[Finished] = []
    track.begin(0, ends.append).end()
    assert shown(ticks(track, 1)) == ["i0"]
    assert ends == [Finished(0.0, interrupted=False)]


def test_sound_may_have_channels() -> None:
    """Stereo goes through as it came."""
    track = player(channels=2)
    speech = track.begin(0)
    sound = np.stack([ramp(TICK), -ramp(TICK)], axis=1)
    speech.push_audio(sound)
    speech.push_picture(0, "s0")
    assert (track.tick().audio == sound).all()


def test_what_one_speech_may_hold_is_bounded() -> None:
    """Too much sound, pictures too far ahead, too many speeches, sound after the end: in words."""
    track = player()
    speech = track.begin(0)
    for _ in range(int(MAX_AHEAD_S) + 1):
        speech.push_audio(ramp(RATE))
    with pytest.raises(PlayerError, match="60 s ahead"):
        speech.push_audio(ramp(RATE))
    with pytest.raises(PlayerError, match="60 s ahead"):
        speech.push_picture(60 * 25 + 1, "s")
    speech.end()
    with pytest.raises(PlayerError, match="already ended"):
        speech.push_audio(ramp(1))
    with pytest.raises(PlayerError, match="wait already"):
        for _ in range(10):
            track.begin(0)
