"""What the upstream says reaches the client: same samples, same ids, its calls and its errors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.dialogue.upstream.scripted import Talk, noise, visiting
from tests.helpers import Client

TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


async def ask(client: Client, talk: Talk, number: int = 1) -> None:
    await client.send("response.create")
    await talk.until("response.create", number)


@pytest.mark.parametrize("encoding", ["json", "binary"])
async def test_the_sound_is_passed_through_sample_by_sample(encoding: str) -> None:
    """Every sample of the upstream's, none more, with frames for all of it."""
    pcm = noise(1.23)
    async with visiting() as (client, talk):
        await client.send("session.update", session={"avatar": {"video": {"encoding": encoding}}})
        await ask(client, talk)
        await talk.speak("resp_theirs", "item_theirs", "Noise.", pcm)
        done = await client.until("response.done")
        assert done["response"]["status"] == "completed"
        assert client.audio() == pcm
        assert len(client.frames()) == 31  # of 25 a second


async def test_ids_are_the_upstreams() -> None:
    """Those of the response, its items and its calls, in every event and in the conversation."""
    async with visiting() as (client, talk):
        await ask(client, talk)
        await talk.create("resp_theirs")
        await talk.add_message("resp_theirs", "item_said")
        await talk.delta("output_audio_transcript", "resp_theirs", "item_said", "One moment.")
        await talk.sound("resp_theirs", "item_said", noise(0.2))
        await talk.add_call("resp_theirs", "item_call", "call_7", "get_weather", 1)
        for part in ('{"city":', '"Oslo"}'):
            await talk.say(
                "response.function_call_arguments.delta",
                response_id="resp_theirs",
                item_id="item_call",
                output_index=1,
                call_id="call_7",
                delta=part,
            )
        await talk.done("resp_theirs")
        done = (await client.until("response.done"))["response"]
        assert done["id"] == "resp_theirs"
        said, call = done["output"]
        assert (said["id"], said["content"][0]["transcript"]) == ("item_said", "One moment.")
        assert (call["id"], call["call_id"], call["name"]) == ("item_call", "call_7", "get_weather")
        assert json.loads(call["arguments"]) == {"city": "Oslo"}
        responses = {event.get("response_id", "resp_theirs") for event in client.events()}
        assert responses == {"resp_theirs"}
        added = [one["item"]["id"] for one in client.events("conversation.item.added")]
        assert added == ["item_said", "item_call"]


async def test_a_call_is_answered_and_the_upstream_goes_on() -> None:
    """function_call_output reaches it with its call_id, before the next response.create."""
    async with visiting() as (client, talk):
        await ask(client, talk)
        await talk.create("resp_1")
        await talk.add_call("resp_1", "item_call", "call_7", "get_weather")
        await talk.say(  # an upstream without deltas
            "response.function_call_arguments.done",
            response_id="resp_1",
            item_id="item_call",
            output_index=0,
            call_id="call_7",
            name="get_weather",
            arguments='{"city":"Oslo"}',
        )
        await talk.done("resp_1")
        call = (await client.until("response.done"))["response"]["output"][0]
        assert call["arguments"] == '{"city":"Oslo"}'
        result = {
            "id": "item_result",
            "type": "function_call_output",
            "call_id": "call_7",
            "output": '{"degrees": 3}',
        }
        await client.send("conversation.item.create", item=result)
        await ask(client, talk, 2)
        assert talk.of("conversation.item.create")[0]["item"] == result
        order = [one["type"] for one in talk.got if one["type"] != "session.update"]
        assert order == ["response.create", "conversation.item.create", "response.create"]
        await talk.speak("resp_2", "item_said", "Three degrees.", noise(0.1))
        assert (await client.until("response.done"))["response"]["id"] == "resp_2"


