"""Parrot: what was heard is said back when the turn is over."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tests.dialogue.fakes import (
    HEARD_RATE,
    FakeSession,
    FakeVoice,
    config,
    engines_of,
    kinds,
    silence,
    tell,
    until_over,
    wait_for,
)
from wsavatar.dialogue.base import ResponseRequest
from wsavatar.dialogue.conversation import Entry, Recording
from wsavatar.dialogue.parrot import Parrot, trim_silence
from wsavatar.media.audio import resample
from wsavatar.protocol.events import user_item


async def test_a_parrot_says_back_what_it_heard(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """Once the turn is over: committed, then said back, the silence around it trimmed."""
    parrot = Parrot(session, config(), engines_of(voice))
    await tell(parrot, np.concatenate([silence(1), sentence]))
    assert session.responses == [] and kinds(session) == ["started"]
    await tell(parrot, silence(1))
    response = await until_over(session)
    assert kinds(session) == ["started", "stopped", "committed"]
    assert response.status == "completed" and response.rate == HEARD_RATE
    assert 2.6 < len(response.said) / HEARD_RATE < 3.6
    assert sentence[HEARD_RATE : HEARD_RATE + 4000].tobytes() in response.said.tobytes()
    await parrot.close()


async def test_a_client_that_commits_gets_its_answer_when_it_asks(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """Without turn detection nothing is said until `response.create`."""
    parrot = Parrot(session, config(turn_detection=False), engines_of(voice))
    await tell(parrot, sentence)
    await parrot.committed(session.commit(Recording(sentence, HEARD_RATE)))
    assert session.responses == []
    await parrot.create_response(ResponseRequest())
    response = await until_over(session)
    assert response.status == "completed"
    assert len(response.said) == pytest.approx(3 * HEARD_RATE, abs=0.4 * HEARD_RATE)
    await parrot.close()


async def test_create_response_false_leaves_the_answer_to_the_client(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """The turn is found and committed; the client asks for the response itself."""
    parrot = Parrot(session, config(create_response=False), engines_of(voice))
    await tell(parrot, np.concatenate([sentence, silence(1)]))
    assert kinds(session)[-1] == "committed" and session.responses == []
    await parrot.create_response(ResponseRequest())
    assert (await until_over(session)).status == "completed"
    await parrot.close()


async def test_speaking_interrupts_a_parrot(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """The response is cancelled as speech begins, and its task is gone."""
    session.gate = asyncio.Event()  # the first answer never gets through
    parrot = Parrot(session, config(), engines_of(voice))
    await tell(parrot, np.concatenate([sentence, silence(1)]))
    assert session.responses[0].status == "in_progress"
    await tell(parrot, sentence[:HEARD_RATE])
    assert session.responses[0].status == "cancelled" and session.responses[0].parts == []
    await parrot.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("say ")]


@pytest.mark.parametrize("audible", [False, True])
async def test_a_blip_does_not_cost_the_answer(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray, audible: bool
) -> None:
    """48 ms of voice while the avatar speaks, or is still heard, interrupt nothing."""
    parrot = Parrot(session, config(), engines_of(voice))
    if audible:
        session.audible = True
    else:
        session.gate = asyncio.Event()
        await parrot.speak("A long answer.")
        await wait_for(lambda: voice.spoken != [])
    loud = int(np.argmax(np.abs(sentence)))
    blip = sentence[loud - 384 : loud + 384]
    await tell(parrot, np.concatenate([silence(1), blip, silence(1)]))
    assert session.interruptions == 0 and session.events == []
    await tell(parrot, sentence)
    assert session.interruptions == 1 and kinds(session)[0] == "started"
    await parrot.close()


@pytest.mark.parametrize("hz", [50, 100, 120, 300])
async def test_a_hum_does_not_cost_the_answer(
    session: FakeSession, voice: FakeVoice, hz: int
) -> None:
    """A steady tone is no voice, however long and loud it is."""
    session.audible = True
    parrot = Parrot(session, config(), engines_of(voice))
    t = np.arange(4 * HEARD_RATE) / HEARD_RATE
    for level_db in (-40, -20):
        hum = 10 ** (level_db / 20) * np.sin(2 * np.pi * hz * t)
        await tell(parrot, np.concatenate([silence(1), hum.astype(np.float32), silence(1)]))
    assert session.interruptions == 0
    await parrot.close()


async def test_a_parrot_forgets_what_was_cleared(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """A clear in the middle of a turn: only what comes after it is said back."""
    parrot = Parrot(session, config(), engines_of(voice))
    await tell(parrot, sentence)
    await parrot.cleared()
    assert kinds(session) == ["started", "stopped"]
    await tell(parrot, np.concatenate([sentence[: 2 * HEARD_RATE], silence(1)]))
    response = await until_over(session)
    assert len(response.said) < 2.7 * HEARD_RATE
    await parrot.close()


async def test_a_parrot_goes_on_with_other_settings(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """A new rate in the middle of a turn: the turn is whole, and said back at the new rate."""
    parrot = Parrot(session, config(), engines_of(voice))
    await tell(parrot, sentence)
    await parrot.configure(config(rate=48_000, vad_silence_ms=700))
    await tell(parrot, resample(np.concatenate([sentence, silence(1)]), HEARD_RATE, 48_000), 4800)
    response = await until_over(session)
    assert kinds(session) == ["started", "stopped", "committed"]
    assert response.rate == 48_000
    assert len(response.said) / 48_000 == pytest.approx(6, abs=0.6)
    await parrot.close()


async def test_interrupt_response_false_lets_a_parrot_finish(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """What is said meanwhile is committed, and not answered."""
    session.gate = asyncio.Event()
    parrot = Parrot(session, config(interrupt_response=False), engines_of(voice))
    await tell(parrot, np.concatenate([sentence, silence(1), sentence, silence(1)]))
    assert kinds(session).count("committed") == 2 and len(session.responses) == 1
    session.gate.set()
    assert (await until_over(session)).status == "completed"
    await parrot.close()


async def test_an_endless_turn_is_answered_while_it_goes_on(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """After a minute the answer begins; the rest of the turn belongs to the same answer."""
    parrot = Parrot(session, config(), engines_of(voice))
    talk = np.tile(sentence, 22)
    await tell(parrot, talk, 8000)
    assert kinds(session) == ["started", "stopped", "committed", "started"]
    assert len(session.responses) == 1 and not session.responses[0].over
    await tell(parrot, silence(1))
    response = await until_over(session)
    assert kinds(session)[-2:] == ["stopped", "committed"]
    stopped, started = session.events[1][1], session.events[3][1]
    assert stopped == started
    assert response.status == "completed" and talk.tobytes()[8000:] in response.said.tobytes()
    assert len(session.conversation) == 2
    await parrot.close()


async def test_a_parrot_reads_out_what_was_written(session: FakeSession, voice: FakeVoice) -> None:
    """A user item in writing is said back in the voice."""
    parrot = Parrot(session, config(), engines_of(voice))
    session.conversation.add(Entry(user_item("item_1", text="Read this.")))
    await parrot.create_response(ResponseRequest())
    response = await until_over(session)
    assert response.transcript.strip() == "Read this." and response.status == "completed"
    await parrot.close()


async def test_a_parrot_that_heard_nothing_says_so(session: FakeSession, voice: FakeVoice) -> None:
    """`response.create` with nothing to answer is a failed response, not silence."""
    parrot = Parrot(session, config(), engines_of(voice))
    await parrot.create_response(ResponseRequest())
    response = await until_over(session)
    assert response.error is not None and response.error[0] == "nothing_to_answer"
    await parrot.close()


def test_trimming_keeps_the_voice_and_a_margin(sentence: np.ndarray) -> None:
    """0.2 s of silence stay on either side; pure silence stays whole."""
    padded = np.concatenate([silence(2), sentence, silence(2)])
    trimmed = len(trim_silence(Recording(padded, HEARD_RATE)).samples)
    assert len(sentence) - 3200 <= trimmed <= len(sentence) + 2 * 3200 + 640
    for seconds in (0, 1):
        quiet = Recording(silence(seconds), HEARD_RATE)
        assert trim_silence(quiet) == quiet
