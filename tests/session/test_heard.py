"""What was said and what was heard: statuses, reasons and texts tell the truth."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.fake_dialogue import tone
from tests.fake_renderer import FakeRenderer
from tests.session.held import Held, Line, holding, reading_nothing
from wsavatar.session.timeline import PREROLL_S
from wsavatar.session.transcript import MAX_CHARS, Transcript

TEXT = "440 4 one two three four five six seven eight"
"""Said as 4 s of sound."""


def report(line: Line, response: dict[str, Any], position_ms: float) -> None:
    line.say(
        "avatar.playback",
        response_id=response["id"],
        position_ms=position_ms,
        frames_shown=0,
        frames_late=0,
    )


async def reporting(held: Held) -> None:
    """The client has reported a response once, so the session knows that it does."""
    held.line.say("avatar.speak", text="440 0.2")
    done = await held.line.until("response.done")
    report(held.line, done["response"], 200)
    held.clock.now_s += 2
    await held.line.caught_up()


async def test_an_item_is_in_progress_until_its_response_is_done() -> None:
    """No item is completed while its response still sends: the end of synthesis is not the end."""
    async with holding(face=FakeRenderer(held=True)) as held:
        line = held.line
        line.say("avatar.speak", text="440 2")
        await line.until("response.output_audio_transcript.done")
        assert not line.of("response.output_item.done") and not line.of("conversation.item.done")
        held.face.streams[0].render()
        done = (await line.until("response.done"))["response"]
        assert line.of("conversation.item.done")[0]["item"]["status"] == "completed"
        assert done["output"][0]["status"] == done["status"] == "completed"


async def test_where_the_client_reports_a_response_is_done_once_it_was_heard() -> None:
    """Sent is not heard: 4 s of speech complete when the client has played 4 s."""
    async with holding() as held:
        await reporting(held)
        held.line.say("avatar.speak", text=TEXT)
        response = (await held.line.until("response.created", 2))["response"]
        await held.line.until("response.video.done", 2)
        report(held.line, response, 3900)
        await held.line.caught_up()
        assert len(held.line.of("response.done")) == 1
        assert held.access.speaking
        report(held.line, response, 4000)
        done = (await held.line.until("response.done", 2))["response"]
        assert done["status"] == done["output"][0]["status"] == "completed"
        assert done["output"][0]["content"][0]["transcript"] == TEXT


async def test_a_client_that_stops_reporting_hears_on_by_the_clock() -> None:
    """The end of a response does not hang on the client's last report."""
    async with holding() as held:
        await reporting(held)
        held.line.say("avatar.speak", text="440 0.3")
        response = (await held.line.until("response.created", 2))["response"]
        await held.line.until("response.video.done", 2)
        report(held.line, response, 250)
        await held.line.caught_up()
        held.clock.now_s += 0.1
        await held.line.until("response.done", 2)


async def test_an_interruption_keeps_what_was_heard_and_says_so() -> None:
    """User speech: cancelled by turn_detected, the item incomplete, with the words heard so far."""
    async with holding() as held:
        await reporting(held)
        held.line.say("avatar.speak", text=TEXT)
        response = (await held.line.until("response.created", 2))["response"]
        await held.line.until("response.video.done", 2)
        report(held.line, response, 2000)
        await held.line.caught_up()
        held.access.interrupt()
        done = (await held.line.until("response.done", 2))["response"]
        assert done["status"] == "cancelled"
        assert done["status_details"]["reason"] == "turn_detected"
        item = done["output"][0]
        assert item["status"] == "incomplete"
        assert item["content"][0]["transcript"] == "440 4 one two three"
        held.line.say("conversation.item.retrieve", item_id=item["id"])
        kept = (await held.line.until("conversation.item.retrieved"))["item"]
        assert kept == item


