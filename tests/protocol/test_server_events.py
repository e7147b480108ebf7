"""Server events: compact JSON, complete objects."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter

import wsavatar
from wsavatar.protocol import response_events, server_events
from wsavatar.protocol.events import (
    AudioFormat,
    AvatarSwitchToSpeaking,
    ConversationItemAdded,
    InputAudioPart,
    OutputAudioDelta,
    ProtocolError,
    ResponseCreated,
    ResponseDone,
    SessionConfig,
    SessionCreated,
    UserMessage,
    VideoDelta,
    assistant_item,
    response_object,
)


def test_server_events_are_compact_json_with_an_event_id() -> None:
    """One line, no spaces, and every event has its own id."""
    first = AvatarSwitchToSpeaking(turn_id="r", generation=1, frame_index=0, cycle_index=7)
    second = SessionCreated.of(SessionConfig(), "sess_1")
    assert " " not in first.to_json() and first.event_id != second.event_id
    session = json.loads(second.to_json())["session"]
    assert session["object"] == "realtime.session" and session["type"] == "realtime"
    assert session["audio"]["output"]["format"] == {"type": "audio/pcm", "rate": 24000}


def test_no_event_tells_a_folder_of_the_server() -> None:
    """Every message about an error, in whichever event, names files without their folders."""
    models, said = [wsavatar.protocol.base.StrictObject], set()
    while models:
        model = models.pop()
        models += model.__subclasses__()
        field = model.model_fields.get("message")
        if field is not None and field.annotation is str:
            told = TypeAdapter(Annotated[str, *field.metadata]).validate_python
            assert told("/srv/a b/ada.json: no such file") == "ada.json: no such file", model
            said.add(model.__name__)
    assert said >= {"ErrorDetails", "AvatarRenderError", "AvatarCreateError", "StatusError"}


def test_frames_and_audio_are_standard_base64_named_delta() -> None:
    """Bytes 0xfb 0xff are ``+/8=``: the standard alphabet, padded, not the one for addresses."""
    frame = VideoDelta(
        response_id="r",
        frame_index=1,
        pts_ms=1000 / 30,
        region=(2, 4, 6, 8),
        generation=3,
        delta=b"\xfb\xff",
    )
    sent = json.loads(frame.to_json())
    assert (sent["delta"], sent["codec"], sent["region"]) == ("+/8=", "jpeg", [2, 4, 6, 8])
    assert sent["pts_ms"] == pytest.approx(1000 / 30, abs=1e-6)
    audio = json.loads(OutputAudioDelta(response_id="r", item_id="i", delta=b"\xfb\xff").to_json())
    assert audio["delta"] == "+/8="


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("cancelled", "turn_detected"),
        ("cancelled", "client_cancelled"),
        ("cancelled", None),
        ("incomplete", "max_output_tokens"),
        ("incomplete", "content_filter"),
    ],
)
def test_a_response_says_why_it_did_not_complete(status: Any, reason: Any) -> None:
    """A cancelled response without a reason was replaced by another one."""
    sent = json.loads(
        ResponseDone(
            response=response_object("r", generation=9, status=status, reason=reason)
        ).to_json()
    )
    assert sent["response"]["status"] == status
    assert sent["response"]["status_details"] == {"type": status, "reason": reason, "error": None}


def test_a_failed_response_carries_its_error() -> None:
    """A client needs no other event to know what failed."""
    fault = ProtocolError("tts_failed", "No voice.", type="server_error")
    failed = response_object("r", generation=9, status="failed", error=fault)
    details = json.loads(failed.model_dump_json())["status_details"]
    expected = {"type": "server_error", "code": "tts_failed", "message": "No voice."}
    assert details == {"type": "failed", "reason": None, "error": expected}


def test_a_response_says_what_it_was_asked_for() -> None:
    """Metadata, modalities, limits, format and voice come back, with the finished items."""
    item = assistant_item("i", status="completed", transcript="Hello.")
    whole = response_object(
        "r",
        generation=9,
        status="completed",
        output=(item,),
        conversation_id="conv_1",
        max_output_tokens=200,
        format=AudioFormat(type="audio/pcmu", rate=8000),
        voice="aria",
        metadata={"client_event_id": "e1"},
    )
    sent = json.loads(ResponseCreated(response=whole).to_json())["response"]
    assert sent["metadata"] == {"client_event_id": "e1"} and sent["max_output_tokens"] == 200
    assert sent["conversation_id"] == "conv_1" and sent["output_modalities"] == ["audio"]
    assert sent["audio"]["output"] == {
        "format": {"type": "audio/pcmu", "rate": 8000},
        "voice": "aria",
    }
    assert sent["output"][0]["content"] == [{"type": "output_audio", "transcript": "Hello."}]
    assert sent["status_details"] is None and sent["generation"] == 9


def test_audio_of_an_item_is_not_sent_back() -> None:
    """A user's own audio item may have minutes of audio: only its transcript is shown."""
    item = UserMessage(content=(InputAudioPart(audio=b"\x01\x02", transcript="Hi"),))
    sent = json.loads(ConversationItemAdded(item=item).to_json())["item"]
    assert sent["content"] == [{"type": "input_audio", "transcript": "Hi"}]
    assert item.text == "Hi"


def test_every_server_event_is_sent_somewhere() -> None:
    """An event that nothing sends is not defined, so that the document promises none."""
    package = Path(wsavatar.__file__).parent
    source = "".join(
        path.read_text() for path in package.rglob("*.py") if path.parent != package / "protocol"
    )
    events = [
        name
        for module in (server_events, response_events)
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, server_events.ServerEvent)
        and "type" in value.__annotations__
        and value is not server_events.ServerEvent
    ]
    assert len(events) > 20
    assert [name for name in events if not re.search(rf"\b{name}\b", source)] == []
