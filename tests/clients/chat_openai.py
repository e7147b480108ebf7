"""The `openai` package's realtime client in a conversation: tools, texts, transcripts."""

from __future__ import annotations

import json
from typing import Any

import scenario
from use_openai import Client, _connected, _say, _turn_detection, _write

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


async def _answer(client: Client, **response: Any) -> dict[str, Any]:
    await client.connection.response.create(response=response or {})
    return (await client.until("response.done"))["response"]


async def a_tool_is_called_and_its_result_told(visit: scenario.Visit) -> None:
    """The model's call comes in pieces and whole; its output goes in; the answer speaks of it."""
    async with _connected(visit) as client:
        await client.connection.session.update(session={"type": "realtime", "tools": [WEATHER]})
        await client.until("session.updated")
        await _write(client, "How is the weather?")
        done = await _answer(client)
        [call] = [item for item in done["output"] if item["type"] == "function_call"]
        assert call["name"] == "get_weather" and json.loads(call["arguments"]) == {"city": "Paris"}
        deltas = [e for e in client.log if e["type"] == "response.function_call_arguments.delta"]
        [whole] = [e for e in client.log if e["type"] == "response.function_call_arguments.done"]
        assert "".join(event["delta"] for event in deltas) == whole["arguments"]
        assert whole["call_id"] == call["call_id"]
        await client.connection.conversation.item.create(
            item={"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
        )
        done = await _answer(client)
        assert "told that it is sunny" in done["output"][0]["content"][0]["transcript"], done
        assert client.audio_s(done["id"]) > 0.5


async def a_tool_may_be_forbidden(visit: scenario.Visit) -> None:
    """`tool_choice: none` for one response: it is answered in words."""
    async with _connected(visit) as client:
        await client.connection.session.update(session={"type": "realtime", "tools": [WEATHER]})
        await client.until("session.updated")
        await _write(client, "How is the weather?")
        done = await _answer(client, tool_choice="none")
        assert [item["type"] for item in done["output"]] == ["message"]


async def text_alone(visit: scenario.Visit) -> None:
    """`output_modalities: ["text"]`: text deltas and no sound, for a session and a response."""
    async with _connected(visit) as client:
        await client.connection.session.update(
            session={"type": "realtime", "output_modalities": ["text"]}
        )
        await client.until("session.updated")
        await _write(client, "One two three.")
        done = await _answer(client)
        assert done["output"][0]["content"][0]["text"].strip() == "You said: One two three."
        deltas = [e["delta"] for e in client.log if e["type"] == "response.output_text.delta"]
        assert len(deltas) > 1 and "".join(deltas) == done["output"][0]["content"][0]["text"]
        assert client.audio_s(done["id"]) == 0
        done = await _answer(client, output_modalities=["audio"])
        assert client.audio_s(done["id"]) > 0.5


async def a_voice_is_understood_and_answered(visit: scenario.Visit) -> None:
    """With `audio.input.transcription` the user's words come too; the answer is about them."""
    transcription = "conversation.item.input_audio_transcription"
    async with _connected(visit) as client:
        await client.connection.session.update(
            session={
                "type": "realtime",
                "audio": {"input": {"transcription": {"model": "whisper-1", "language": "en"}}},
            }
        )
        await client.until("session.updated")
        await _say(client, visit)
        committed = await client.until("input_audio_buffer.committed")
        done = (await client.until("response.done"))["response"]
        [told] = [e for e in client.log if e["type"] == f"{transcription}.completed"]
        assert told["transcript"] == "Hello. How do you do today?"
        assert told["item_id"] == committed["item_id"]
        said = done["output"][0]["content"][0]["transcript"]
        assert said.strip() == f"You said: {told['transcript']}"
        assert client.audio_s(done["id"]) > 1.0


async def speech_interrupts_and_the_client_truncates(visit: scenario.Visit) -> None:
    """Speech cancels the answer; the client says how much it played; the model is told only that,
    and the user is answered."""
    async with _connected(visit) as client:
        await _write(client, "Speak at length, please.")
        await client.connection.response.create()
        first = await client.until("response.output_audio.delta")
        while client.audio_s(first["response_id"]) < 3.0:
            await client.receive()
        await _say(client, visit)
        await client.until("input_audio_buffer.speech_started")
        await client.connection.conversation.item.truncate(
            item_id=first["item_id"], content_index=0, audio_end_ms=2000
        )
        done = (await client.until("response.done"))["response"]
        assert done["id"] == first["response_id"] and done["status"] == "cancelled"
        assert done["status_details"]["reason"] == "turn_detected"
        cut = await client.until("conversation.item.truncated")
        assert cut["audio_end_ms"] == 2000
        answered = (await client.until("response.done"))["response"]
        assert "How do you do" in answered["output"][0]["content"][0]["transcript"], answered
        await client.connection.conversation.item.retrieve(item_id=first["item_id"])
        item = (await client.until("conversation.item.retrieved"))["item"]
        heard = item["content"][0]["transcript"]
        assert heard and "This sentence is long".startswith(heard[:21]) and len(heard) < 150, heard


async def instructions_for_one_response(visit: scenario.Visit) -> None:
    """`response.create` with `instructions`: followed once, and the session's afterwards."""
    async with _connected(visit) as client:
        done = await _answer(client, instructions="Greet the user.")
        assert "Welcome" in done["output"][0]["content"][0]["transcript"]
        await _write(client, "One two three.")
        done = await _answer(client)
        assert "You said" in done["output"][0]["content"][0]["transcript"]


async def push_to_talk(visit: scenario.Visit) -> None:
    """Without turn detection: append, commit, ask; the answer is about what was said."""
    async with _connected(visit) as client:
        await _turn_detection(client, None)
        for packet in visit.packets():
            await client.connection.send(_append(packet))
        await client.connection.input_audio_buffer.commit()
        await client.until("input_audio_buffer.committed")
        done = await _answer(client)
        assert "How do you do" in done["output"][0]["content"][0]["transcript"], done


def _append(packet: bytes) -> Any:
    import base64

    return {"type": "input_audio_buffer.append", "audio": base64.b64encode(packet).decode()}


if __name__ == "__main__":
    scenario.run(__name__)
