"""What a response gives besides speech: text, calls of functions, times of words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fake_dialogue import tone
from tests.fake_renderer import FakeRenderer
from tests.session.held import Held, Line, holding
from wsavatar.dialogue.base import ResponseRequest, Word
from wsavatar.protocol.events import FunctionCall
from wsavatar.session.outputs import MAX_ARGUMENTS_CHARS
from wsavatar.session.response import SpokenResponse
from wsavatar.session.timeline import PREROLL_S
from wsavatar.session.transcript import Transcript

ARGUMENTS = "response.function_call_arguments"


def respond(held: Held, modality: Any = "audio", **asked: Any) -> SpokenResponse:
    return held.access.respond(ResponseRequest(modality=modality, **asked))


def about(line: Line, response: SpokenResponse) -> list[str]:
    """The types of all events of a response and of its items, in order."""
    return [
        one["type"]
        for one in line.got
        if isinstance(one, dict)
        and (
            one.get("response_id") == response.id
            or one.get("response", {}).get("id") == response.id
            or one["type"].startswith("conversation.item.")
        )
    ]


def knows_avatars(held: Held) -> None:
    held.session._use_extension()


# -- text -----------------------------------------------------------------------------------------


async def test_an_answer_in_text_has_no_sound_and_no_frames() -> None:
    """The Realtime API's events for text, in its order, for a client that gets frames too."""
    async with holding() as held:
        knows_avatars(held)
        response = respond(held, "text")
        await response.text("Good ")
        await response.audio(tone(1, 440))
        await response.text("day.")
        await response.words([Word("Good", 0, 0.3, estimated=False)])
        await response.done()
        done = (await held.line.until("response.done"))["response"]
        assert about(held.line, response) == [
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
        ]
        assert held.line.of("response.content_part.added")[0]["part"] == {
            "type": "text",
            "text": "",
        }
        assert held.line.of("response.output_text.done")[0]["text"] == "Good day."
        assert done["output"][0]["content"] == [{"type": "output_text", "text": "Good day."}]
        assert (done["status"], done["output_modalities"]) == ("completed", ["text"])
        assert held.face.streams == [] and not held.access.speaking


async def test_an_answer_in_text_that_is_interrupted_keeps_what_was_sent() -> None:
    """There is no position in a text: all that was sent counts, and it cannot be truncated."""
    async with holding() as held:
        response = respond(held, "text")
        await response.text("Once upon a ")
        held.line.say("conversation.item.retrieve", item_id=response.item_id)
        found = await held.line.until("conversation.item.retrieved")
        assert found["item"]["content"] == [{"type": "output_text", "text": "Once upon a "}]
        held.access.interrupt()
        await response.text("time")
        done = (await held.line.until("response.done"))["response"]
        assert done["status_details"]["reason"] == "turn_detected"
        assert done["output"][0]["content"] == [{"type": "output_text", "text": "Once upon a "}]
        assert done["output"][0]["status"] == "incomplete"
        held.line.say(
            "conversation.item.truncate", item_id=response.item_id, content_index=0, audio_end_ms=0
        )
        assert (await held.line.until("error"))["error"]["param"] == "item_id"


@pytest.mark.parametrize("modality", ["audio", "text"])
async def test_an_answer_that_the_model_cut_short_says_why(modality: str) -> None:
    """The limit of tokens: the response and its message are incomplete, and what is there stays."""
    async with holding() as held:
        response = respond(held, modality)
        await response.text("Half of it")
        await response.audio(tone(0.5, 440))
        await response.done(incomplete="max_output_tokens")
        done = (await held.line.until("response.done"))["response"]
        assert (done["status"], done["status_details"]["reason"]) == (
            "incomplete",
            "max_output_tokens",
        )
        (item,) = done["output"]
        part = item["content"][0]
        assert item["status"] == "incomplete"
        assert part.get("transcript", part.get("text")) == "Half of it"


async def test_an_answer_with_nothing_in_it_completes_without_items() -> None:
    """A model may say nothing: the response ends, and the conversation stays as it was."""
    async with holding() as held:
        knows_avatars(held)
        response = respond(held)
        await response.done()
        done = (await held.line.until("response.done"))["response"]
        assert (done["status"], done["output"]) == ("completed", [])
        assert len(held.access.conversation) == 0
        assert "session.avatar.switch_to_idle" not in held.line.kinds()


async def test_mirror_and_parrot_refuse_text_and_other_modes_take_it() -> None:
    """A session may ask for text once its mode has a language model, and only then."""
    async with holding() as held:
        text = {"output_modalities": ["text"]}
        held.line.say("session.update", session=text)
        assert (await held.line.until("error"))["error"]["code"] == "unsupported_value"
        held.line.say("session.update", session={**text, "avatar": {"mode": "chat"}})
        updated = await held.line.until("session.updated")
        assert updated["session"]["output_modalities"] == ["text"]
        assert held.dialogues.made[-1][1].config.modality == "text"
        held.line.say("session.update", session={"avatar": {"mode": "mirror"}})
        assert (await held.line.until("error", 2))["error"]["code"] == "unsupported_value"


