"""Whatever a client sends, the answer is a typed event or a `ProtocolError`."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from wsavatar.protocol.events import (
    ConversationItemAdded,
    ConversationItemCreate,
    ErrorEvent,
    ProtocolError,
    SessionConfig,
    SessionUpdate,
    SessionUpdated,
    parse_client_event,
)

FORMAT = {"type": "audio/pcm", "rate": 24000}
PARTS: dict[str, list[dict[str, Any]]] = {
    "user": [
        {"type": "input_text", "text": "a"},
        {"type": "input_audio", "audio": "AAAA", "transcript": "a"},
        {"type": "input_image", "image_url": "data:", "detail": "low"},
    ],
    "system": [{"type": "input_text", "text": "a"}],
    "assistant": [
        {"type": "output_text", "text": "a"},
        {"type": "output_audio", "transcript": "a"},
    ],
}
ITEMS: list[dict[str, Any]] = [
    *({"type": "message", "role": role, "content": parts} for role, parts in PARTS.items()),
    {"type": "function_call", "id": "i", "call_id": "c", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "x", "status": "completed"},
]
TOOLS = [{"type": "function", "name": "f", "description": "d", "parameters": {"a": {"b": []}}}]
EVENTS: list[dict[str, Any]] = [
    {
        "type": "session.update",
        "session": {
            "type": "realtime",
            "model": "m",
            "instructions": "i",
            "output_modalities": ["audio"],
            "tools": TOOLS,
            "tool_choice": {"type": "function", "name": "f"},
            "max_output_tokens": 5,
            "tracing": "auto",
            "prompt": None,
            "audio": {
                "input": {
                    "format": FORMAT,
                    "transcription": {"model": "m", "languages": ["en"], "delay": "low"},
                    "noise_reduction": {"type": "near_field"},
                    "turn_detection": {
                        "type": "server_vad",
                        "threshold": 0.5,
                        "prefix_padding_ms": 300,
                        "create_response": True,
                    },
                },
                "output": {"format": FORMAT, "voice": {"id": "v"}, "speed": 1.0},
            },
            "avatar": {
                "id": "ada",
                "mode": "parrot",
                "video": {"encoding": "json", "fps": 25, "max_width": 640},
            },
        },
    },
    {
        "type": "response.create",
        "event_id": "e",
        "response": {
            "conversation": "none",
            "input": [*ITEMS, {"type": "item_reference", "id": "i"}],
            "metadata": {"k": "v"},
            "output_modalities": ["audio"],
            "max_output_tokens": "inf",
            "audio": {"output": {"format": FORMAT, "voice": "v"}},
            "tools": TOOLS,
            "tool_choice": "auto",
            "reasoning": {"effort": "low"},
        },
    },
    *({"type": "conversation.item.create", "item": item, "event_id": "e"} for item in ITEMS),
    {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0, "audio_end_ms": 1},
    {"type": "input_audio_buffer.append", "audio": "AAAA"},
    {"type": "avatar.speak", "text": "a"},
    {
        "type": "avatar.playback",
        "response_id": "r",
        "position_ms": 1.5,
        "frames_shown": 1,
        "frames_late": 0,
    },
]
JUNK: list[Any] = [
    None,
    True,
    -1,
    10**30,
    1.5,
    "",
    "x" * 600,
    "\x00",
    [],
    [[]],
    [None],
    [{}],
    {},
    {"": 0},
    {"type": []},
    {"type": {"type": "x"}, "role": [], "id": {}},
]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside an event."""
    if at:
        yield at
    if isinstance(value, dict):
        for key, child in value.items():
            yield from places(child, (*at, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from places(child, (*at, index))


def replaced(event: dict[str, Any], at: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(event)
    inside: Any = changed
    for key in at[:-1]:
        inside = inside[key]
    inside[at[-1]] = value
    return changed


def answer(event: dict[str, Any]) -> str:
    """What the protocol makes of an event, as it would be sent."""
    try:
        parsed = parse_client_event(json.dumps(event))
        match parsed:
            case SessionUpdate():
                config = SessionConfig().updated(parsed.session, parsed.event_id)
                return SessionUpdated.of(config, "sess_1").to_json()
            case ConversationItemCreate():
                return ConversationItemAdded(item=parsed.item).to_json()
        return parsed.type
    except ProtocolError as error:
        return ErrorEvent.of(error).to_json()


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event["type"])
def test_any_value_in_any_place_is_answered(event: dict[str, Any]) -> None:
    """Each value of a good event is replaced by each kind of nonsense; nothing else is raised."""
    assert '"type":"error"' not in answer(event)
    for at in places(event):
        for junk in JUNK:
            assert answer(replaced(event, at, junk))


@pytest.mark.parametrize("piece", ["[],", '"k":{},', "7,"])
def test_millions_of_values_are_refused_before_they_are_made(piece: str) -> None:
    """One message must not stop the server for seconds: it is refused by its commas alone."""
    with pytest.raises(ProtocolError) as refused:
        parse_client_event('{"type":"x","a":[' + piece * 300_000 + "0")
    assert refused.value.code == "too_complex"
