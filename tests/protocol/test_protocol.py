"""What a client may rely on at the wire: typed events, exact bytes, clear errors."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wsavatar.protocol import binary
from wsavatar.protocol.events import (
    AvatarPlayback,
    AvatarSpeak,
    AvatarSwitchToSpeaking,
    ConversationItemCreate,
    ErrorEvent,
    InputAudioBufferAppend,
    OutputAudioDelta,
    ProtocolError,
    ResponseCreate,
    ResponseCreated,
    SessionConfig,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
    TurnDetection,
    VideoDelta,
    new_id,
    parse_client_event,
    response_object,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "binary_messages.json").read_text())


def refusal(text: str | bytes) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        parse_client_event(text)
    return caught.value


def parse(**event: Any) -> Any:
    return parse_client_event(json.dumps(event))


def test_the_room_is_pure() -> None:
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


# -- binary messages ------------------------------------------------------------------------------


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: row["name"])
def test_golden_messages_are_read(row: dict[str, Any]) -> None:
    """Every field of a golden message is found, and nothing of its payload is lost."""
    message, fields = binary.unpack(bytes.fromhex(row["hex"])), row["fields"]
    assert (message.type, message.flags) == (fields["type"], fields["flags"])
    assert (message.generation, message.index) == (fields["generation"], fields["index"])
    assert message.pts_us == fields["pts_us"]
    assert message.region == tuple(fields[key] for key in "xywh")
    assert message.payload.hex() == fields["payload_hex"]


@pytest.mark.parametrize("row", [r for r in GOLDEN if r["fields"]["flags"] == 0], ids=str)
def test_golden_messages_are_written(row: dict[str, Any]) -> None:
    """The bytes we send are the golden ones, bit for bit."""
    fields = row["fields"]
    head = fields["generation"], fields["index"], fields["pts_us"]
    payload = bytes.fromhex(fields["payload_hex"])
    if fields["type"] == binary.MessageType.AUDIO:
        packed = binary.pack_audio(*head, payload)
    else:
        packed = binary.pack_frame(*head, tuple(fields[key] for key in "xywh"), payload)
    assert packed.hex() == row["hex"]


def test_generation_wraps_at_16_bits() -> None:
    """Generation 65537 is 1 in a binary message: compared for equality, never for order."""
    packed = binary.pack_frame(65_537, 0, 0, (0, 0, 2, 2), b"")
    assert binary.unpack(packed).generation == 1


@pytest.mark.parametrize("message", [b"", b"\x01" * 23, b"\x07" + bytes(23)])
def test_bytes_that_are_no_message_are_refused(message: bytes) -> None:
    """Too short, or of no known type: a BinaryError, never a wrong frame."""
    with pytest.raises(binary.BinaryError):
        binary.unpack(message)


@pytest.mark.parametrize(
    ("index", "pts_us", "region"),
    [
        (-1, 0, (0, 0, 1, 1)),
        (1 << 32, 0, (0, 0, 1, 1)),
        (0, -1, (0, 0, 1, 1)),
        (0, 0, (0, 0, 1, 65536)),
    ],
)
def test_fields_that_do_not_fit_are_refused(
    index: int, pts_us: int, region: tuple[int, int, int, int]
) -> None:
    """A field is never cut off to fit its place."""
    with pytest.raises(binary.BinaryError):
        binary.pack_frame(0, index, pts_us, region, b"")


# -- client events --------------------------------------------------------------------------------


def test_a_stock_clients_events_are_taken() -> None:
    """What a Realtime client sends is understood, with fields that we do not know."""
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


# -- the session's configuration ------------------------------------------------------------------


def test_what_an_update_leaves_out_stays() -> None:
    """Objects merge field by field, at any depth."""
    config = SessionConfig().updated({"avatar": {"video": {"encoding": "binary"}}})
    config = config.updated({"avatar": {"video": {"fps": 30}}, "instructions": "Hi"})
    assert config.avatar.video.encoding == "binary" and config.avatar.video.fps == 30
    config = config.updated({"audio": {"input": {"turn_detection": {"threshold": 0.7}}}})
    detection = config.audio.input.turn_detection
    assert detection is not None and detection.threshold == 0.7
    assert detection.silence_duration_ms == 500 and config.instructions == "Hi"


def test_null_turns_turn_detection_off_and_an_object_turns_it_on_again() -> None:
    """And on again means with this server's own defaults, not pydantic's."""
    ours = TurnDetection(silence_duration_ms=800)
    start = SessionConfig(default_turn_detection=ours)
    off = start.updated({"audio": {"input": {"turn_detection": None}}})
    assert off.audio.input.turn_detection is None
    on = off.updated({"audio": {"input": {"turn_detection": {"type": "server_vad"}}}})
    assert on.audio.input.turn_detection == ours


def test_null_is_no_change_in_stock_fields_that_cannot_be_off() -> None:
    """Some SDKs write every field they know: those nulls are harmless."""
    config = SessionConfig(instructions="Hi")
    same = config.updated({"instructions": None, "audio": {"output": {"voice": None}}})
    assert same == config


def test_a_format_is_replaced_whole() -> None:
    """G.711 after 48 kHz PCM is 8 kHz G.711, and PCM after that is 24 kHz again."""

    def asked(config: SessionConfig, **format: Any) -> SessionConfig:
        return config.updated({"audio": {"input": {"format": format}}})

    config = asked(SessionConfig(), type="audio/pcm", rate=48_000)
    config = asked(config, type="audio/pcmu")
    assert config.audio.input.format.rate == 8_000
    assert config.audio.input.format.bytes_per_sample == 1
    assert asked(config, type="audio/pcm").audio.input.format.rate == 24_000


def test_what_has_no_effect_reads_null() -> None:
    """Fields of the GA API without effect here are accepted, and the answer says so."""
    patch = {"tracing": "auto", "audio": {"input": {"noise_reduction": {"type": "far_field"}}}}
    wire = json.loads(SessionUpdated.of(SessionConfig().updated(patch), "sess_1").to_json())
    session = wire["session"]
    assert session["tracing"] is None and session["id"] == "sess_1"
    assert session["audio"]["input"]["noise_reduction"] is None
    assert "default_turn_detection" not in session


@pytest.mark.parametrize(
    ("patch", "code", "param"),
    [
        ({"type": "transcription"}, "invalid_value", "session.type"),
        ({"audio": 3}, "invalid_type", "session.audio"),
        ({"audio": {"input": {"format": "pcm16"}}}, "invalid_value", "session.audio.input.format"),
        (
            {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 44100}}}},
            "invalid_value",
            "session.audio.input.format",
        ),
        (
            {"audio": {"input": {"turn_detection": {"threshold": 7}}}},
            "invalid_value",
            "session.audio.input.turn_detection.threshold",
        ),
        ({"avatar": None}, "invalid_type", "session.avatar"),
        ({"avatar": {"id": "../../etc"}}, "invalid_value", "session.avatar.id"),
        ({"avatar": {"mode": "sing"}}, "invalid_value", "session.avatar.mode"),
        ({"avatar": {"video": {"fps": "25"}}}, "invalid_type", "session.avatar.video.fps"),
        ({"avatar": {"video": {"frps": 25}}}, "unknown_parameter", "session.avatar.video.frps"),
        ({"instructions": "x" * 300_000}, "session_too_large", "session"),
    ],
)
def test_a_bad_update_is_refused_whole(patch: dict[str, Any], code: str, param: str) -> None:
    """The error names the field; nothing of the update takes effect."""
    config = SessionConfig()
    with pytest.raises(ProtocolError) as caught:
        config.updated({"instructions": "never"} | patch, event_id="mine")
    error = caught.value
    assert (error.code, error.param, error.event_id) == (code, param, "mine")
    assert config.instructions == ""


# -- server events --------------------------------------------------------------------------------


def test_server_events_are_compact_json_with_an_event_id() -> None:
    """One line, no spaces, and every event has its own id."""
    first = AvatarSwitchToSpeaking(turn_id="r", generation=1, frame_index=0, cycle_index=7)
    second = SessionCreated.of(SessionConfig(), "sess_1")
    assert " " not in first.to_json() and first.event_id != second.event_id
    session = json.loads(second.to_json())["session"]
    assert session["object"] == "realtime.session" and session["type"] == "realtime"
    assert session["audio"]["output"]["format"] == {"type": "audio/pcm", "rate": 24000}


def test_a_frames_json_is_what_the_models_would_write() -> None:
    """Frames and audio are put together by hand; the result parses to the same fields."""
    frame = VideoDelta(
        response_id=new_id("resp"),
        frame_index=1,
        pts_ms=1000 / 30,
        region=(2, 4, 6, 8),
        generation=3,
        jpeg=b"\xff\xd8",
    )
    sent = json.loads(frame.to_json())
    assert base64.b64decode(sent.pop("delta")) == b"\xff\xd8" and sent.pop("codec") == "jpeg"
    assert sent.pop("pts_ms") == pytest.approx(1000 / 30, abs=1e-6)
    assert sent == frame.model_dump(mode="json", exclude={"jpeg", "pts_ms"})
    audio = OutputAudioDelta(response_id="r", item_id="i", audio=b"\x00\x01")
    sent = json.loads(audio.to_json())
    assert base64.b64decode(sent.pop("delta")) == b"\x00\x01"
    assert sent == audio.model_dump(exclude={"audio"})


def test_a_response_says_how_it_ended() -> None:
    """Cancelled by a new turn, or failed with an error: `status_details` tells."""
    cut = response_object("r", generation=9, status="cancelled", reason="turn_detected")
    assert cut.status_details is not None
    assert (cut.status_details.type, cut.status_details.reason) == ("cancelled", "turn_detected")
    fault = ProtocolError("tts_failed", "No voice.", type="server_error")
    failed = response_object("r", generation=9, status="failed", error=fault)
    assert failed.status_details is not None and failed.status_details.error is not None
    assert failed.status_details.error.code == "tts_failed"
    assert json.loads(ResponseCreated(response=cut).to_json())["response"]["generation"] == 9
