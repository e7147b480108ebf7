"""Client events: what is accepted, and what a refusal says."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import Any

import pytest

from wsavatar.protocol.events import (
    AssistantMessage,
    AvatarPlayback,
    AvatarSpeak,
    ConversationItemCreate,
    ErrorEvent,
    FunctionCall,
    FunctionCallOutput,
    InputAudioBufferAppend,
    ItemReference,
    ProtocolError,
    ResponseCreate,
    SessionUpdate,
    SystemMessage,
    UserMessage,
    parse_client_event,
)


def refusal(text: str | bytes) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        parse_client_event(text)
    return caught.value


def refused(**event: Any) -> ProtocolError:
    return refusal(json.dumps(event))


def parse(**event: Any) -> Any:
    return parse_client_event(json.dumps(event))


def test_the_package_is_pure() -> None:
    """Beyond what pydantic itself imports, no sockets, no event loop and no tensors come in."""
    code = (
        "import sys, pydantic; type('M', (pydantic.BaseModel,), {}); before = set(sys.modules);"
        "import wsavatar.protocol.events, wsavatar.protocol.binary;"
        "heavy = {'asyncio', 'socket', 'ssl', 'torch', 'websockets', 'numpy', 'threading'};"
        "print(*sorted(heavy & (set(sys.modules) - before)));"
        "assert not {'asyncio', 'torch', 'websockets', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_stock_clients_events_are_taken() -> None:
    """What a Realtime client sends is understood."""
    update = parse(
        type="session.update",
        event_id="e1",
        session={
            "type": "realtime",
            "model": "gpt-realtime",
            "output_modalities": ["audio"],
            "instructions": "Be brief.",
            "tools": [{"type": "function", "name": "now", "parameters": {}}],
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "noise_reduction": {"type": "near_field"},
                    "transcription": {"model": "gpt-4o-transcribe"},
                    "turn_detection": {"type": "semantic_vad", "eagerness": "low"},
                },
                "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin"},
            },
        },
    )
    assert isinstance(update, SessionUpdate) and update.event_id == "e1"
    item = parse(
        type="conversation.item.create",
        previous_item_id=None,
        item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
    )
    assert isinstance(item, ConversationItemCreate) and item.item.text == "Hi"
    answer = parse(type="response.create", response={"instructions": "x", "tool_choice": "none"})
    assert isinstance(answer, ResponseCreate)
    for kind in ("input_audio_buffer.commit", "input_audio_buffer.clear", "response.cancel"):
        assert parse(type=kind).type == kind
    for kind in ("delete", "retrieve"):
        assert parse(type=f"conversation.item.{kind}", item_id="item_1").item_id == "item_1"
    cut = dict(item_id="item_1", content_index=0, audio_end_ms=1500)
    assert parse(type="conversation.item.truncate", **cut).audio_end_ms == 1500


def test_our_events_are_taken() -> None:
    """`avatar.speak` and `avatar.playback` arrive with their values typed."""
    speak = parse(type="avatar.speak", text="Grüß dich")
    assert isinstance(speak, AvatarSpeak) and speak.text == "Grüß dich"
    played = parse(
        type="avatar.playback", response_id="r", position_ms=12.5, frames_shown=3, frames_late=0
    )
    assert isinstance(played, AvatarPlayback) and played.position_ms == 12.5


def test_appended_audio_arrives_as_bytes() -> None:
    """The base64 is decoded once, here."""
    event = parse(
        type="input_audio_buffer.append", audio=base64.b64encode(b"\x01\x02\xff").decode()
    )
    assert isinstance(event, InputAudioBufferAppend) and event.audio == b"\x01\x02\xff"


@pytest.mark.parametrize(
    ("text", "code", "param"),
    [
        ("", "invalid_json", None),
        ("{", "invalid_json", None),
        (b"\xff\xfe\x00", "invalid_json", None),
        ("3", "invalid_event", None),
        ("[]", "invalid_event", None),
        ("null", "invalid_event", None),
        ("{}", "missing_required_parameter", "type"),
        ('{"type": 3}', "invalid_type", "type"),
        ('{"type": "input_audio_buffer.apend"}', "unknown_event", "type"),
        ('{"type": "session.created"}', "unknown_event", "type"),
        ('{"type": "session.update"}', "missing_required_parameter", "session"),
        ('{"type": "session.update", "session": []}', "invalid_type", "session"),
        ('{"type": "input_audio_buffer.append"}', "missing_required_parameter", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": 3}', "invalid_type", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": "AAA"}', "invalid_base64", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": "A A="}', "invalid_base64", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": "é"}', "invalid_base64", "audio"),
        ('{"type": "avatar.speak", "text": " \\n"}', "empty_text", "text"),
        ('{"type": "avatar.speak", "text": ["a"]}', "invalid_type", "text"),
        ('{"type": "avatar.speak", "text": "a", "txet": 1}', "unknown_parameter", "txet"),
        (json.dumps({"type": "avatar.speak", "text": "a" * 5001}), "too_long", "text"),
        ('{"type": "avatar.speak", "text": "\\ud800"}', "invalid_unicode", None),
        ('{"type": "avatar.playback", "position_ms": NaN}', "invalid_json", None),
        ('{"type": "avatar.playback", "position_ms": 1e999}', "invalid_json", None),
        ('{"type": "x", "n": ' + "9" * 5000 + "}", "invalid_json", None),
        ("[" * 100_000, "too_deep", None),
        ('{"type": "x", "a": ' + "[" * 40 + "]" * 40 + "}", "too_deep", None),
        ('{"type": "x", "a": [' + "0," * 30_000 + "0]}", "too_complex", None),
    ],
)
def test_bad_input_is_a_clear_error(text: str | bytes, code: str, param: str | None) -> None:
    """Whatever is wrong with a message, the error says what, and where."""
    error = refusal(text)
    assert (error.type, error.code, error.param) == ("invalid_request_error", code, param)
    assert len(error.message) > 5


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"type": "avatar.rename", "avatar_id": "a", "name": ""}, "name: Should not be empty."),
        (
            {"type": "avatar.rename", "avatar_id": "a", "name": "a" * 101},
            "name: Should have at most 100 characters.",
        ),
        ({"type": "avatar.rename", "name": "a"}, "avatar_id: Is missing."),
        ({"type": "avatar.rename", "avatar_id": 3, "name": "a"}, "avatar_id: Should be a string."),
        ({"type": "avatar.create", "file_name": "a", "size": 0}, "size: Should be at least 1."),
        (
            {"type": "avatar.create", "file_name": "a", "size": 1.5},
            "size: Should be a whole number.",
        ),
        (
            {"type": "avatar.create", "file_name": "a", "size": 1, "face": 100},
            "face: Should be at most 99.",
        ),
        (
            {"type": "response.create", "response": {"metadata": {str(i): "" for i in range(17)}}},
            "response.metadata: Should have at most 16 items.",
        ),
        (
            {"type": "response.create", "response": {"output_modalities": []}},
            "response.output_modalities: Should not be empty.",
        ),
        (
            {"type": "conversation.item.create", "item": {"type": "message", "role": "user"}},
            "item.content: Is missing.",
        ),
        (
            {"type": "conversation.item.create", "item": {"type": "message", "role": "bob"}},
            "item.role: Should be 'user', 'system' or 'assistant'.",
        ),
    ],
)
def test_what_is_wrong_with_a_field_is_a_sentence(event: dict[str, Any], message: str) -> None:
    """The field is its subject, and nobody needs to know what checks it."""
    assert refused(**event).message == message


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ({"conversation": "none"}, {"conversation": "none"}),
        ({}, {"conversation": "auto", "input": None, "metadata": None}),
        ({"instructions": None, "prompt": None, "tools": None}, {"instructions": None}),
        ({"metadata": {"client_event_id": "e"}}, {"metadata": {"client_event_id": "e"}}),
        ({"max_output_tokens": 4096}, {"max_output_tokens": 4096}),
        ({"max_output_tokens": "inf"}, {"max_output_tokens": "inf"}),
        ({"output_modalities": ["text"]}, {"output_modalities": ["text"]}),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        ({"reasoning": {"effort": "low"}, "parallel_tool_calls": True}, {"reasoning": None}),
        ({"input": []}, {"input": ()}),
    ],
)
def test_what_a_response_may_be_asked(response: dict[str, Any], expected: dict[str, Any]) -> None:
    """Every parameter of the GA API is typed; null is the same as absent."""
    params = parse(type="response.create", response=response).response
    assert {name: getattr(params, name) for name in expected} == expected


def test_a_response_may_be_asked_in_another_format_and_voice() -> None:
    """The voice is a name or ``{"id": name}``; G.711 has its own rate."""
    output = {"voice": {"id": "aria"}, "format": {"type": "audio/pcmu"}}
    params = parse(type="response.create", response={"audio": {"output": output}}).response
    assert params.audio.output.voice == "aria" and params.audio.output.format.rate == 8000


def test_the_input_of_a_response_is_items_and_references() -> None:
    """References stand for items of the conversation; everything else is a whole item."""
    event = parse(
        type="response.create",
        response={
            "input": [
                {"type": "item_reference", "id": "item_1"},
                {
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_text", "text": "Hi"}],
                },
            ]
        },
    )
    reference, message = event.response.input
    assert isinstance(reference, ItemReference) and reference.id == "item_1"
    assert isinstance(message, UserMessage) and message.text == "Hi"


@pytest.mark.parametrize(
    ("response", "code", "param", "hint"),
    [
        ({"modalities": ["audio"]}, "unknown_parameter", "modalities", "output_modalities"),
        ({"voice": "a"}, "unknown_parameter", "voice", "response.audio.output.voice"),
        (
            {"output_audio_format": "g711_ulaw"},
            "unknown_parameter",
            "output_audio_format",
            "response.audio.output.format",
        ),
        (
            {"max_response_output_tokens": 9},
            "unknown_parameter",
            "max_response_output_tokens",
            "response.max_output_tokens",
        ),
        ({"temperature": 0.8}, "unknown_parameter", "temperature", "Leave it out"),
        ({"metdata": {}}, "unknown_parameter", "metdata", "'metadata'"),
        (
            {"audio": {"output": {"vioce": "a"}}},
            "unknown_parameter",
            "audio.output.vioce",
            "'voice'",
        ),
        ({"audio": {"input": {}}}, "unknown_parameter", "audio.input", "output"),
        ({"prompt": {"id": "p"}}, "unsupported_parameter", "prompt", "instructions"),
        ({"tools": [{"type": "mcp"}]}, "unsupported_value", "tools[0].type", "functions"),
        ({"tools": [{"name": 1}]}, "invalid_type", "tools[0].name", "string"),
        ({"tool_choice": {"type": "mcp"}}, "unsupported_value", "tool_choice.type", "functions"),
        ({"tool_choice": "always"}, "invalid_value", "tool_choice", "'required'"),
        ({"max_output_tokens": 0}, "invalid_value", "max_output_tokens", "1"),
        ({"max_output_tokens": 4097}, "invalid_value", "max_output_tokens", "4096"),
        ({"max_output_tokens": "all"}, "invalid_value", "max_output_tokens", "'inf'"),
        ({"output_modalities": ["audio", "text"]}, "invalid_value", "output_modalities", "one"),
        ({"output_modalities": ["video"]}, "invalid_value", "output_modalities[0]", "audio"),
        ({"metadata": {"k": 1}}, "invalid_type", "metadata.k", "string"),
        ({"metadata": {"k": "v" * 513}}, "too_long", "metadata.k", "512"),
        ({"metadata": {str(n): "" for n in range(17)}}, "invalid_value", "metadata", "16"),
        ({"conversation": "conv_1"}, "invalid_value", "conversation", "'none'"),
        ({"input": "Hi"}, "invalid_type", "input", "list"),
        ({"input": [{"type": "item_reference"}]}, "missing_required_parameter", "input[0].id", ""),
    ],
)
def test_what_a_response_cannot_be_asked(
    response: dict[str, Any], code: str, param: str, hint: str
) -> None:
    """Nothing is ignored in silence: the error names the field and what to do."""
    error = refused(type="response.create", response=response)
    assert (error.code, error.param) == (code, f"response.{param}")
    assert hint in error.message


@pytest.mark.parametrize(
    ("item", "kind", "text"),
    [
        ({"role": "user", "content": [{"type": "input_text", "text": "a"}]}, UserMessage, "a"),
        ({"role": "system", "content": [{"type": "input_text", "text": "a"}]}, SystemMessage, "a"),
        (
            {
                "role": "assistant",
                "content": [
                    {"type": "output_text", "text": "a"},
                    {"type": "output_audio", "transcript": "b"},
                ],
            },
            AssistantMessage,
            "a\nb",
        ),
        (
            {"type": "function_call", "call_id": "c", "name": "now", "arguments": "{}"},
            FunctionCall,
            "",
        ),
        (
            {"type": "function_call_output", "call_id": "c", "output": "12:00"},
            FunctionCallOutput,
            "",
        ),
    ],
)
def test_items_are_typed(item: dict[str, Any], kind: type, text: str) -> None:
    """Each type of item has its own fields; one without an id is given one."""
    got = parse(type="conversation.item.create", item={"status": "completed"} | item).item
    assert isinstance(got, kind) and got.text == text and got.id.startswith("item_")


def test_an_items_audio_arrives_as_bytes() -> None:
    """A user's own audio is there to be played or heard."""
    parts = [
        {"type": "input_audio", "audio": base64.b64encode(one).decode()} for one in (b"ab", b"c")
    ]
    item = {"type": "message", "role": "user", "content": parts}
    content = parse(type="conversation.item.create", item=item).item.content
    assert [part.audio for part in content] == [b"ab", b"c"]