async def test_frames_are_done_once_also_where_their_sound_is_interrupted() -> None:
    """All frames were sent, then the sound is cut: there is one response.video.done."""
    async with holding() as held:
        await reporting(held)
        held.line.say("avatar.speak", text=TEXT)
        response = (await held.line.until("response.created", 2))["response"]
        await held.line.until("response.video.done", 2)
        report(held.line, response, 2000)
        await held.line.caught_up()
        held.access.interrupt()
        await held.line.until("response.done", 2)
        done = held.line.of("response.video.done")
        assert [one["response_id"] for one in done].count(response["id"]) == 1


async def test_a_response_that_is_done_is_truncated_where_speech_stops_it() -> None:
    """A client whose first report comes after response.done is told what counts as heard."""
    async with holding() as held:
        held.line.say("avatar.speak", text=TEXT)
        response = (await held.line.until("response.done"))["response"]
        assert response["status"] == "completed"
        report(held.line, response, 1000)
        await held.line.caught_up()
        held.access.interrupt()
        cut = await held.line.until("conversation.item.truncated")
        assert (cut["item_id"], cut["audio_end_ms"]) == (response["output"][0]["id"], 1000)
        assert not held.access.speaking
        held.line.say("conversation.item.retrieve", item_id=cut["item_id"])
        kept = (await held.line.until("conversation.item.retrieved"))["item"]
        assert kept["status"] == "incomplete"
        assert kept["content"][0]["transcript"] == "440 4 one"


async def test_without_reports_what_was_sent_counts() -> None:
    """Of a client that does not report, a cancelled item keeps the text of the audio it got."""
    async with holding() as held:
        held.line.say("avatar.speak", text="hum 300")
        await held.line.until("response.output_audio.delta", 2)
        held.line.say("response.cancel")
        done = (await held.line.until("response.done"))["response"]
        assert done["status_details"]["reason"] == "client_cancelled"
        assert done["output"][0]["status"] == "incomplete"


async def test_a_replaced_response_was_not_interrupted_by_anyone() -> None:
    """Nobody spoke: a response that another replaces is cancelled without turn_detected."""
    async with holding() as held:
        held.line.say("avatar.speak", text="hum 300")
        held.line.say("avatar.speak", text="440 1")
        await held.line.until("response.done", 2)
        first = held.line.of("response.done")[0]["response"]
        assert first["status"] == "cancelled"
        assert first["status_details"]["reason"] is None


async def test_an_item_may_be_truncated_while_it_is_spoken() -> None:
    """What was sent so far is a fair place to cut; nothing later brings the rest back."""
    async with holding(face=FakeRenderer(held=True)) as held:
        line = held.line
        line.say("avatar.speak", text=TEXT)
        added = await line.until("response.output_item.added")
        await line.until("response.output_audio.delta", 8)
        cut = {"item_id": added["item"]["id"], "content_index": 0}
        line.say("conversation.item.truncate", **cut, audio_end_ms=500)
        assert (await line.until("conversation.item.truncated"))["audio_end_ms"] == 500
        line.say("conversation.item.truncate", **cut, audio_end_ms=2000)
        assert (await line.until("conversation.item.truncated", 2))["audio_end_ms"] == 500
        line.say("conversation.item.truncate", **cut, audio_end_ms=9000)
        assert "4000 ms so far" in (await line.until("error"))["error"]["message"]
        held.face.streams[0].render()
        await line.until("response.done")
        line.say("conversation.item.retrieve", item_id=cut["item_id"])
        kept = (await line.until("conversation.item.retrieved"))["item"]
        assert kept["status"] == "incomplete"
        assert kept["content"][0]["transcript"] == "440 4"


async def test_idle_goes_on_from_what_was_shown() -> None:
    """After an interruption the cycle continues the last frame that the client showed."""
    async with holding() as held:
        await reporting(held)
        held.line.say("avatar.speak", text=TEXT)
        speaking = await held.line.until("session.avatar.switch_to_speaking", 2)
        response = held.line.of("response.created")[1]["response"]
        report(held.line, response, 400)
        await held.line.caught_up()
        held.access.interrupt()
        await held.line.until("response.done", 2)
        idle = held.line.of("session.avatar.switch_to_idle")[-1]
        assert idle["cycle_index"] == (speaking["cycle_index"] + 10) % 14
        assert int(PREROLL_S * 25) > 0


