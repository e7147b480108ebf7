"""The `openai` package's realtime client, and its types as the schema that every event must fit."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, get_args

import scenario
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeServerEvent
from pydantic import ValidationError

# The union is not discriminated for pydantic, which would then list the faults of every branch.
MODELS = {
    get_args(model.model_fields["type"].annotation)[0]: model
    for model in get_args(get_args(RealtimeServerEvent)[0])
}


@dataclass
class Client:
    """A connection that keeps every event, and what is wrong with it by the SDK's types."""

    connection: AsyncRealtimeConnection
    log: list[dict[str, Any]] = field(default_factory=list)
    unfit: list[str] = field(default_factory=list)

    async def receive(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(await self.connection.recv_bytes())
        kind = event["type"]
        try:
            MODELS[kind].model_validate(event)
        except KeyError:
            self.unfit.append(f"{kind}: there is no such event")
        except ValidationError as error:
            self.unfit.append(f"{kind}: {error}")
        self.log.append(event)
        return event

    async def until(self, kind: str) -> dict[str, Any]:
        """The next event of this type. An error that is not asked for fails the scenario."""
        while True:
            event = await self.receive()
            if event["type"] == kind:
                return event
            assert event["type"] != "error", event

    async def error(self) -> dict[str, Any]:
        """The next error's content; nothing but that may be wrong."""
        return (await self.until("error"))["error"]

    def audio_s(self, response_id: str) -> float:
        """Seconds of sound that a response brought."""
        size = sum(
            len(base64.b64decode(event["delta"]))
            for event in self.log
            if event["type"] == "response.output_audio.delta"
            and event["response_id"] == response_id
        )
        return size / 2 / scenario.RATE


@contextlib.asynccontextmanager
async def _connected(visit: scenario.Visit) -> AsyncIterator[Client]:
    sdk = AsyncOpenAI(api_key="any", websocket_base_url=visit.base_url)
    async with sdk.realtime.connect(model="gpt-realtime") as connection:
        client = Client(connection)
        await client.until("session.created")
        yield client
    assert not client.unfit, "\n".join(sorted(set(client.unfit)))


async def _say(client: Client, visit: scenario.Visit) -> None:
    for packet in visit.packets():
        await client.connection.input_audio_buffer.append(audio=base64.b64encode(packet).decode())
        await asyncio.sleep(0)


async def _write(client: Client, text: str) -> None:
    await client.connection.conversation.item.create(
        item={
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": text}],
        }
    )
    await client.until("conversation.item.done")


async def _turn_detection(client: Client, value: Any) -> None:
    session = {"type": "realtime", "audio": {"input": {"turn_detection": value}}}
    await client.connection.session.update(session=session)
    await client.until("session.updated")


async def a_conversation_by_voice(visit: scenario.Visit) -> None:
    """The session is configured as the guide shows it; a recorded voice is answered with sound."""
    async with _connected(visit) as client:
        await client.connection.session.update(
            session={
                "type": "realtime",
                "model": "gpt-realtime",
                "instructions": "Speak clearly and briefly.",
                "output_modalities": ["audio"],
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcm", "rate": 24000},
                        "turn_detection": {"type": "semantic_vad"},
                    },
                    "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin"},
                },
            }
        )
        updated = (await client.until("session.updated"))["session"]
        assert updated["audio"]["output"]["voice"] == "marin"
        await _say(client, visit)
        started = await client.until("input_audio_buffer.speech_started")
        stopped = await client.until("input_audio_buffer.speech_stopped")
        committed = await client.until("input_audio_buffer.committed")
        assert started["item_id"] == stopped["item_id"] == committed["item_id"]
        done = (await client.until("response.done"))["response"]
        assert done["status"] == "completed"
        assert client.audio_s(done["id"]) > 1.0


