"""The transcriber: turns become texts, and the session is told what its client asked for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.dialogue.asr.scripted import ScriptedRecognizer
from tests.dialogue.fakes import (
    HEARD_RATE,
    FakeEngines,
    FakeSession,
    FakeVoice,
    config,
    silence,
    tell,
    wait_for,
)
from wsavatar.dialogue.asr import Heard
from wsavatar.dialogue.base import DialogueConfig, Persona, TranscriptionRequest
from wsavatar.dialogue.conversation import Recording
from wsavatar.dialogue.engine import EngineError
from wsavatar.dialogue.mirror import Mirror
from wsavatar.dialogue.parrot import Parrot
from wsavatar.dialogue.transcriber import Transcriber
from wsavatar.dialogue.turns import TurnAudio, TurnBegan, TurnEnded

VOICE = np.full(1600, 0.5, np.float32)
"""0.1 s at HEARD_RATE."""


def asking(language: str = "", prompt: str = "", **settings: Any) -> DialogueConfig:
    """A client that wants to know what the user says."""
    return replace(config(**settings), transcription=TranscriptionRequest(language, prompt))


def speak(transcriber: Transcriber, session: FakeSession, seconds: float = 1.0) -> None:
    """A turn begins and goes on, all of it voice."""
    session.speech_started(0)
    transcriber.follow(TurnBegan(0), 0)
    for _ in range(round(10 * seconds)):
        transcriber.follow(TurnAudio(VOICE), 0)


def told(session: FakeSession) -> list[tuple[str, Any]]:
    """What the session was told of transcriptions, in order."""
    return [(kind, what) for kind, what in session.events if kind.startswith("transcri")]


async def test_a_turn_becomes_a_text(session: FakeSession) -> None:
    """All of its audio is recognised; the session is told the text with its item and length."""
    recognizer = ScriptedRecognizer("hello there")
    transcriber = Transcriber(session, recognizer, asking())
    speak(transcriber, session, 1.5)
    turn = transcriber.commit(session.commit(None))
    assert await turn.final() == "hello there"
    assert recognizer.turns[0].seconds == pytest.approx(1.5) and turn.seconds == pytest.approx(1.5)
    await wait_for(lambda: len(told(session)) == 2)
    assert told(session) == [
        ("transcript_delta", ("item_0", "hello there")),
        ("transcribed", ("item_0", "hello there")),
    ]
    await transcriber.close()


async def test_audio_of_any_rate_reaches_the_engine_at_16_khz(session: FakeSession) -> None:
    """Two seconds at 24 kHz, and at 8 kHz after a change in the middle of a turn, are two each."""
    recognizer = ScriptedRecognizer("hello")
    transcriber = Transcriber(session, recognizer, replace(asking(), input_rate=24_000))
    transcriber.follow(TurnAudio(np.full(48_000, 0.5, np.float32)), 0)
    transcriber.configure(replace(asking(), input_rate=8_000))
    transcriber.follow(TurnAudio(np.full(16_000, 0.5, np.float32)), 0)
    await transcriber.end().final()
    assert recognizer.turns[0].seconds == pytest.approx(4, abs=0.001)


async def test_words_that_no_longer_change_are_sent_while_they_are_said(
    session: FakeSession,
) -> None:
    """Deltas carry the id that the item will have, and together they are its text."""
    recognizer = ScriptedRecognizer("the cat sat.")
    transcriber = Transcriber(session, recognizer, asking())
    speak(transcriber, session)
    for text, stable in (
        ("the", ""),
        ("the cap", "the"),
        ("the cat", "the"),
        ("the cat s", "the cat"),
    ):
        recognizer.turns[0].read(text, stable)
        assert transcriber.heard.text == text
    item_id = session.commit(None)
    await transcriber.commit(item_id).final()
    await wait_for(lambda: told(session)[-1][0] == "transcribed")
    deltas = [what for kind, what in told(session) if kind == "transcript_delta"]
    assert deltas == [(item_id, "the"), (item_id, " cat"), (item_id, " sat.")]


async def test_a_text_that_turned_out_differently_is_told_whole(session: FakeSession) -> None:
    """Where the final text contradicts what was sent, it comes once, as the complete one."""
    recognizer = ScriptedRecognizer("a cat")
    transcriber = Transcriber(session, recognizer, asking())
    speak(transcriber, session)
    recognizer.turns[0].read("the cat", "the")
    await transcriber.commit(session.commit(None)).final()
    await wait_for(lambda: told(session)[-1][0] == "transcribed")
    assert told(session) == [
        ("transcript_delta", ("item_0", "the")),
        ("transcribed", ("item_0", "a cat")),
    ]


async def test_a_client_that_did_not_ask_is_told_nothing(session: FakeSession) -> None:
    """Nothing is recognised for it either."""
    recognizer = ScriptedRecognizer("hello")
    transcriber = Transcriber(session, recognizer, config())
    speak(transcriber, session)
    await transcriber.commit(session.commit(None)).final()
    await asyncio.sleep(0)
    assert recognizer.turns == [] and told(session) == []


async def test_a_dialogue_may_need_the_text_itself(session: FakeSession) -> None:
    """``always``: each newer text is handed on; the item keeps the last, and no delta is sent."""
    recognizer, heard = ScriptedRecognizer("hello there"), list[Heard]()
    transcriber = Transcriber(session, recognizer, config(), always=True, on_heard=heard.append)
    speak(transcriber, session)
    recognizer.turns[0].read("hello", "hello", whole=True)
    assert heard == [Heard("hello", "hello", whole=True)] and transcriber.heard.whole
    transcriber.follow(TurnAudio(VOICE), 0)
    assert not transcriber.heard.whole
    turn = transcriber.end()
    assert await turn.final() == "hello there" and turn.heard.whole
    assert told(session) == []
    transcriber.assign(turn, session.commit(None))
    await wait_for(lambda: bool(told(session)))
    assert told(session) == [("transcribed", ("item_0", "hello there"))]


async def test_silence_is_recognised_only_if_voice_follows(session: FakeSession) -> None:
    """The turn is read when the user pauses; so its end has nothing to wait for."""
    recognizer = ScriptedRecognizer("one two")
    transcriber = Transcriber(session, recognizer, asking())
    speak(transcriber, session, 1.0)
    transcriber.follow(TurnAudio(VOICE), 100)
    transcriber.follow(TurnAudio(0 * VOICE), 200)
    transcriber.follow(TurnAudio(0 * VOICE), 300)
    assert recognizer.turns[0].pauses == [pytest.approx(1.1)]
    assert recognizer.turns[0].seconds == pytest.approx(1.1)
    transcriber.follow(TurnAudio(VOICE), 0)
    assert recognizer.turns[0].seconds == pytest.approx(1.4)
    transcriber.follow(TurnAudio(0 * VOICE), 100)
    transcriber.follow(TurnAudio(0 * VOICE), 200)
    transcriber.follow(TurnEnded(0), 500)
    await transcriber.commit(session.commit(None)).final()
    assert recognizer.turns[0].pauses == [pytest.approx(1.1), pytest.approx(1.5)]
    assert recognizer.turns[0].seconds == pytest.approx(1.5)


async def test_a_turn_without_voice_has_no_words(session: FakeSession) -> None:
    """No engine is asked about silence, which some of them hear words in."""
    recognizer = ScriptedRecognizer("Thank you.")
    transcriber = Transcriber(session, recognizer, asking())
    transcriber.follow(TurnAudio(0 * VOICE), 500)
    assert await transcriber.commit(session.commit(None)).final() == ""
    assert recognizer.turns == []
    await wait_for(lambda: told(session) == [("transcribed", ("item_0", ""))])


async def test_the_language_is_the_clients_the_settings_or_the_avatars(
    session: FakeSession,
) -> None:
    """In this order; names and spellings are the client's."""
    persona = Persona(language="fr")
    for settings, client, expected in (("", "", "fr"), ("de", "", "de"), ("de", "es", "es")):
        recognizer = ScriptedRecognizer(language=settings)
        chosen = replace(asking(client, "Ada, Bob"), persona=persona)
        speak(Transcriber(session, recognizer, chosen), session)
        assert recognizer.turns[0].language == expected
        assert recognizer.turns[0].prompt == "Ada, Bob"