# -- calls of functions ---------------------------------------------------------------------------


async def test_a_call_alone_has_the_realtime_apis_events() -> None:
    """No message is begun; the call is an item of the conversation, with all of its arguments."""
    async with holding() as held:
        response = respond(held)
        await response.arguments("call_7", "weather", '{"city"')
        await response.arguments("call_7", "weather", ': "Oslo"}')
        await response.done()
        done = (await held.line.until("response.done"))["response"]
        assert about(held.line, response) == [
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            f"{ARGUMENTS}.delta",
            f"{ARGUMENTS}.delta",
            f"{ARGUMENTS}.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
        ]
        added = held.line.of("response.output_item.added")[0]
        assert (added["item"]["status"], added["item"]["arguments"]) == ("in_progress", "")
        ended = held.line.of(f"{ARGUMENTS}.done")[0]
        assert (ended["call_id"], ended["name"]) == ("call_7", "weather")
        (item,) = done["output"]
        assert item["arguments"] == ended["arguments"] == '{"city": "Oslo"}'
        assert (item["type"], item["status"], item["call_id"]) == (
            "function_call",
            "completed",
            "call_7",
        )
        (entry,) = held.access.conversation
        assert isinstance(entry.item, FunctionCall)
        assert entry.item.arguments == '{"city": "Oslo"}'


async def test_speech_and_two_calls_have_their_own_places() -> None:
    """Each event names its output by index; a call ends where the next one begins."""
    async with holding() as held:
        response = respond(held)
        await response.text("Let me look. ")
        await response.audio(tone(0.5, 440))
        await response.arguments("a", "first", "{}")
        await response.arguments("b", "second", "{}")
        await response.text("One moment.")
        await response.audio(tone(0.5, 440))
        await response.done()
        done = (await held.line.until("response.done"))["response"]
        assert [item["type"] for item in done["output"]] == [
            "message",
            "function_call",
            "function_call",
        ]
        assert done["output"][0]["content"][0]["transcript"] == "Let me look. One moment."
        assert [one["output_index"] for one in held.line.of(f"{ARGUMENTS}.delta")] == [1, 2]
        for event in held.line.of("response.output_audio.delta"):
            assert event["output_index"] == 0
        for event in held.line.of("response.output_item.done"):
            assert done["output"][event["output_index"]] == event["item"]
        kinds = about(held.line, response)
        second = [i for i, kind in enumerate(kinds) if kind == "response.output_item.added"][2]
        assert kinds.index(f"{ARGUMENTS}.done") < second


async def test_speech_after_a_call_is_the_second_output() -> None:
    """The message's index is in its audio and its frames, too."""
    async with holding() as held:
        knows_avatars(held)
        response = respond(held)
        await response.arguments("a", "first", "{}")
        await response.text("Done.")
        await response.audio(tone(0.5, 440))
        await response.done()
        await held.line.until("response.done")
        for kind in ("response.output_audio.delta", "response.video.delta", "response.video.done"):
            assert {one["output_index"] for one in held.line.of(kind)} == {1}, kind


async def test_a_call_that_is_interrupted_is_incomplete() -> None:
    """Half of the arguments' JSON is not to be executed, and the item says so."""
    async with holding() as held:
        response = respond(held)
        await response.arguments("a", "first", '{"x": ')
        held.line.say("response.cancel")
        done = (await held.line.until("response.done"))["response"]
        assert done["status"] == "cancelled"
        assert done["output"][0]["status"] == "incomplete"
        assert done["output"][0]["arguments"] == '{"x": '


async def test_a_call_that_the_client_deletes_is_not_brought_back() -> None:
    """Its events go on, as do those of the response; the conversation stays without it."""
    async with holding() as held:
        response = respond(held)
        await response.arguments("a", "first", "{}")
        item_id = (await held.line.until("conversation.item.added"))["item"]["id"]
        held.line.say("conversation.item.delete", item_id=item_id)
        await held.line.until("conversation.item.deleted")
        await response.done()
        await held.line.until("response.done")
        assert not held.line.of("conversation.item.done")
        assert len(held.access.conversation) == 0


async def test_calls_outside_the_conversation_leave_it_alone() -> None:
    """``conversation: none``: the outputs are sent and not kept."""
    async with holding() as held:
        response = respond(held, in_conversation=False)
        await response.arguments("a", "first", "{}")
        await response.done()
        done = (await held.line.until("response.done"))["response"]
        assert len(done["output"]) == 1 and done["conversation_id"] is None
        assert not held.line.of("conversation.item.added")


async def test_endless_arguments_are_bounded() -> None:
    """A model that never stops writing arguments does not fill the server's memory."""
    async with holding() as held:
        response = respond(held)
        for _ in range(25):
            await response.arguments("a", "first", "x" * 10_000)
        await response.done()
        done = (await held.line.until("response.done"))["response"]
        assert len(done["output"][0]["arguments"]) == MAX_ARGUMENTS_CHARS