async def test_a_response_in_text() -> None:
    """Text deltas go through, without sound or frames."""
    async with visiting() as (client, talk):
        await client.send("response.create", response={"output_modalities": ["text"]})
        asked = (await talk.until("response.create"))["response"]
        assert asked["output_modalities"] == ["text"]
        await talk.create("resp_1", output_modalities=["text"])
        await talk.add_message("resp_1", "item_1")
        for word in ("Good", " day."):
            await talk.delta("output_text", "resp_1", "item_1", word)
        await talk.done("resp_1")
        done = (await client.until("response.done"))["response"]
        assert done["output"][0]["content"] == [{"type": "output_text", "text": "Good day."}]
        deltas = [one["delta"] for one in client.events("response.output_text.delta")]
        assert deltas == ["Good", " day."]
        assert not client.audio() and not client.frames()


async def test_an_upstream_that_sends_whole_texts() -> None:
    """Without deltas, the transcript of the ``done`` event is taken."""
    async with visiting() as (client, talk):
        await ask(client, talk)
        await talk.create("resp_1")
        await talk.add_message("resp_1", "item_1")
        await talk.say(
            "response.output_audio_transcript.done",
            response_id="resp_1",
            item_id="item_1",
            output_index=0,
            content_index=0,
            transcript="Good day.",
        )
        await talk.sound("resp_1", "item_1", noise(0.1))
        await talk.done("resp_1")
        done = (await client.until("response.done"))["response"]
        assert done["output"][0]["content"][0]["transcript"] == "Good day."


async def test_everything_that_a_response_may_be_asked_reaches_the_upstream() -> None:
    """Instructions, input with references, tools, voice, limits; its audio's format is ours."""
    async with visiting() as (client, talk):
        content = [{"type": "input_text", "text": "hello"}]
        message = {"id": "said", "type": "message", "role": "user", "content": content}
        await client.send("conversation.item.create", item=message)
        asked = {
            "conversation": "none",
            "output_modalities": ["audio"],
            "instructions": "Be brief.",
            "input": [{"type": "item_reference", "id": "said"}, {**message, "id": "fresh"}],
            "tools": [TOOL],
            "tool_choice": {"type": "function", "name": "get_weather"},
            "max_output_tokens": 100,
            "metadata": {"topic": "greeting"},
        }
        output = {"voice": "marin", "format": {"type": "audio/pcmu"}}
        await client.send("response.create", response={**asked, "audio": {"output": output}})
        got = (await talk.until("response.create"))["response"]
        assert got == {**asked, "audio": {"output": {"voice": "marin"}}}
        await talk.speak("resp_1", "item_1", "Hi.", noise(0.5))
        done = (await client.until("response.done"))["response"]
        assert done["metadata"] == {"topic": "greeting"} and done["conversation_id"] is None
        assert done["audio"]["output"]["format"]["type"] == "audio/pcmu"
        assert len(client.audio()) == 4000


@pytest.mark.parametrize(
    ("status", "details", "expected"),
    [
        ("incomplete", {"reason": "max_output_tokens"}, "max_output_tokens"),
        ("incomplete", {"reason": "content_filter"}, "content_filter"),
        ("cancelled", {"reason": "turn_detected"}, "turn_detected"),
    ],
)
async def test_the_upstream_says_why_a_response_is_not_complete(
    status: str, details: dict[str, str], expected: str
) -> None:
    """Its status and its reason are the client's."""
    async with visiting() as (client, talk):
        await ask(client, talk)
        await talk.create("resp_1")
        await talk.add_message("resp_1", "item_1")
        await talk.sound("resp_1", "item_1", noise(0.1))
        await client.until("response.output_audio.delta")
        await talk.done("resp_1", status, **details)
        done = (await client.until("response.done"))["response"]
        assert (done["status"], done["status_details"]["reason"]) == (status, expected)


async def test_a_response_that_fails_upstream_fails_here_in_words() -> None:
    """What was said before is still heard."""
    pcm = noise(0.3)
    async with visiting() as (client, talk):
        await ask(client, talk)
        await talk.create("resp_1")
        await talk.add_message("resp_1", "item_1")
        await talk.sound("resp_1", "item_1", pcm)
        error = {"type": "tokens", "code": "rate_limit_exceeded", "message": "Try again in 9 s."}
        await talk.done("resp_1", "failed", error=error)
        done = (await client.until("response.done"))["response"]
        assert done["status"] == "failed" and client.audio() == pcm
        assert done["status_details"]["error"]["code"] == "rate_limit_exceeded"
        assert done["status_details"]["error"]["message"] == "Try again in 9 s."