def test_a_transcript_knows_what_is_said_where() -> None:
    """Whole pieces up to their end, then the words of the piece being spoken, and never more."""
    said = Transcript()
    said.add("Hello there. ")
    said.spoken(1.0)
    said.add("How are you today? ")
    said.spoken(2.0)
    assert said.until(0) == ""
    assert said.until(0.6) == "Hello"
    assert said.until(1.0) == "Hello there."
    assert said.until(2.0) == "Hello there. How are"
    assert said.until(99) == "Hello there. How are you today?"
    said.add("Not heard yet.")
    assert said.until(99) == "Hello there. How are you today?"
    assert said.text == "Hello there. How are you today? Not heard yet."


def test_a_transcript_is_bounded() -> None:
    """What does not fit is dropped, and the caller is told what was kept."""
    said = Transcript()
    assert len(said.add("x" * (MAX_CHARS - 1))) == MAX_CHARS - 1
    assert said.add("yz") == "y"
    assert said.add("z") == ""


@pytest.mark.parametrize("cut", [0.1, 0.7, 3.3])
def test_heard_text_never_shrinks_as_the_position_grows(cut: float) -> None:
    """Later positions begin with what earlier ones gave."""
    said = Transcript()
    for word in ("one ", "two three ", "four "):
        said.add(word)
        said.spoken(len(tone(cut, 100)) / 24_000)
    texts = [said.until(step * cut / 5) for step in range(20)]
    assert all(b.startswith(a) for a, b in zip(texts, texts[1:], strict=False))


async def test_what_a_slow_client_did_not_get_was_not_heard() -> None:
    """Audio that is discarded before the socket takes it counts for nothing."""
    line = Line(reads=False)
    async with reading_nothing(line) as held:
        line.say("avatar.speak", text=TEXT)
        for _ in range(2000):  # until the response waits in the outbox
            if held.session.outbox.message_bytes > 4 * 48_000:
                break
            await asyncio.sleep(0.001)
        assert held.session.outbox.message_bytes > 4 * 48_000
        line.say("response.cancel")
        line.reads = True
        line.read.set()
        done = (await line.until("response.done"))["response"]
        assert done["output"][0]["content"][0]["transcript"] == ""
        cut = {"item_id": done["output"][0]["id"], "content_index": 0}
        line.say("conversation.item.truncate", **cut, audio_end_ms=2000)
        assert (await line.until("error"))["error"]["param"] == "audio_end_ms"


async def test_the_end_of_the_frames_is_the_first_that_does_not_come() -> None:
    """switch_to_idle after a cancel names the frame behind the last one sent."""
    async with holding(face=FakeRenderer(held=True)) as held:
        held.line.say("avatar.speak", text=TEXT)
        await held.line.until("response.output_audio.delta", 8)
        held.face.streams[0].render(10)
        await held.line.until("response.video.delta", 10)
        held.line.say("response.cancel")
        await held.line.until("response.done")
        assert held.line.of("session.avatar.switch_to_idle")[0]["frame_index"] == 10


async def test_an_item_made_anew_is_left_alone() -> None:
    """Deleted while it is spoken, its id taken by a user item: that item is the client's."""
    async with holding(face=FakeRenderer(held=True)) as held:
        held.line.say("avatar.speak", text=TEXT)
        item = (await held.line.until("conversation.item.added"))["item"]["id"]
        held.line.say("conversation.item.delete", item_id=item)
        content = [{"type": "input_text", "text": "mine"}]
        mine = {"type": "message", "role": "user", "id": item, "content": content}
        held.line.say("conversation.item.create", item=mine)
        await held.line.until("conversation.item.done")
        held.face.streams[0].render()
        await held.line.until("response.done")
        assert len(held.line.of("conversation.item.done")) == 1
        held.line.say("conversation.item.retrieve", item_id=item)
        assert (await held.line.until("conversation.item.retrieved"))["item"]["role"] == "user"