@pytest.mark.parametrize(
    ("item", "code", "param", "hint"),
    [
        ({"type": "message", "content": []}, "missing_required_parameter", "role", "'user'"),
        ({"role": "developer", "content": []}, "invalid_value", "role", "'system'"),
        ({"role": "user"}, "missing_required_parameter", "content", ""),
        ({"role": "user", "content": "Hi"}, "invalid_type", "content", ""),
        ({"role": "user", "content": ["Hi"]}, "invalid_type", "content[0]", "object"),
        ({"role": "user", "content": [{}]}, "missing_required_parameter", "content[0].type", ""),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            "invalid_value",
            "content[0].type",
            "'input_text'",
        ),
        (
            {"role": "assistant", "content": [{"type": "audio"}]},
            "invalid_value",
            "content[0].type",
            "'output_audio'",
        ),
        (
            {"role": "system", "content": [{"type": "input_audio"}]},
            "invalid_value",
            "content[0].type",
            "'input_text'",
        ),
        (
            {"role": "user", "content": [{"type": "input_text", "txt": "a"}]},
            "unknown_parameter",
            "content[0].txt",
            "'text'",
        ),
        (
            {"role": "user", "content": [{"type": "input_audio", "adio": "AAAA"}]},
            "unknown_parameter",
            "content[0].adio",
            "'audio'",
        ),
        (
            {"role": "user", "content": [{"type": "input_audio", "audio": "A"}]},
            "invalid_base64",
            "content[0].audio",
            "",
        ),
        ({"role": "user", "content": [], "contnet": []}, "unknown_parameter", "contnet", "content"),
        (
            {"type": "function_call_output", "output": ""},
            "missing_required_parameter",
            "call_id",
            "",
        ),
        ({"type": "function_call", "name": "a", "arguments": {}}, "invalid_type", "arguments", ""),
        ({"type": "item_reference", "id": "a"}, "invalid_value", "type", "response.create"),
        ({"type": "mcp_approval_response"}, "unsupported_value", "type", "function"),
        ({"type": "image"}, "invalid_value", "type", "'message'"),
        ({"type": ["message"]}, "invalid_value", "type", "'message'"),
    ],
)
def test_what_is_no_item(item: dict[str, Any], code: str, param: str, hint: str) -> None:
    """The error names the field at fault, not the whole item."""
    error = refused(type="conversation.item.create", item=item)
    assert (error.code, error.param) == (code, f"item.{param}")
    assert hint in error.message