async def test_a_request_that_the_upstream_refuses_is_the_clients_error() -> None:
    """With its code and words, and the id of the client's event; the next request is answered."""
    async with visiting() as (client, talk):
        await client.send("response.create", event_id="mine")
        asked = await talk.until("response.create")
        await talk.refuse(asked, "insufficient_quota", "You have no credit left.", param="response")
        error = await client.error()
        assert error["code"] == "insufficient_quota" and error["event_id"] == "mine"
        assert error["message"] == "You have no credit left."
        await ask(client, talk, 2)
        await talk.speak("resp_1", "item_1", "Now.", noise(0.1))
        assert (await client.until("response.done"))["response"]["status"] == "completed"


async def test_events_that_nobody_knows_are_left_out() -> None:
    """rate_limits.updated, and types that are not in the protocol: the client sees none of them."""
    async with visiting() as (client, talk):
        await talk.say("rate_limits.updated", rate_limits=[])
        await talk.socket.send(json.dumps({"type": "response.future_thing.delta", "x": 1}))
        await ask(client, talk)
        await talk.speak("resp_1", "item_1", "Yes.", noise(0.1))
        await client.until("response.done")
        kinds = {event["type"] for event in client.events()}
        assert "error" not in kinds and "rate_limits.updated" not in kinds


async def test_a_minute_in_one_burst_is_said_to_its_end() -> None:
    """The upstream sends a minute at once: the client gets 10 s of it, and the rest as it plays."""
    pcm = noise(60)
    async with visiting(query="?avatar=ada") as (client, talk):
        await client.send("session.update", session={"avatar": {"video": {"encoding": "none"}}})
        await client.until("session.updated")
        await ask(client, talk)
        await talk.speak("resp_1", "item_1", "Noise.", pcm)
        got_s = played_s = 0.0
        event: Any = {"type": ""}
        while event["type"] != "response.done":
            event = await client.receive()
            if event["type"] != "response.output_audio.delta":
                continue
            got_s = round(got_s + len(event["delta"]) * 3 / 4 / 48_000, 3)
            assert got_s < played_s + 11 or got_s == 60  # not all at once
            if got_s > played_s + 5 or got_s == 60:
                played_s = got_s
                await client.send(
                    "avatar.playback",
                    response_id="resp_1",
                    position_ms=1000 * played_s,
                    frames_shown=0,
                    frames_late=0,
                )
        assert client.audio() == pcm


async def test_a_response_may_not_be_longer_than_the_server_allows() -> None:
    """``dialogue.max_response_s``: it fails there in words, and the upstream is told to stop."""
    async with visiting(dialogue={"max_response_s": 0.5}) as (client, talk):
        await ask(client, talk)
        await talk.create("resp_1")
        await talk.add_message("resp_1", "item_1")
        await talk.sound("resp_1", "item_1", noise(1.0))
        assert (await talk.until("response.cancel"))["response_id"] == "resp_1"
        done = (await client.until("response.done"))["response"]
        assert done["status_details"]["error"]["code"] == "response_too_long"
        assert client.audio() == noise(1.0)[:24_000]


async def test_two_clients_have_two_upstreams() -> None:
    """What one hears is nothing of the other's."""
    async with asyncio.TaskGroup() as group:
        for number in (1, 2):
            group.create_task(_one_of_two(number))


async def _one_of_two(number: int) -> None:
    async with visiting() as (client, talk):
        await ask(client, talk)
        await talk.speak(f"resp_{number}", f"item_{number}", "Noise.", noise(0.4, number))
        done = await client.until("response.done")
        assert done["response"]["id"] == f"resp_{number}"
        assert client.audio() == noise(0.4, number)