async def a_response_says_what_it_was_asked_for(visit: scenario.Visit) -> None:
    """`response.create` with parameters: response.created and response.done give them back."""
    async with _connected(visit) as client:
        await _write(client, "One two three.")
        await client.connection.response.create(
            response={
                "metadata": {"topic": "greeting"},
                "output_modalities": ["audio"],
                "max_output_tokens": 500,
                "audio": {"output": {"format": {"type": "audio/pcmu"}}},
            }
        )
        created = (await client.until("response.created"))["response"]
        done = (await client.until("response.done"))["response"]
        for response in (created, done):
            assert response["metadata"] == {"topic": "greeting"}
            assert response["output_modalities"] == ["audio"]
            assert response["max_output_tokens"] == 500
            assert response["audio"]["output"]["format"]["type"] == "audio/pcmu"
            assert response["conversation_id"]
        assert done["status"] == "completed", done


async def a_response_outside_the_conversation(visit: scenario.Visit) -> None:
    """`conversation: none` with an `input` of its own is said and leaves no item behind."""
    async with _connected(visit) as client:
        await client.connection.response.create(
            response={
                "conversation": "none",
                "metadata": {"purpose": "notice"},
                "input": [
                    {
                        "type": "message",
                        "role": "user",
                        "content": [{"type": "input_text", "text": "One moment please."}],
                    }
                ],
            }
        )
        done = (await client.until("response.done"))["response"]
        assert done["status"] == "completed", done
        assert done["conversation_id"] is None
        assert client.audio_s(done["id"]) > 0.5
        kinds = {event["type"] for event in client.log}
        assert not kinds & {"conversation.item.added", "conversation.item.done"}
        item_id = done["output"][0]["id"]
        await client.connection.conversation.item.retrieve(item_id=item_id)
        assert (await client.error())["code"] == "item_retrieve_invalid_item_id"


async def a_response_of_referenced_items(visit: scenario.Visit) -> None:
    """`input` may name items of the conversation by `item_reference`."""
    async with _connected(visit) as client:
        for number, text in enumerate(("First sentence here.", "Second sentence here.")):
            await client.connection.conversation.item.create(
                item={
                    "id": f"said_{number}",
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_text", "text": text}],
                }
            )
            await client.until("conversation.item.done")
        await client.connection.response.create(
            response={"input": [{"type": "item_reference", "id": "said_0"}]}
        )
        done = (await client.until("response.done"))["response"]
        assert done["status"] == "completed", done
        assert "First" in done["output"][0]["content"][0]["transcript"]
        await client.connection.response.create(
            response={"input": [{"type": "item_reference", "id": "never_said"}]}
        )
        error = await client.error()
        assert error["param"] == "response.input[0].id", error


async def items_are_kept_by_id(visit: scenario.Visit) -> None:
    """Create, insert, retrieve and delete items of every type; the codes are the API's own."""
    message = {
        "id": "hello",
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "Hello."}],
    }
    items: list[Any] = [
        message,
        {
            "id": "rules",
            "type": "message",
            "role": "system",
            "content": [{"type": "input_text", "text": "Be kind."}],
        },
        {
            "id": "answer",
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hello to you."}],
        },
        {
            "id": "call",
            "type": "function_call",
            "call_id": "call_1",
            "name": "get_weather",
            "arguments": "{}",
        },
        {
            "id": "result",
            "type": "function_call_output",
            "call_id": "call_1",
            "output": '{"sky": "blue"}',
        },
        {
            "id": "picture",
            "type": "message",
            "role": "user",
            "content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}],
        },
    ]
    async with _connected(visit) as client:
        conversation = client.connection.conversation
        for item in items:
            await conversation.item.create(item=item, previous_item_id="root")
            added = await client.until("conversation.item.added")
            assert added["item"]["id"] == item["id"] and added["previous_item_id"] is None
            await client.until("conversation.item.done")
            await conversation.item.retrieve(item_id=item["id"])
            kept = (await client.until("conversation.item.retrieved"))["item"]
            assert kept["type"] == item["type"]
        await conversation.item.create(item=message)
        assert (await client.error())["code"] == "item_create_duplicate_item_id"
        await conversation.item.delete(item_id="hello")
        assert (await client.until("conversation.item.deleted"))["item_id"] == "hello"
        await conversation.item.delete(item_id="hello")
        assert (await client.error())["code"] == "item_delete_invalid_item_id"
        await conversation.item.retrieve(item_id="hello")
        assert (await client.error())["code"] == "item_retrieve_invalid_item_id"
        await conversation.item.truncate(item_id="hello", content_index=0, audio_end_ms=0)
        assert (await client.error())["code"] == "item_truncate_invalid_item_id"
        await conversation.item.create(item={**message, "id": "late"}, previous_item_id="hello")
        assert (await client.error())["param"] == "previous_item_id"