async def test_an_item_being_spoken_can_be_looked_at() -> None:
    """Retrieved in the middle it has the text so far, and is in progress."""
    async with holding() as held:
        held.line.say("avatar.speak", text="hum 300")
        item = (await held.line.until("conversation.item.added"))["item"]["id"]
        await held.line.until("response.output_audio.delta")
        held.line.say("conversation.item.retrieve", item_id=item)
        found = (await held.line.until("conversation.item.retrieved"))["item"]
        assert found["status"] == "in_progress" and len(found["content"]) == 1


async def test_of_a_text_that_is_still_made_only_what_was_sent_counts() -> None:
    """A phrase of which a second came is not heard to its end, however long its audio will be."""
    said = Transcript()
    said.add("x" * 9 + " " + "y" * 20 + " " + "z" * 60)
    said.spoken(1.0)
    assert said.until(1.0) == "x" * 9
    said.finish()
    assert said.until(1.0).endswith("z")


async def test_a_response_that_fails_on_its_way_delivers_what_was_said() -> None:
    """The voice fails after two seconds: they are heard whole, then the response has failed."""
    async with holding(face=FakeRenderer(held=True)) as held:
        response = held.access.respond()
        held.session._use_extension()
        await response.text("Two seconds")
        await response.audio(tone(2, 300))
        await response.fail("tts_failed", "the voice is gone")
        await response.audio(tone(2, 300))
        if held.face.streams:
            held.face.streams[0].render()
        done = (await held.line.until("response.done"))["response"]
        assert done["status"] == "failed"
        assert done["status_details"]["error"]["code"] == "tts_failed"
        item = done["output"][0]
        assert item["status"] == "incomplete"
        assert item["content"][0]["transcript"] == "Two seconds"
        sent = held.metrics.snapshot()["audio"]["out_s"]
        assert sent == 2.0


async def test_what_was_heard_cannot_be_unheard() -> None:
    """A report that goes back moves the position, not the text that was heard."""
    async with holding() as held:
        await reporting(held)
        held.line.say("avatar.speak", text=TEXT)
        response = (await held.line.until("response.created", 2))["response"]
        await held.line.until("response.video.done", 2)
        report(held.line, response, 2000)
        report(held.line, response, 0)
        await held.line.caught_up()
        held.access.interrupt()
        done = (await held.line.until("response.done", 2))["response"]
        assert done["output"][0]["content"][0]["transcript"] == "440 4 one two three"


async def test_a_cut_item_has_only_the_words_that_were_sent() -> None:
    """A long phrase of which one second was made: the item does not claim all of it."""
    async with holding() as held:
        response = held.access.respond()
        await response.text("one two three four five six seven eight nine ten eleven twelve ")
        await response.audio(tone(1, 300))
        await held.line.until("response.output_audio.delta", 2)
        held.line.say("response.cancel")
        done = (await held.line.until("response.done"))["response"]
        assert done["output"][0]["content"][0]["transcript"] == "one two three"


def test_words_end_where_another_recording_begins() -> None:
    """Audio without words behind a text: the text is heard once its own audio was."""
    said = Transcript()
    said.add("")
    said.add("One two three.")
    said.spoken(1.0)
    said.add("")
    said.spoken(10.0)
    assert said.until(1.5) == "One two three."
    assert said.until(0.5) == "One two"


def test_a_text_without_blanks_is_cut_between_its_characters() -> None:
    """Chinese and Japanese have no blanks between words: each character counts."""
    said = Transcript()
    said.add("今天天气很好")
    said.spoken(1.2)
    said.finish()
    assert said.until(0.6) == "今天天"