def test_a_misspelt_field_of_a_stock_event_is_refused() -> None:
    """It would otherwise have no effect, and nobody would know why."""
    error = refused(type="response.create", respnse={"instructions": "x"})
    assert (error.code, error.param) == ("unknown_parameter", "respnse")
    assert "'response'" in error.message
    error = refused(type="input_audio_buffer.append", audio="AAAA", format="pcm16")
    assert (error.code, error.param) == ("unknown_parameter", "format")


def test_a_misspelt_event_type_gets_a_suggestion() -> None:
    """The nearest type is named first."""
    assert "Did you mean 'response.create'?" in refused(type="response.creat").message


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        ("output_audio_buffer.clear", "response.cancel"),
        ("transcription_session.update", "session.update"),
    ],
)
def test_events_without_meaning_here_say_what_to_send(kind: str, hint: str) -> None:
    """They are valid in the Realtime API, on other transports or kinds of session."""
    error = refused(type=kind, event_id="mine")
    assert (error.code, error.event_id) == ("unsupported_event", "mine")
    assert hint in error.message


def test_a_long_name_is_not_sent_back_whole() -> None:
    """An error is short, whatever caused it."""
    for response in ({"x" * 5000: 1}, {"metadata": {"x" * 5000: 1}}):
        error = refused(type="response.create", response=response)
        assert len(error.message) < 600 and len(error.param or "") < 200


def test_an_errors_param_is_the_path_of_the_field() -> None:
    """A wrong type deep in an event is named by its path."""
    content = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": 4}]
    event = {"type": "conversation.item.create", "item": {"role": "user", "content": content}}
    assert refusal(json.dumps(event)).param == "item.content[1].text"


def test_an_error_carries_the_clients_event_id() -> None:
    """So that a client knows which of its events failed."""
    error = refusal('{"type": "nonsense", "event_id": "mine"}')
    sent = json.loads(ErrorEvent.of(error).to_json())
    assert sent["type"] == "error" and sent["event_id"] != "mine"
    assert sent["error"]["event_id"] == "mine"
    assert set(sent["error"]) == {"type", "code", "message", "param", "event_id"}


def test_strict_types_on_our_own_events() -> None:
    """A boolean is no position and a string is no count."""
    good = dict(response_id="r", position_ms=1, frames_shown=1, frames_late=0)
    for field, wrong in (("position_ms", True), ("frames_shown", "1"), ("frames_late", -1)):
        event = {"type": "avatar.playback", **good, field: wrong}
        assert refusal(json.dumps(event)).param == field