async def a_spoken_item_is_said_back(visit: scenario.Visit) -> None:
    """A user item with `input_audio` is heard as if it had been spoken."""
    async with _connected(visit) as client:
        await client.connection.conversation.item.create(
            item={
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_audio", "audio": base64.b64encode(visit.voice).decode()}
                ],
            }
        )
        await client.until("conversation.item.done")
        await client.connection.response.create()
        done = (await client.until("response.done"))["response"]
        assert done["status"] == "completed", done
        assert client.audio_s(done["id"]) > 1.0


async def push_to_talk(visit: scenario.Visit) -> None:
    """Without turn detection: append, clear, append, commit and ask; only the last is said back."""
    async with _connected(visit) as client:
        await _turn_detection(client, None)
        buffer = client.connection.input_audio_buffer
        await buffer.append(audio=base64.b64encode(visit.voice * 3).decode())
        await buffer.clear()
        await client.until("input_audio_buffer.cleared")
        await buffer.commit()
        assert (await client.error())["code"] == "input_audio_buffer_commit_empty"
        await buffer.append(audio=base64.b64encode(visit.voice).decode())
        await buffer.commit()
        await client.until("input_audio_buffer.committed")
        await client.connection.response.create()
        done = (await client.until("response.done"))["response"]
        assert done["status"] == "completed", done
        assert client.audio_s(done["id"]) <= len(visit.voice) / 2 / scenario.RATE + 0.1


async def an_answer_is_interrupted(visit: scenario.Visit) -> None:
    """Cancel and truncate while it is spoken: the item keeps what was heard, and says so."""
    text = "This sentence is long enough. " * 12
    async with _connected(visit) as client:
        await _write(client, text)
        await client.connection.response.create()
        first = await client.until("response.output_audio.delta")
        while client.audio_s(first["response_id"]) < 2.0:
            await client.receive()
        await client.connection.response.cancel(response_id=first["response_id"])
        await client.connection.conversation.item.truncate(
            item_id=first["item_id"], content_index=0, audio_end_ms=1500
        )
        done = (await client.until("response.done"))["response"]
        assert done["status"] == "cancelled", done
        assert done["status_details"]["reason"] == "client_cancelled"
        assert done["output"][0]["status"] == "incomplete"
        cut = await client.until("conversation.item.truncated")
        assert cut["audio_end_ms"] == 1500
        await client.connection.conversation.item.retrieve(item_id=first["item_id"])
        item = (await client.until("conversation.item.retrieved"))["item"]
        heard = item["content"][0]["transcript"]
        assert heard and text.startswith(heard) and len(heard) < len(text) / 2, heard


async def a_response_in_progress_is_protected(visit: scenario.Visit) -> None:
    """A second `response.create` is refused while one is active; a cancel of none is an error."""
    async with _connected(visit) as client:
        await client.connection.response.cancel()
        assert (await client.error())["code"] == "response_cancel_not_active"
        await _write(client, "This sentence is long enough. " * 12)
        await client.connection.response.create()
        await client.until("response.output_audio.delta")
        await client.connection.response.create()
        error = await client.error()
        assert error["code"] == "conversation_already_has_active_response", error


