"""One order of events: what a client sent first is done first, and a cancel revokes what waits."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from tests.fake_dialogue import ToneDialogue
from tests.fake_renderer import FakeRenderer
from tests.session.held import Held, holding


def dialogue(held: Held) -> ToneDialogue:
    return held.dialogues.made[-1][1]


def user_text(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


async def test_a_cancel_revokes_the_request_before_it() -> None:
    """response.create, then response.cancel: the response is created, and cancelled at once."""
    async with holding() as held:
        held.line.say("response.create", response={"metadata": {"ask": "1"}})
        held.line.say("response.cancel")
        held.line.say("avatar.speak", text="440 1")
        held.line.say("response.cancel")
        await held.line.until("response.done", 2)
        await held.line.caught_up()
        created = [one["response"] for one in held.line.of("response.created")]
        done = [one["response"] for one in held.line.of("response.done")]
        assert [one["id"] for one in created] == [one["id"] for one in done]
        assert [one["status"] for one in done] == ["cancelled"] * 2
        assert {one["status_details"]["reason"] for one in done} == {"client_cancelled"}
        assert done[0]["metadata"] == {"ask": "1"}
        assert held.line.of("error") == [] and not held.line.of("response.output_audio.delta")


async def test_a_cancel_does_not_wait_behind_what_it_cancels() -> None:
    """Audio that waits for a slow response lets the cancel through, and then goes on."""
    async with holding(face=FakeRenderer(held=True)) as held:
        held.line.say("avatar.speak", text="440 60")  # waits for the client after 10 s
        await held.line.until("response.output_audio.delta", 21)
        held.line.say("conversation.item.create", item=user_text("later"))
        held.line.say("response.cancel")
        assert (await held.line.until("response.done"))["response"]["status"] == "cancelled"
        await held.line.until("conversation.item.added", 2)


async def test_requests_and_items_are_taken_in_the_order_they_came() -> None:
    """A response answers the items before it, not those behind it."""
    async with holding() as held:
        held.line.say("conversation.item.create", item=user_text("523 1"))
        held.line.say("response.create")
        held.line.say("conversation.item.create", item=user_text("660 1"))
        await held.line.until("response.done")
        said = held.line.of("response.output_audio_transcript.done")[0]["transcript"]
        assert said == "523 1"


async def test_the_active_response_is_known_when_a_request_has_its_turn() -> None:
    """Two requests at once: the second is refused while the first is in progress."""
    async with holding() as held:
        held.line.say("conversation.item.create", item=user_text("hum 300"))
        held.line.say("response.create")
        held.line.say("response.create", event_id="second")
        error = (await held.line.until("error"))["error"]
        assert error["code"] == "conversation_already_has_active_response"
        assert error["event_id"] == "second"
        assert len(held.line.of("response.created")) == 1


async def test_clear_reaches_the_dialogue_in_its_place() -> None:
    """What was heard before a clear is forgotten, what comes after it is heard."""
    async with holding() as held:
        held.line.inbox.put_nowait(bytes(480))
        held.line.say("input_audio_buffer.clear")
        held.line.inbox.put_nowait(bytes(960))
        await held.line.caught_up()
        assert dialogue(held).calls == ["heard", "cleared", "heard", "cleared"]


async def test_a_change_of_voice_or_turns_keeps_the_dialogue() -> None:
    """Only another mode begins a new dialogue; the conversation outlives even that."""
    async with holding() as held:
        held.line.say("conversation.item.create", item=user_text("440 1"))
        voice = {"audio": {"output": {"voice": "de-DE-KatjaNeural"}}}
        held.line.say("session.update", session=voice)
        await held.line.until("session.updated")
        assert [mode for mode, _ in held.dialogues.made] == ["parrot"]
        assert dialogue(held).config.voice == "de-DE-KatjaNeural"
        held.line.say("session.update", session={"avatar": {"mode": "mirror"}})
        held.line.say("response.create")
        await held.line.until("response.done")
        assert [mode for mode, _ in held.dialogues.made] == ["parrot", "mirror"]
        said = held.line.of("response.output_audio_transcript.done")[0]["transcript"]
        assert said == "440 1"


async def test_a_setting_repeated_changes_nothing() -> None:
    """The present value again, or an empty voice for the default, interrupts nothing."""
    async with holding(face=FakeRenderer(held=True), tts={"voice": "de"}) as held:
        held.line.say("avatar.speak", text="hum 300")
        await held.line.until("response.output_audio.delta", 2)
        for voice in ("de", ""):
            held.line.say("session.update", session={"audio": {"output": {"voice": voice}}})
        detection = held.line.of("session.created")[0]["session"]["audio"]["input"]
        same = {"audio": {"input": {"turn_detection": detection["turn_detection"]}}}
        held.line.say("session.update", session=same)
        held.line.say("session.update", session={"avatar": {"mode": "parrot", "id": "ada"}})
        updated = await held.line.until("session.updated", 4)
        assert updated["session"]["audio"]["output"]["voice"] == "de"
        assert dialogue(held).calls == ["speak"] and len(held.dialogues.made) == 1
        assert held.access.speaking and not held.line.of("response.done")


async def test_a_binary_stream_may_be_cut_anywhere() -> None:
    """Messages of odd length lose nothing: half a sample waits for the next message."""
    samples = np.arange(-500, 500, dtype="<i2")
    async with holding() as held:
        held.line.say("session.update", session={"audio": {"input": {"turn_detection": None}}})
        data = samples.tobytes() + bytes(4800)
        for start in range(0, len(data), 333):
            held.line.inbox.put_nowait(data[start : start + 333])
        held.line.say("input_audio_buffer.commit")
        item = (await held.line.until("input_audio_buffer.committed"))["item_id"]
        audio = held.access.conversation.get(item).audio
        assert audio is not None and held.line.of("error") == []
        np.testing.assert_array_equal(audio.samples[:1000] * 32768, samples)


async def test_half_a_sample_is_forgotten_at_a_clear_a_commit_and_a_new_format() -> None:
    """After each of them the stream begins at a whole sample."""
    speech = bytes(range(1, 241)) * 20
    async with holding() as held:
        held.line.say("session.update", session={"audio": {"input": {"turn_detection": None}}})
        form = {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16_000}}}}
        for number, between in enumerate(
            (
                ("input_audio_buffer.clear", {}),
                ("input_audio_buffer.commit", {}),
                ("session.update", {"session": form}),
            )
        ):
            held.line.inbox.put_nowait(speech + b"\7")
            held.line.say(between[0], **between[1])
            if between[0] == "session.update":
                held.line.say("input_audio_buffer.clear")
            held.line.inbox.put_nowait(speech)
            held.line.say("input_audio_buffer.commit")
            await held.line.until("input_audio_buffer.committed", number + 1 + (number > 0))
            await held.line.caught_up()
            newest = held.access.conversation.last_user_entry()
            assert newest is not None and newest.audio is not None
            first = int(newest.audio.samples[0] * 32768)
            assert first == int.from_bytes(speech[:2], "little")


async def test_audio_before_a_format_change_is_read_in_the_old_format() -> None:
    """µ-law bytes are never read as PCM: what waits keeps the format it was sent in."""
    async with holding() as held:
        held.line.say("session.update", session={"audio": {"input": {"turn_detection": None}}})
        held.line.inbox.put_nowait(bytes(2 * 2400))
        form = {"audio": {"input": {"format": {"type": "audio/pcmu"}}}}
        held.line.say("session.update", session=form)
        held.line.inbox.put_nowait(b"\xff" * 801)
        held.line.say("input_audio_buffer.commit")
        item = (await held.line.until("input_audio_buffer.committed"))["item_id"]
        audio = held.access.conversation.get(item).audio
        assert audio is not None
        assert (audio.rate, len(audio.samples)) == (8000, 800 + 801)
        assert not np.any(audio.samples)


async def test_the_timeline_of_speech_counts_on_through_changes() -> None:
    """heard_ms counts all audio of the session, whatever the format and the mode were."""
    async with holding() as held:
        held.line.inbox.put_nowait(bytes(2 * 24_000))
        form = {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16_000}}}}
        held.line.say("session.update", session=form)
        held.line.inbox.put_nowait(bytes(2 * 8000))
        held.line.say("session.update", session={"avatar": {"mode": "mirror"}})
        await held.line.until("session.updated", 2)
        await asyncio.sleep(0)
        assert held.access.heard_ms == 1500


async def test_a_refused_stretch_does_not_shift_the_samples_behind_it() -> None:
    """A stream cut at odd bytes, a message of it refused: what follows is read at whole samples."""
    samples = np.arange(1, 4001, dtype="<i2")
    data = samples.tobytes()
    async with holding(audio={"max_buffer_s": 2}) as held:
        off = {"audio": {"input": {"turn_detection": None}}}
        held.line.say("session.update", session=off)
        held.line.inbox.put_nowait(data[:1001])
        wrong = {"audio": {"input": {"format": {"type": "audio/opus"}}}}
        held.line.say("session.update", session=wrong)
        held.line.inbox.put_nowait(data[1001:2000])
        held.line.inbox.put_nowait(data[2000:3001])
        held.line.say("session.update", session=off)
        held.line.inbox.put_nowait(data[3001:])
        held.line.inbox.put_nowait(bytes(4800))
        held.line.say("input_audio_buffer.commit")
        item = (await held.line.until("input_audio_buffer.committed"))["item_id"]
        audio = held.access.conversation.get(item).audio
        assert audio is not None
        got = np.rint(audio.samples[: 500 + 2499] * 32768).astype(int)
        np.testing.assert_array_equal(got, [*samples[:500], *samples[1501:]])


async def test_a_change_of_mode_ends_the_turn_in_progress() -> None:
    """Every speech_started has its speech_stopped, and the response was cancelled by the client."""
    async with holding() as held:
        held.line.say("avatar.speak", text="hum 300")
        await held.line.until("response.output_audio.delta")
        held.line.say("session.update", session={"avatar": {"mode": "mirror"}})
        done = (await held.line.until("response.done"))["response"]
        assert done["status_details"]["reason"] == "client_cancelled"


async def test_an_announced_id_that_the_client_uses_costs_no_turn() -> None:
    """The turn is committed under another id."""
    async with holding() as held:
        held.access.speech_started(0)
        announced = (await held.line.until("input_audio_buffer.speech_started"))["item_id"]
        held.line.say("conversation.item.create", item={**user_text("mine"), "id": announced})
        await held.line.until("conversation.item.added")
        item = held.access.commit(None)
        assert item != announced and len(held.access.conversation) == 2
