"""The `openai` package's types against ours, in both directions.

They are generated from the API's own specification: no field of the GA API is unknown here, and
what the server sends is what they describe.
"""

from __future__ import annotations

import json
import types
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from openai.types import realtime
from pydantic import BaseModel, TypeAdapter

from tests.protocol.document import event_types
from wsavatar.protocol import events as wire
from wsavatar.protocol.events import ProtocolError, SessionConfig, parse_client_event


def openai_type(name: str) -> Any:
    return getattr(realtime, name)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models of an annotation: through unions, lists and annotated types."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is Annotated:
        return models_in(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType, list):
        return [model for part in get_args(annotation) for model in models_in(part)]
    return []


def paths(model: type[BaseModel], under: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Every field that a model can have, at any depth; MCP tools and items are left out."""
    found = set()
    for name, field in model.model_fields.items():
        found.add((*under, name))
        for inner in models_in(field.annotation):
            if "server_label" not in inner.model_fields and (*under, name) != ("input",):
                found |= paths(inner, (*under, name))
    return found


def with_nonsense_at(path: tuple[str, ...]) -> dict[str, Any]:
    """An object whose field at this path has a value that no field takes."""
    value: Any = {"?": 0}
    for name in reversed(path):
        value = {name: [value] if name == "tools" and path[-1] != "tools" else value}
    return value


SESSION_FIELDS = sorted(paths(openai_type("RealtimeSessionCreateRequest")))
RESPONSE_FIELDS = sorted(paths(openai_type("RealtimeResponseCreateParams")))


@pytest.mark.parametrize("path", SESSION_FIELDS, ids=".".join)
def test_every_field_of_a_session_is_known(path: tuple[str, ...]) -> None:
    """Used, accepted without effect, or refused in words: never an unknown field."""
    try:
        SessionConfig().updated(with_nonsense_at(path))
    except ProtocolError as error:
        at = "session." + ".".join(path).replace("tools.", "tools[0].")
        assert (error.code, error.param) != ("unknown_parameter", at), error.message


@pytest.mark.parametrize("path", RESPONSE_FIELDS, ids=".".join)
def test_every_parameter_of_a_response_is_known(path: tuple[str, ...]) -> None:
    """As for a session."""
    try:
        event = {"type": "response.create", "response": with_nonsense_at(path)}
        parse_client_event(json.dumps(event))
    except ProtocolError as error:
        at = "response." + ".".join(path).replace("tools.", "tools[0].")
        assert (error.code, error.param) != ("unknown_parameter", at), error.message


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("RealtimeConversationItemUserMessage", wire.UserMessage),
        ("RealtimeConversationItemSystemMessage", wire.SystemMessage),
        ("RealtimeConversationItemAssistantMessage", wire.AssistantMessage),
        ("RealtimeConversationItemFunctionCall", wire.FunctionCall),
        ("RealtimeConversationItemFunctionCallOutput", wire.FunctionCallOutput),
    ],
)
def test_items_have_the_same_fields(theirs: str, ours: type[BaseModel]) -> None:
    """Parts of messages too."""
    model = openai_type(theirs)
    assert set(model.model_fields) == set(ours.model_fields)
    if "content" in model.model_fields:
        (part,) = models_in(model.model_fields["content"].annotation)
        (mine,) = get_args(ours.model_fields["content"].annotation)[:1]
        known = {name for one in models_in(mine) for name in one.model_fields}
        assert set(part.model_fields) == known


def test_their_client_events_are_ours() -> None:
    """Each is accepted, or refused in words."""
    union = openai_type("RealtimeClientEvent")
    for event in models_in(union):
        kind = type_of(event)
        with pytest.raises(ProtocolError) as caught:
            parse_client_event(json.dumps({"type": kind, "?": 0}))
        assert caught.value.code in ("unknown_parameter", "unsupported_event")


ITEM = wire.assistant_item("item_1", status="completed", transcript="Hi")
WRITTEN = wire.assistant_item("item_2", status="incomplete", text="Hi")
CALL = wire.FunctionCall(call_id="c", name="now", arguments="{}")
RESULT = wire.FunctionCallOutput(call_id="c", output="12:00")
PART: dict[str, Any] = {"response_id": "resp_1", "item_id": "item_1"}
OF_CALL: dict[str, Any] = {**PART, "output_index": 1, "call_id": "c"}
HEARD: dict[str, Any] = {"item_id": "item_1", "content_index": 0}


def configured() -> SessionConfig:
    """A session with tools, semantic_vad and transcripts."""
    config = SessionConfig(transcriber="a good ear", default_voice="coral")
    detection = {"type": "semantic_vad", "eagerness": "low"}
    transcription = {"model": "whisper-1", "language": "en"}
    return config.updated(
        {
            "tools": [{"type": "function", "name": "now", "parameters": {"type": "object"}}],
            "tool_choice": {"type": "function", "name": "now"},
            "output_modalities": ["text"],
            "audio": {"input": {"turn_detection": detection, "transcription": transcription}},
        }
    )


SENT: list[wire.ServerEvent] = [
    wire.SessionCreated.of(SessionConfig(), "sess_1"),
    wire.SessionUpdated.of(configured(), "sess_1"),
    wire.ErrorEvent.of(ProtocolError("code", "message")),
    wire.InputAudioBufferCommitted(item_id="item_1", previous_item_id="item_0"),
    wire.InputAudioBufferCleared(),
    wire.SpeechStarted(audio_start_ms=10, item_id="item_1"),
    wire.SpeechStopped(audio_end_ms=20, item_id="item_1"),
    wire.ConversationItemAdded(item=wire.user_item("item_1")),
    wire.ConversationItemAdded(item=wire.user_item("item_1", text="Hi")),
    wire.ConversationItemAdded(item=CALL),
    wire.ConversationItemAdded(item=RESULT),
    wire.ConversationItemDone(item=ITEM, previous_item_id="item_0"),
    wire.ConversationItemDone(item=WRITTEN),
    wire.ConversationItemRetrieved(item=ITEM),
    wire.ConversationItemDeleted(item_id="item_1"),
    wire.ConversationItemTruncated(item_id="item_1", content_index=0, audio_end_ms=100),
    wire.TranscriptionDelta(delta="Hi", **HEARD),
    wire.TranscriptionCompleted(
        transcript="Hi", usage=wire.TranscriptionUsage(seconds=1.5), **HEARD
    ),
    wire.TranscriptionFailed(
        error=wire.TranscriptionError(code="engine_failed", message="It broke."), **HEARD
    ),
    wire.OutputItemAdded(response_id="resp_1", item=CALL, output_index=1),
    wire.OutputItemDone(response_id="resp_1", item=ITEM),
    wire.OutputItemDone(response_id="resp_1", item=WRITTEN),
    wire.ContentPartAdded(part=wire.AudioContent(transcript=""), **PART),
    wire.ContentPartAdded(part=wire.TextContent(text=""), **PART),
    wire.ContentPartDone(part=wire.AudioContent(transcript="Hi"), **PART),
    wire.ContentPartDone(part=wire.TextContent(text="Hi"), **PART),
    wire.OutputAudioDelta(delta=b"\x01\x02", **PART),
    wire.OutputAudioDone(**PART),
    wire.OutputTranscriptDelta(delta="Hi", **PART),
    wire.OutputTranscriptDone(transcript="Hi", **PART),
    wire.OutputTextDelta(delta="Hi", **PART),
    wire.OutputTextDone(text="Hi", **PART),
    wire.FunctionCallArgumentsDelta(delta="{", **OF_CALL),
    wire.FunctionCallArgumentsDone(name="now", arguments="{}", **OF_CALL),
    wire.ResponseCreated(
        response=wire.response_object("resp_1", generation=1, status="in_progress")
    ),
    wire.ResponseDone(
        response=wire.response_object(
            "resp_1",
            generation=1,
            status="cancelled",
            reason="turn_detected",
            output=(ITEM, CALL),
            metadata={"k": "v"},
            format=wire.AudioFormat(),
            voice="aria",
        )
    ),
    wire.ResponseDone(
        response=wire.response_object(
            "resp_1",
            generation=1,
            status="incomplete",
            reason="content_filter",
            output=(WRITTEN,),
            output_modalities=["text"],
            max_output_tokens=20,
        )
    ),
    wire.ResponseDone(
        response=wire.response_object(
            "resp_1",
            generation=1,
            status="failed",
            error=ProtocolError("tts_failed", "No voice.", type="server_error"),
        )
    ),
]
"""Every event that is theirs too, in each of its shapes."""
OURS = ("avatar.", "session.avatar.", "response.video.", "response.audio_timestamp.")


def type_of(model: type[BaseModel]) -> str:
    kind: str = get_args(model.model_fields["type"].annotation)[0]
    return kind


def test_every_event_of_the_realtime_api_is_compared() -> None:
    """What the server can send is in the list above, except for what only this server has."""
    document = event_types("sendServerEvent")
    compared = {event.type for event in SENT}
    assert document - compared == {kind for kind in document if kind.startswith(OURS)}
    theirs = {type_of(model) for model in models_in(openai_type("RealtimeServerEvent"))}
    assert compared <= theirs


@pytest.mark.parametrize(
    "event",
    SENT,
    ids=lambda event: event.type,
)
def test_what_the_server_sends_is_theirs(event: wire.ServerEvent) -> None:
    """Read strictly by their types, an event gives the same object, ours added."""
    union = openai_type("RealtimeServerEvent")
    model = next(one for one in models_in(union) if type_of(one) == event.type)
    sent = json.loads(event.to_json())
    TypeAdapter(model).validate_json(event.to_json(), strict=True)
    assert model.model_validate(sent).to_dict(mode="json", exclude_unset=True) == sent