async def tools_and_their_results(visit: scenario.Visit) -> None:
    """Tools are kept in the session; a call and its result go into the conversation."""
    tool = {
        "type": "function",
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
    async with _connected(visit) as client:
        await client.connection.session.update(
            session={"type": "realtime", "tools": [tool], "tool_choice": "auto"}
        )
        updated = (await client.until("session.updated"))["session"]
        assert updated["tools"] == [tool] and updated["tool_choice"] == "auto"
        await client.connection.session.update(
            session={
                "type": "realtime",
                "tool_choice": {"type": "function", "name": "get_weather"},
                "max_output_tokens": "inf",
                "tracing": None,
                "truncation": "auto",
                "include": ["item.input_audio_transcription.logprobs"],
            }
        )
        await client.until("session.updated")


async def settings_of_other_kinds(visit: scenario.Visit) -> None:
    """What cannot be done is refused in words, or null in `session.updated`; the rest goes on."""
    async with _connected(visit) as client:
        send = client.connection.send
        await send({"type": "session.update", "session": {"type": "transcription"}})
        error = await client.error()
        assert error["param"] == "session.type" and "realtime" in error["message"], error
        await send({"type": "output_audio_buffer.clear"})
        error = await client.error()
        assert "output_audio_buffer.clear" in error["message"], error
        session: Any = {"type": "realtime", "audio": {"output": {"voice": {"id": "voice_1234"}}}}
        await client.connection.session.update(session=session)
        updated = (await client.until("session.updated"))["session"]
        assert updated["audio"]["output"]["voice"] == "voice_1234"
        session = {
            "type": "realtime",
            "audio": {"input": {"transcription": {"model": "whisper-1", "language": "en"}}},
        }
        await client.connection.session.update(session=session)
        updated = (await client.until("session.updated"))["session"]
        asked_for = updated["audio"]["input"]["transcription"]
        await _say(client, visit)
        await client.until("response.done")
        kinds = {event["type"] for event in client.log}
        transcription = "conversation.item.input_audio_transcription"
        ends = {f"{transcription}.completed", f"{transcription}.failed"}
        assert asked_for is None or kinds & ends


async def names_of_the_beta(visit: scenario.Visit) -> None:
    """Settings of the API's beta are refused, and the message names what they are called now."""
    old: list[tuple[str, Any, str]] = [
        ("modalities", ["audio", "text"], "output_modalities"),
        ("input_audio_format", "g711_ulaw", "audio.input.format"),
        ("output_audio_format", "pcm16", "audio.output.format"),
        ("turn_detection", {"type": "server_vad"}, "audio.input.turn_detection"),
        ("voice", "alloy", "audio.output.voice"),
        ("temperature", 0.8, "temperature"),
    ]
    async with _connected(visit) as client:
        for name, value, now in old:
            await client.connection.send(
                {"type": "session.update", "session": {"type": "realtime", name: value}}
            )
            error = await client.error()
            assert (error["code"], error["param"]) == ("unknown_parameter", f"session.{name}")
            assert now in error["message"], error


async def text_only(visit: scenario.Visit) -> None:
    """`output_modalities: ["text"]`, which a parrot cannot do, is refused in words."""
    async with _connected(visit) as client:
        await client.connection.session.update(
            session={"type": "realtime", "output_modalities": ["text"]}
        )
        error = await client.error()
        assert error["param"] == "session.output_modalities" and "audio" in error["message"], error
        await _write(client, "One two three.")
        await client.connection.response.create(response={"output_modalities": ["text"]})
        done = (await client.until("response.done"))["response"]
        assert "output_modalities" in done["status_details"]["error"]["message"], done
        await client.connection.response.create()
        done = (await client.until("response.done"))["response"]
        assert done["output_modalities"] == ["audio"] and client.audio_s(done["id"]) > 0.5


if __name__ == "__main__":
    scenario.run(__name__)