async def test_an_engine_that_fails_is_reported_with_the_item(session: FakeSession) -> None:
    """The client learns why; the next turn is tried again."""
    recognizer = ScriptedRecognizer("hello", error=EngineError("engine_unreachable", "gone"))
    failures: list[EngineError] = []
    transcriber = Transcriber(session, recognizer, asking(), on_failed=failures.append)
    speak(transcriber, session)
    turn = transcriber.commit(session.commit(None))
    with pytest.raises(EngineError, match="gone"):
        await turn.final()
    await wait_for(lambda: bool(told(session)))
    assert failures == [recognizer.error]
    assert told(session) == [("transcription_failed", ("item_0", "engine_unreachable"))]
    recognizer.error = None
    speak(transcriber, session)
    assert await transcriber.end().final() == "hello"


async def test_an_engine_with_a_fault_is_logged_and_reported(
    session: FakeSession, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected exception is one turn's failure."""
    recognizer = ScriptedRecognizer("hello")
    recognizer.error = ZeroDivisionError("oops")  # type: ignore[assignment]
    transcriber = Transcriber(session, recognizer, asking())
    speak(transcriber, session)
    with pytest.raises(EngineError) as failed:
        await transcriber.commit(session.commit(None)).final()
    assert failed.value.code == "engine_failed"
    assert "could not be recognised" in caplog.text


async def test_a_client_that_asks_without_an_engine_is_told_so(session: FakeSession) -> None:
    """Each item fails with what to install."""
    transcriber = Transcriber(session, None, asking())
    speak(transcriber, session)
    transcriber.commit(session.commit(None))
    await wait_for(lambda: bool(told(session)))
    assert told(session) == [("transcription_failed", ("item_0", "engine_missing"))]


async def test_turns_of_a_session_are_read_in_order_one_at_a_time(session: FakeSession) -> None:
    """So that a session with many turns leaves the engine to others, and texts keep their order.
    More than a few that wait are refused."""
    recognizer = ScriptedRecognizer(*"abcdefghijk")
    recognizer.gate = asyncio.Event()
    transcriber = Transcriber(session, recognizer, asking())
    turns = []
    for _ in range(10):
        speak(transcriber, session, 0.1)
        turns.append(transcriber.commit(session.commit(None)))
        await asyncio.sleep(0)
    assert [turn.finished for turn in recognizer.turns].count(True) == 1
    recognizer.gate.set()
    texts = await asyncio.gather(*(turn.final() for turn in turns), return_exceptions=True)
    assert texts[:8] == list("abcdefgh")
    assert [getattr(one, "code", one) for one in texts[8:]] == ["engine_timeout"] * 2
    assert recognizer.turns[8].cancelled and recognizer.turns[9].cancelled


async def test_what_was_cleared_is_not_read(session: FakeSession) -> None:
    """The turn is cancelled; what follows is a turn of its own."""
    recognizer = ScriptedRecognizer("hello")
    transcriber = Transcriber(session, recognizer, asking())
    speak(transcriber, session)
    transcriber.clear()
    assert recognizer.turns[0].cancelled and transcriber.heard.text == ""
    speak(transcriber, session, 0.5)
    await transcriber.end().final()
    assert recognizer.turns[1].seconds == pytest.approx(0.5)


async def test_closing_cancels_what_is_not_read(session: FakeSession) -> None:
    """The turn in progress and those that wait; nobody is told anything."""
    recognizer = ScriptedRecognizer("hello")
    recognizer.gate = asyncio.Event()
    transcriber = Transcriber(session, recognizer, asking())
    speak(transcriber, session)
    over = transcriber.commit(session.commit(None))
    speak(transcriber, session)
    await asyncio.sleep(0)
    await transcriber.close()
    with pytest.raises(asyncio.CancelledError):
        await over.final()
    assert all(turn.cancelled for turn in recognizer.turns) and told(session) == []


async def test_a_recording_is_read_as_well(session: FakeSession) -> None:
    """Audio that came at once, as in an item that the client made."""
    recognizer = ScriptedRecognizer("hello")
    transcriber = Transcriber(session, recognizer, config(), always=True)
    turn = transcriber.read(Recording(np.full(48_000, 0.1, np.float32), 24_000))
    assert await turn.final() == "hello"
    assert recognizer.turns[0].seconds == pytest.approx(2)


@pytest.mark.parametrize("mode", [Mirror, Parrot])
async def test_what_is_said_is_transcribed_in_every_mode(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray, mode: type[Mirror | Parrot]
) -> None:
    """A turn that voice activity ended: without its silence, under the item's id."""
    recognizer = ScriptedRecognizer("what was said")
    dialogue = mode(session, asking(), FakeEngines(voice, recognizer))
    await tell(dialogue, np.concatenate([silence(1), sentence, silence(2)]))
    await wait_for(lambda: told(session)[-1:] and told(session)[-1][0] == "transcribed")
    item_id = next(what for kind, what in session.events if kind == "committed")
    assert told(session)[-1] == ("transcribed", (item_id, "what was said"))
    assert 2.8 < recognizer.turns[0].seconds < 3.9
    await dialogue.close()


@pytest.mark.parametrize("mode", [Mirror, Parrot])
async def test_a_turn_that_the_client_commits_is_transcribed(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray, mode: type[Mirror | Parrot]
) -> None:
    """Without turn detection too; long silence in it is left out, and read pauses are counted."""
    recognizer = ScriptedRecognizer("first", "second")
    dialogue = mode(session, asking(turn_detection=False), FakeEngines(voice, recognizer))
    await tell(dialogue, np.concatenate([silence(5), sentence, silence(5)]))
    assert recognizer.turns[0].pauses
    await dialogue.committed(session.commit(Recording(sentence, HEARD_RATE)))
    await tell(dialogue, np.concatenate([silence(1), sentence]))
    await dialogue.committed(session.commit(Recording(sentence, HEARD_RATE)))
    await wait_for(lambda: len([one for one in told(session) if one[0] == "transcribed"]) == 2)
    texts = [what[1] for kind, what in told(session) if kind == "transcribed"]
    assert texts == ["first", "second"]
    assert all(2.8 < turn.seconds < 4.2 for turn in recognizer.turns)
    await dialogue.close()


@pytest.mark.parametrize("mode", [Mirror, Parrot])
async def test_cleared_audio_is_not_transcribed(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray, mode: type[Mirror | Parrot]
) -> None:
    """`input_audio_buffer.clear` drops the turn in progress."""
    recognizer = ScriptedRecognizer("hello")
    dialogue = mode(session, asking(), FakeEngines(voice, recognizer))
    await tell(dialogue, np.concatenate([silence(1), sentence[:HEARD_RATE]]))
    await dialogue.cleared()
    assert recognizer.turns[0].cancelled
    await dialogue.close()
