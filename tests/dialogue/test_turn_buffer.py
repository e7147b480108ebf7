"""The audio of a turn in progress."""

from __future__ import annotations

import numpy as np

from wsavatar.dialogue.turn_buffer import MAX_TURN_S, TurnBuffer


def test_a_turn_is_taken_whole_and_once() -> None:
    """All samples in order, at the microphone's rate."""
    turn = TurnBuffer(16_000)
    assert turn.take() is None
    turn.add(np.zeros(3, np.float32))
    turn.add(np.ones(2, np.float32))
    recording = turn.take()
    assert recording is not None and recording.rate == 16_000
    assert recording.samples.tolist() == [0, 0, 0, 1, 1]
    assert turn.take() is None


def test_a_turn_has_a_longest_length_at_every_rate() -> None:
    """A minute; at another rate what is there is as long as before."""
    turn = TurnBuffer(8000)
    turn.add(np.zeros(round(MAX_TURN_S * 8000), np.float32))
    assert not turn.is_full
    turn.change_rate(16_000)
    assert not turn.is_full
    turn.add(np.zeros(1, np.float32))
    assert turn.is_full
    recording = turn.take()
    assert recording is not None and recording.rate == 16_000 and not turn.is_full
    assert len(recording.samples) == round(MAX_TURN_S * 16_000) + 1
