"""What the user said, as text: its events, the item that keeps it, and who gets it when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.fake_dialogue import FakeSpeech
from tests.session.held import Held, holding
from wsavatar.session.transcription import MAX_TRANSCRIPT_CHARS

PREFIX = "conversation.item.input_audio_transcription"
DELTA, COMPLETED, FAILED = f"{PREFIX}.delta", f"{PREFIX}.completed", f"{PREFIX}.failed"


@asynccontextmanager
async def transcribing(**asked: Any) -> AsyncIterator[Held]:
    """A session whose client asked for transcripts."""
    async with holding(speech=FakeSpeech()) as held:
        wanted = {"transcription": {"model": "whisper-1", **asked}}
        held.line.say("session.update", session={"audio": {"input": wanted}})
        await held.line.until("session.updated")
        yield held


async def test_what_transcribes_is_shown_and_the_dialogue_is_told() -> None:
    """The model that is in force is the server's, whatever was asked; language and prompt reach
    the dialogue."""
    async with transcribing(language="de", prompt="Namen: Jörg") as held:
        session = held.line.of("session.updated")[0]["session"]
        shown = session["audio"]["input"]["transcription"]
        assert (shown["model"], shown["language"], shown["prompt"]) == (
            "a good ear",
            "de",
            "Namen: Jörg",
        )
        asked = held.dialogues.made[0][1].config.transcription
        assert asked is not None
        assert (asked.model, asked.language, asked.prompt) == ("", "de", "Namen: Jörg")
        held.line.say("session.update", session={"audio": {"input": {"transcription": None}}})
        updated = await held.line.until("session.updated", 2)
        assert updated["session"]["audio"]["input"]["transcription"] is None
        assert held.dialogues.made[0][1].config.transcription is None


async def test_without_an_engine_nothing_is_promised() -> None:
    """The client is not told that it will get transcripts, and gets none."""
    async with holding() as held:
        wanted = {"transcription": {"model": "whisper-1"}}
        held.line.say("session.update", session={"audio": {"input": wanted}})
        updated = await held.line.until("session.updated")
        assert updated["session"]["audio"]["input"]["transcription"] is None
        held.access.transcribed(held.access.commit(None), "hello", 1.0)
        await held.line.caught_up()
        assert not held.line.of(COMPLETED)


async def test_the_transcript_is_sent_and_kept_in_the_item() -> None:
    """The Realtime API's event, by duration; the item has the text when it is retrieved."""
    async with transcribing() as held:
        item_id = held.access.commit(None)
        held.access.transcript_delta(item_id, "hello ")
        held.access.transcript_delta(item_id, "there")
        held.access.transcribed(item_id, "hello there", 1.25)
        completed = await held.line.until(COMPLETED)
        assert {key: completed[key] for key in completed if key != "event_id"} == {
            "type": COMPLETED,
            "item_id": item_id,
            "content_index": 0,
            "transcript": "hello there",
            "usage": {"type": "duration", "seconds": 1.25},
        }
        assert "".join(one["delta"] for one in held.line.of(DELTA)) == "hello there"
        held.line.say("conversation.item.retrieve", item_id=item_id)
        item = (await held.line.until("conversation.item.retrieved"))["item"]
        assert item["content"] == [{"type": "input_audio", "transcript": "hello there"}]


async def test_a_client_that_did_not_ask_gets_nothing_and_the_item_has_the_text() -> None:
    """A dialogue may transcribe for itself: the text stays with the item."""
    async with holding(speech=FakeSpeech()) as held:
        item_id = held.access.commit(None)
        held.access.transcript_delta(item_id, "hello")
        held.access.transcribed(item_id, "hello", 1.0)
        held.access.transcription_failed(item_id, "engine_failed", "It broke.")
        await held.line.caught_up()
        assert not {DELTA, COMPLETED, FAILED} & set(held.line.kinds())
        assert held.access.conversation.get(item_id).item.text == "hello"


