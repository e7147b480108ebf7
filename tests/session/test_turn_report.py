"""The times of a turn: to the client, the metrics and the log."""

from __future__ import annotations

import logging

import pytest

from tests.session.held import holding
from wsavatar.dialogue.base import ResponseRequest
from wsavatar.dialogue.trace import TurnTrace


class Clock:
    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


async def test_a_turns_times_are_told_once_it_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    """Milliseconds from the end of speech, once: when the client reports that it plays."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    trace = TurnTrace(clock)
    trace.mark("speech_end", ago_s=0.2)
    trace.mark("turn_end")
    async with holding() as held:
        held.line.say("session.update", session={"avatar": {"mode": "parrot"}})
        await held.line.until("session.updated")
        response = held.access.respond(ResponseRequest(trace=trace), rate=24_000)
        clock.now_s += 0.1
        trace.mark("first_sound")
        assert held.line.of("avatar.turn") == []
        clock.now_s += 0.4
        for position_ms in (100, 200):
            report = {"position_ms": position_ms, "frames_shown": 0, "frames_late": 0}
            held.line.say("avatar.playback", response_id=response.id, **report)
        turn = await held.line.until("avatar.turn")
        await held.line.caught_up()
        assert len(held.line.of("avatar.turn")) == 1
        times = {name: turn[f"{name}_ms"] for name in ("turn_end", "first_sound", "first_heard")}
        assert times == {"turn_end": 200, "first_sound": 300, "first_heard": 600}
        assert turn["first_token_ms"] is None and turn["response_id"] == response.id
        stats = held.metrics.snapshot()["turn_ms"]
        assert stats["first_heard"] == {"count": 1, "p50": 600, "p95": 600, "p99": 600}
        assert b'wsavatar_turn_seconds_count{stage="first_sound"} 1' in held.metrics.prometheus()
    assert "first_heard 600 ms" in caplog.text


async def test_an_answer_without_sound_has_no_times() -> None:
    """A failed response, or one in text, is no turn to be measured."""
    async with holding() as held:
        held.line.say("session.update", session={"avatar": {"mode": "parrot"}})
        await held.line.until("session.updated")
        response = held.access.respond(ResponseRequest(trace=TurnTrace.of_turn()))
        await response.fail("x", "y")
        await held.line.until("response.done")
        assert held.line.of("avatar.turn") == []
