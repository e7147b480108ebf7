"""An answer on its way to the client: what waits, where it is cut, and when it is given up."""

from __future__ import annotations

from tests.dialogue.fakes import FakeResponse
from tests.dialogue.upstream.scripted import noise
from wsavatar.dialogue.upstream import speech
from wsavatar.dialogue.upstream.speech import Cut, Speech
from wsavatar.dialogue.upstream.user_audio import RATE
from wsavatar.media.audio import decode

SECOND = decode(noise(1.0), "audio/pcm")


def said(*item_ids: str) -> Speech:
    """One second of each item."""
    one = Speech("resp_1", 60.0)
    for item_id in item_ids:
        one.audio(item_id, 0, SECOND)
    return one


def test_each_item_is_cut_where_it_was_heard() -> None:
    """A position of the response's audio falls into one of its items; later ones were not heard."""
    one = said("item_1", "item_2", "item_3")
    assert one.cuts(1400) == [Cut("item_2", 0, 400), Cut("item_3", 0, 0)]
    assert one.cuts(1400) == []  # nothing new
    assert one.cuts(300) == [Cut("item_1", 0, 300), Cut("item_2", 0, 0)]
    assert one.cuts(2000) == []  # it was heard to there, and cut before


def test_an_item_that_may_have_grown_is_cut_at_its_end() -> None:
    """The upstream may have made more of it than has arrived here; never beyond what has."""
    assert said("item_1").cuts(5000) == []
    assert said("item_1").cuts(5000, grows=True) == [Cut("item_1", 0, 1000)]


async def test_an_answer_that_stops_coming_is_given_up() -> None:
    """It fails in words after what has come was said, and the upstream is told."""
    one, told = Speech("resp_1", 60.0, stalled_s=0.01), list[str]()
    response = FakeResponse("resp_1", None, RATE)
    one.audio("item_1", 0, SECOND)
    await one.run(lambda: response, lambda: told.append("stop"))
    assert len(response.said) == RATE and told == ["stop"]
    assert response.error is not None and response.error[0] == "upstream_timeout"


async def test_more_parts_than_can_wait_are_an_end(monkeypatch) -> None:
    """An upstream that floods us costs its own answer."""
    monkeypatch.setattr(speech, "MAX_PARTS", 10)
    one, response = Speech("resp_1", 60.0), FakeResponse("resp_1", None, RATE)
    for _ in range(1000):
        one.put("word ")
    await one.run(lambda: response, lambda: None)
    assert response.transcript == "word " * 10
    assert response.error is not None and response.error[0] == "response_too_long"