@pytest.mark.parametrize("knows_avatars", [False, True])
async def test_text_before_the_commit_waits_for_clients_that_do_not_know_the_item(
    knows_avatars: bool,
) -> None:
    """A client that knows avatars gets captions while the user speaks; a stock client gets them
    after conversation.item.added, since it would stumble over an id that it does not know."""
    async with transcribing() as held:
        if knows_avatars:
            held.session._use_extension()
        held.access.speech_started(0)
        spoken = held.access.spoken_item_id
        assert spoken is not None
        held.access.transcript_delta(spoken, "how are ")
        held.access.transcript_delta(spoken, "you")
        assert held.access.commit(None) == spoken
        held.access.transcript_delta(spoken, " today")
        held.access.transcribed(spoken, "how are you today", 2.0)
        await held.line.until(COMPLETED)
        kinds = held.line.kinds()
        first, added = kinds.index(DELTA), kinds.index("conversation.item.added")
        assert (first < added) == knows_avatars
        assert "".join(one["delta"] for one in held.line.of(DELTA)) == "how are you today"


async def test_text_of_a_turn_that_was_never_committed_is_forgotten() -> None:
    """The buffer was cleared: the next item does not begin with the words of the last one."""
    async with transcribing() as held:
        held.access.transcript_delta("item_never", "nothing of this")
        held.access.speech_started(0)
        spoken = held.access.spoken_item_id
        assert spoken is not None
        held.access.transcript_delta(spoken, "hello")
        held.access.commit(None)
        held.access.transcript_delta("item_never", "x" * MAX_TRANSCRIPT_CHARS)
        held.access.commit(None)
        await held.line.caught_up()
        assert [one["delta"] for one in held.line.of(DELTA)] == ["hello"]


async def test_a_failure_names_the_item() -> None:
    """Its own event, as the Realtime API has it: no error event, and the session goes on."""
    async with transcribing() as held:
        item_id = held.access.commit(None)
        held.access.transcription_failed(item_id, "engine_unreachable", "Nobody answers.")
        failed = await held.line.until(FAILED)
        assert failed["item_id"] == item_id
        assert failed["error"] == {
            "type": "server_error",
            "code": "engine_unreachable",
            "message": "Nobody answers.",
            "param": None,
        }
        assert not held.line.of("error")


async def test_an_item_that_the_client_deleted_gets_no_transcript() -> None:
    """The client knows no such item any more."""
    async with transcribing() as held:
        item_id = held.access.commit(None)
        held.line.say("conversation.item.delete", item_id=item_id)
        await held.line.until("conversation.item.deleted")
        held.access.transcribed(item_id, "hello", 1.0)
        held.access.transcription_failed(item_id, "engine_failed", "It broke.")
        await held.line.caught_up()
        assert not {COMPLETED, FAILED} & set(held.line.kinds())


async def test_the_index_is_that_of_the_audio_in_the_item() -> None:
    """A client's item may have words before its audio."""
    async with transcribing() as held:
        content = [
            {"type": "input_text", "text": "Listen:"},
            {"type": "input_audio", "audio": "AAAA" * 1600},
        ]
        item = {"type": "message", "role": "user", "content": content}
        held.line.say("conversation.item.create", item=item)
        item_id = (await held.line.until("conversation.item.done"))["item"]["id"]
        held.access.transcribed(item_id, "hello", 0.1)
        assert (await held.line.until(COMPLETED))["content_index"] == 1
        assert held.access.conversation.get(item_id).item.text == "Listen:\nhello"


async def test_the_mode_upstream_transcribes_by_the_other_server() -> None:
    """There the model that the client names is passed on, with or without an engine here."""
    async with holding() as held:
        made = held.dialogues
        made.refuses_upstream = False
        session = {
            "avatar": {"mode": "upstream"},
            "audio": {"input": {"transcription": {"model": "whisper-1", "language": "fr"}}},
        }
        held.line.say("session.update", session=session)
        updated = (await held.line.until("session.updated"))["session"]
        assert updated["audio"]["input"]["transcription"]["model"] == "whisper-1"
        asked = made.made[-1][1].config.transcription
        assert asked is not None and (asked.model, asked.language) == ("whisper-1", "fr")
        held.line.say("session.update", session={"avatar": {"mode": "parrot"}})
        updated = (await held.line.until("session.updated", 2))["session"]
        assert updated["audio"]["input"]["transcription"] is None
