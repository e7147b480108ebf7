"""The user's audio: what of it is kept, and where it lies on the upstream's timeline."""

from __future__ import annotations

import numpy as np

from tests.dialogue.upstream.scripted import noise
from wsavatar.dialogue.upstream.user_audio import KEPT_S, RATE, UserAudio
from wsavatar.media.audio import decode


def pushed(audio: UserAudio, pcm: bytes) -> None:
    for start in range(0, len(pcm), 960):
        audio.push(decode(pcm[start : start + 960], "audio/pcm"))


def test_a_turn_is_cut_out() -> None:
    """From one position to another; what comes after it is kept for the next turn."""
    audio, pcm = UserAudio(RATE), noise(3.0)
    pushed(audio, pcm)
    for start_ms, end_ms in ((500, 1000), (1200, 3000)):
        turn = audio.cut(start_ms, end_ms)
        assert turn is not None
        expected = decode(pcm[start_ms * 48 : end_ms * 48], "audio/pcm")
        assert turn.rate == RATE and np.array_equal(turn.samples, expected)
    assert audio.cut(1000, 2000) is None  # it was taken
    assert audio.position_ms == 3000


def test_no_more_than_a_minute_is_kept() -> None:
    """The newest; positions go on counting."""
    audio, pcm = UserAudio(RATE), noise(KEPT_S + 10)
    pushed(audio, pcm)
    assert audio.position_ms == 70_000
    turn = audio.cut(0, 70_000)
    assert turn is not None
    assert KEPT_S * RATE <= len(turn.samples) <= (KEPT_S + 1) * RATE
    assert np.array_equal(turn.samples, decode(pcm, "audio/pcm")[-len(turn.samples) :])


def test_a_new_connection_begins_with_what_is_kept() -> None:
    """From a position on, which is its first; what was cleared does not come again."""
    audio, pcm = UserAudio(RATE), noise(2.0)
    pushed(audio, pcm)
    assert audio.restart(1500) == pcm[-24_000:]
    assert audio.position_ms == 500
    audio.clear()
    assert audio.restart(0) == b"" and audio.position_ms == 0
    assert audio.restart(-1000) == b""


def test_the_rate_may_change() -> None:
    """Nothing of what came before is lost, and the same rate changes nothing."""
    audio = UserAudio(16_000)
    got = audio.push(np.ones(16_000, np.float32) / 4)
    assert audio.change_rate(16_000) == b""
    got += audio.change_rate(48_000) + audio.push(np.ones(48_000, np.float32) / 4) + audio.flush()
    assert len(got) == 2 * 2 * RATE and audio.position_ms == 2000