async def test_the_result_of_a_call_joins_the_conversation_for_the_next_response() -> None:
    """function_call_output goes in; the dialogue finds both, in order, when it answers."""
    async with holding() as held:
        held.line.say("avatar.speak", text='call now {"zone": "UTC"}')
        done = (await held.line.until("response.done"))["response"]
        call = done["output"][0]
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "12:00"}
        held.line.say("conversation.item.create", item=output)
        await held.line.until("conversation.item.done", 2)
        assert [entry.item.type for entry in held.access.conversation] == [
            "function_call",
            "function_call_output",
        ]
        held.line.say("response.create")
        await held.line.until("response.done", 2)


# -- the times of words ---------------------------------------------------------------------------


async def test_times_of_words_are_for_clients_that_know_avatars() -> None:
    """Azure Voice Live's names; a stock client gets none of them."""
    words = [Word("one", 0.1, 0.25, estimated=False), Word("two", 0.4, 0.2, estimated=True)]
    async with holding() as held:
        for knows in (False, True):
            if knows:
                knows_avatars(held)
            response = respond(held)
            await response.text("one two")
            await response.words(words)
            await response.audio(tone(1, 440))
            await response.done()
            await held.line.until("response.done", 1 + knows)
            assert len(held.line.of("response.audio_timestamp.delta")) == 2 * knows
        first = held.line.of("response.audio_timestamp.delta")[0]
        assert {key: first[key] for key in first if key != "event_id"} == {
            "type": "response.audio_timestamp.delta",
            "response_id": response.id,
            "item_id": response.item_id,
            "output_index": 0,
            "content_index": 0,
            "audio_offset_ms": 100,
            "audio_duration_ms": 250,
            "text": "one",
            "timestamp_type": "word",
            "estimated": False,
        }
        kinds = about(held.line, response)
        done = kinds.index("response.audio_timestamp.done")
        assert kinds.index("response.output_audio.done") < done
        assert done < kinds.index("response.content_part.done")


async def test_an_interruption_keeps_the_words_whose_end_was_heard() -> None:
    """By the voice's own times: a long pause before "three" is not counted as words."""
    async with holding(face=FakeRenderer(held=True)) as held:
        knows_avatars(held)
        response = respond(held)
        await response.text("One, two -- three four.")
        times = [("One", 0.1, 0.2), ("two", 0.4, 0.2), ("three", 3.0, 0.3), ("four", 3.4, 0.3)]
        await response.words([Word(*one, estimated=False) for one in times])
        await response.audio(tone(4, 440))
        report = {"frames_shown": 0, "frames_late": 0}
        held.line.say("avatar.playback", response_id=response.id, position_ms=2900, **report)
        await held.line.caught_up()
        held.access.interrupt()
        done = (await held.line.until("response.done"))["response"]
        assert done["output"][0]["content"][0]["transcript"] == "One, two"


def test_words_are_found_in_the_text_as_it_is_written() -> None:
    """Punctuation, case, blanks and words that are said otherwise do not lose the place."""
    transcript = Transcript()
    transcript.add("Dr. Smith paid $5,000 on ")
    transcript.add("Monday!")
    said = ["doctor", "smith", "paid", "five", "thousand", "dollars", "on", "Monday"]
    transcript.timed([Word(word, i, 0.9, estimated=False) for i, word in enumerate(said)])
    transcript.spoken(8.0)
    assert transcript.until(1.0) == ""
    assert transcript.until(2.0) == "Dr. Smith"
    assert transcript.until(6.0) == "Dr. Smith paid"
    assert transcript.until(6.95) == "Dr. Smith paid $5,000 on"
    assert transcript.until(8.0) == "Dr. Smith paid $5,000 on Monday!"


def test_words_of_scripts_without_blanks_are_found() -> None:
    """A voice times 你好 as one word; the text has two characters."""
    transcript = Transcript()
    transcript.add("你好，世界。再见。")
    words = [("你好", 0.0), ("世界", 1.0), ("再见", 2.0)]
    transcript.timed([Word(word, start, 0.8, estimated=False) for word, start in words])
    transcript.spoken(3.0)
    transcript.finish()
    assert transcript.until(1.85) == "你好，世界"


def test_estimated_times_do_not_change_what_was_heard() -> None:
    """They are made of the text's length, as the transcript's own are."""
    plain, estimated = Transcript(), Transcript()
    for one in (plain, estimated):
        one.add("a few short words")
        one.spoken(2.0)
        one.finish()
    estimated.timed([Word("a", 1.9, 0.05, estimated=True)])
    assert [one.until(1.0) for one in (plain, estimated)] == [plain.until(1.0)] * 2
    assert plain.until(1.0)


async def test_a_text_in_small_pieces_is_cut_by_the_word() -> None:
    """A model writes letter by letter; the words that were heard are as of a whole text."""
    async with holding() as held:
        response = respond(held)
        for letter in "one two three four":
            await response.text(letter)
        await response.audio(tone(4, 440))
        held.clock.now_s += PREROLL_S + 2
        report = {"frames_shown": 0, "frames_late": 0}
        held.line.say("avatar.playback", response_id=response.id, position_ms=2000, **report)
        await held.line.caught_up()
        held.access.interrupt()
        done = (await held.line.until("response.done"))["response"]
        assert done["output"][0]["content"][0]["transcript"] == "one two"
