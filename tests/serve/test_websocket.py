"""A session on a socket: who is gone is noticed, and who is only busy is not."""

from __future__ import annotations

import asyncio

import pytest

from tests.fake_dialogue import Dialogues, ToneDialogue
from tests.helpers import fake_engine, settings
from tests.session.held import Line
from wsavatar.metrics import Metrics
from wsavatar.serve import websocket
from wsavatar.serve.sessions import Sessions
from wsavatar.session.session import Session


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "PING_INTERVAL_S", 0.01)
    monkeypatch.setattr(websocket, "PING_TIMEOUT_S", 0.02)


async def test_a_peer_that_answers_no_ping_is_gone() -> None:
    """Its connection is closed, and its place is free."""
    line = Line()
    line.answers = False
    session = Session(fake_engine(), settings(), Metrics())
    goodbye = await asyncio.wait_for(Sessions(60, Metrics()).begin(line, session), 30)
    assert (goodbye.code, goodbye.reason) == (1011, "no answer to a ping")


async def test_a_peer_whose_answer_waits_behind_its_audio_is_not_gone() -> None:
    """While the session takes no more, nothing is read, and no answer can come."""
    line, dialogues = Line(), Dialogues()
    line.answers = False
    may_go_on = asyncio.Event()

    async def slow(self: ToneDialogue, samples: object) -> None:
        await may_go_on.wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ToneDialogue, "heard", slow)
        session = Session(
            fake_engine(create_dialogue=dialogues.create),
            settings(audio={"max_buffer_s": 2}),
            Metrics(),
        )
        holding = asyncio.create_task(Sessions(60, Metrics()).begin(line, session))
        for _ in range(20):
            line.inbox.put_nowait(bytes(48_000))
        done, _ = await asyncio.wait([holding], timeout=0.3)
        assert not done and session.is_full
        may_go_on.set()
        goodbye = await asyncio.wait_for(holding, 30)
    assert goodbye.reason == "no answer to a ping"  # now that it could have come


async def test_a_response_that_nobody_goes_on_with_keeps_no_session() -> None:
    """A client that stopped in the middle of its speech: the idle timeout counts all the same."""
    line = Line()
    session = Session(fake_engine(create_dialogue=Dialogues().create), settings(), Metrics())
    holding = asyncio.create_task(Sessions(0.05, Metrics()).begin(line, session))
    line.say("avatar.speak", text="hum 300")
    await line.until("response.output_audio.delta")
    assert (await asyncio.wait_for(holding, 30)).reason.startswith("idle")


async def test_a_peer_that_answers_no_ping_may_come_back() -> None:
    """Its socket is closed and its session waits: a phone may only have changed its network."""
    line, metrics = Line(), Metrics()
    line.answers = False
    sessions = Sessions(60, metrics)
    session = Session(fake_engine(), settings(), metrics, avatar_id="ada")
    goodbye = await asyncio.wait_for(sessions.begin(line, session), 30)
    assert goodbye.code == 1011 and len(sessions) == 1
    back = Line()
    returning = asyncio.create_task(
        sessions.resume(back, session.resumption.token, f"{len(line.got)}")
    )
    await back.until("avatar.resumed")
    back.inbox.put_nowait(None)
    await asyncio.wait_for(returning, 30)
    assert len(sessions) == 0
    assert metrics.resumed._value.get() == 1
