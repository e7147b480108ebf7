"""The responses of one session: one at a time, each with its number; who may cancel which."""

from __future__ import annotations

import pytest

from tests.session.held import holding
from wsavatar.session.responses import MAX_GENERATION


async def test_a_cancel_ends_the_response_that_it_names() -> None:
    """Or any, if it names none; the same response is not cancelled twice."""
    async with holding() as held:
        responses = held.session._responses
        assert not responses.cancel(None)
        response = held.access.respond()
        assert not responses.cancel("resp_of_another_time") and not response.over
        assert responses.cancel(response.id) and response.over
        assert not responses.cancel(response.id) and responses.in_progress is None
        second = held.access.respond()
        assert responses.cancel(None) and second.over
        await held.line.caught_up()
        done = [event["response"] for event in held.line.of("response.done")]
        assert [one["id"] for one in done] == [response.id, second.id]


async def test_numbers_fit_their_two_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The binary header has two: after the last comes 1 again, never 0."""
    assert MAX_GENERATION == 0xFFFF
    monkeypatch.setattr("wsavatar.session.responses.MAX_GENERATION", 3)
    async with holding() as held:
        for _ in range(5):
            held.access.respond().cancel(None)
        await held.line.caught_up()
        created = held.line.of("response.created")
        assert [one["response"]["generation"] for one in created] == [1, 2, 3, 1, 2]
