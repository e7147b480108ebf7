"""A session's configuration: how updates merge, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wsavatar.protocol.events import (
    AudioFormat,
    ProtocolError,
    SessionConfig,
    SessionUpdated,
    TurnDetection,
)


def refused(**patch: Any) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        SessionConfig().updated(patch)
    return caught.value


def as_sent(config: SessionConfig) -> dict[str, Any]:
    """The session as ``session.updated`` shows it."""
    session: dict[str, Any] = json.loads(SessionUpdated.of(config, "sess_1").to_json())["session"]
    return session


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
    config = SessionConfig().updated(
        {
            "tracing": "auto",
            "truncation": "disabled",
            "include": ["item.input_audio_transcription.logprobs"],
            "reasoning": {"effort": "low"},
            "parallel_tool_calls": False,
            "audio": {
                "input": {
                    "noise_reduction": {"type": "far_field"},
                    "transcription": {"model": "gpt-4o-transcribe", "language": "de"},
                    "turn_detection": {"type": "server_vad", "idle_timeout_ms": 5000},
                }
            },
        }
    )
    session = as_sent(config)
    for name in ("tracing", "truncation", "include", "reasoning", "parallel_tool_calls"):
        assert session[name] is None
    heard = session["audio"]["input"]
    assert heard["noise_reduction"] is None and heard["transcription"] is None
    assert heard["turn_detection"]["idle_timeout_ms"] is None
    assert session["id"] == "sess_1" and "default_turn_detection" not in session


def test_what_is_in_force_reads_as_it_is() -> None:
    """The speed and the model are this server's, whatever was asked."""
    config = SessionConfig().updated(
        {"model": "gpt-realtime", "audio": {"output": {"speed": 1.25}}}
    )
    session = as_sent(config)
    assert session["audio"]["output"]["speed"] == 1.0 and session["model"] == "wsavatar"


def test_semantic_vad_is_a_detector_of_its_own() -> None:
    """It has an eagerness; going to it or back, what is left out is the server's, and what is
    changed later stays."""
    defaults = TurnDetection(threshold=0.7, create_response=False)
    config = SessionConfig(default_turn_detection=defaults)

    def detected(**asked: Any) -> dict[str, Any]:
        nonlocal config
        config = config.updated({"audio": {"input": {"turn_detection": asked}}})
        shown: dict[str, Any] = as_sent(config)["audio"]["input"]["turn_detection"]
        return shown

    semantic = detected(type="semantic_vad", eagerness="low", interrupt_response=False)
    assert (semantic["type"], semantic["eagerness"]) == ("semantic_vad", "low")
    assert (semantic["threshold"], semantic["create_response"]) == (0.7, False)
    again = detected(threshold=0.6)
    assert (again["type"], again["eagerness"], again["threshold"]) == ("semantic_vad", "low", 0.6)
    assert again["interrupt_response"] is False
    plain = detected(type="server_vad", eagerness="high")
    assert "eagerness" not in plain
    assert (plain["threshold"], plain["interrupt_response"]) == (0.7, True)
    assert detected(type="semantic_vad")["eagerness"] == "auto"
    with pytest.raises(ProtocolError) as caught:
        detected(type="semantic_vad", eagerness="very")
    assert caught.value.param == "session.audio.input.turn_detection.eagerness"


def test_the_voice_follows_the_default_until_one_is_chosen() -> None:
    """An avatar brings its voice as the default: a chosen voice stays, the default is replaced."""
    followed = SessionConfig(default_voice="aria").updated({"instructions": "Hi"})
    chosen = followed.updated({"audio": {"output": {"voice": "bert"}}})
    other = {"default_voice": "cara"}
    assert followed.model_copy(update=other).voice == "cara"
    assert chosen.model_copy(update=other).voice == "bert"
    back = chosen.updated({"audio": {"output": {"voice": ""}}})
    assert (back.voice, back.model_copy(update=other).voice) == ("aria", "cara")


def test_a_voice_reference_comes_back_as_a_name() -> None:
    """``{"id": …}`` is accepted; the GA schema of a session has a string."""
    config = SessionConfig().updated({"audio": {"output": {"voice": {"id": "aria"}}}})
    assert as_sent(config)["audio"]["output"]["voice"] == "aria"


def test_instructions_and_tools_are_kept() -> None:
    """They come back as they were sent."""
    tools = [{"type": "function", "name": "now", "description": "d", "parameters": {"a": 1}}]
    config = SessionConfig().updated(
        {
            "instructions": "Be brief.",
            "tools": tools,
            "tool_choice": {"type": "function", "name": "now"},
            "max_output_tokens": 100,
        }
    )
    session = as_sent(config)
    assert session["tools"] == tools and session["tool_choice"]["name"] == "now"
    assert session["instructions"] == "Be brief." and session["max_output_tokens"] == 100
    assert as_sent(config.updated({"tool_choice": "none"}))["tool_choice"] == "none"


@pytest.mark.parametrize(
    "patch",
    [
        {},
        {"audio": {"output": {"voice": "aria"}}},
        {"audio": {"output": {"voice": ""}}},
        {"audio": {"output": {"voice": {"id": "aria"}}}},
        {"audio": {"input": {"turn_detection": {"type": "server_vad"}}}},
        {"audio": {"input": {"format": {"type": "audio/pcm"}}}},
        {"avatar": {"id": "ada", "mode": "parrot", "video": {"fps": 25}}},
        {"type": "realtime", "instructions": ""},
    ],
)
def test_a_setting_repeated_changes_nothing(patch: dict[str, Any]) -> None:
    """The present value, or ``""`` for the default voice: the configuration stays equal."""
    config = SessionConfig(default_voice="aria").updated(
        {"avatar": {"id": "ada"}, "audio": {"output": {"voice": ""}}}
    )
    assert config.voice == "aria"
    assert config.updated(patch) == config


def test_a_whole_session_can_be_sent_back() -> None:
    """What ``session.updated`` showed is a valid ``session.update`` that changes nothing."""
    config = SessionConfig(default_voice="aria").updated({"instructions": "Hi"})
    assert config.updated(as_sent(config) | {"expires_at": 1}) == config


@pytest.mark.parametrize(
    ("patch", "hint"),
    [
        ({"modalities": ["audio", "text"]}, "session.output_modalities"),
        ({"voice": "alloy"}, "session.audio.output.voice"),
        ({"input_audio_format": "pcm16"}, "session.audio.input.format"),
        ({"output_audio_format": "pcm16"}, "session.audio.output.format"),
        ({"turn_detection": None}, "session.audio.input.turn_detection"),
        ({"input_audio_transcription": {}}, "session.audio.input.transcription"),
        ({"input_audio_noise_reduction": {}}, "session.audio.input.noise_reduction"),
        ({"max_response_output_tokens": 9}, "session.max_output_tokens"),
        ({"temperature": 0.8}, "Leave it out"),
        ({"speed": 1.1}, "session.audio.output.speed"),
    ],
)
def test_a_beta_field_is_refused_with_its_new_place(patch: dict[str, Any], hint: str) -> None:
    """A client written for the beta API learns what to change."""
    error = refused(**patch)
    assert (error.code, error.param) == ("unknown_parameter", f"session.{next(iter(patch))}")
    assert hint in error.message


@pytest.mark.parametrize(
    ("patch", "param", "hint"),
    [
        ({"instuctions": "x"}, "session.instuctions", "'instructions'"),
        ({"audio": {"inptu": {}}}, "session.audio.inptu", "'input'"),
        (
            {"audio": {"input": {"turn_detection": {"treshold": 0.4}}}},
            "session.audio.input.turn_detection.treshold",
            "'threshold'",
        ),
        (
            {"audio": {"input": {"transcription": {"modle": "x"}}}},
            "session.audio.input.transcription.modle",
            "'model'",
        ),
        (
            {"audio": {"output": {"voise": "x"}}},
            "session.audio.output.voise",
            "'voice'",
        ),
        ({"tools": [{"nmae": "x"}]}, "session.tools[0].nmae", "'name'"),
        ({"avatar": {"video": {"kodec": "webp"}}}, "session.avatar.video.kodec", "'codec'"),
        ({"avatar": {"background": "#00b140"}}, "session.avatar.background", "avatar.video.backg"),
        ({"audio": {"voice": "x"}}, "session.audio.voice", "session.audio.output.voice"),
        ({"avatar": {"fps": 30}}, "session.avatar.fps", "session.avatar.video.fps"),
        ({"mode": "mirror"}, "session.mode", "session.avatar.mode"),
        ({"default_voice": "x"}, "session.default_voice", ""),
        ({"default_turn_detection": {}}, "session.default_turn_detection", ""),
    ],
)
def test_a_misspelt_field_is_refused_with_a_suggestion(
    patch: dict[str, Any], param: str, hint: str
) -> None:
    """In every object of the session, by its whole path."""
    error = refused(**patch)
    assert (error.code, error.param) == ("unknown_parameter", param)
    assert hint in error.message


@pytest.mark.parametrize(
    "patch",
    [
        {"input_audio_format": "g711_ulaw"},
        {"audio": {"input_audio_format": "g711_ulaw"}},
        {"audio": {"input": {"format": "g711_ulaw"}}},
        {"audio": {"input": {"format": "audio/pcmu"}}},
        {"audio": {"input": {"format": {"type": "g711_ulaw"}}}},
        {"audio": {"input": {"format": {"type": "audio/PCMU"}}}},
        {"audio": {"input": {"format": {"format": "audio/pcmu"}}}},
        {"audio": {"input": {"format": {"type": "audio/pcmu", "rate": 16000}}}},
        {"audio": {"input": {"audio_format": {"type": "audio/pcmu"}}}},
        {"audio": {"format": {"type": "audio/pcmu"}}},
    ],
)
def test_mu_law_is_never_read_as_pcm(patch: dict[str, Any]) -> None:
    """However it is asked for: it is agreed, or there is an error that says how to ask.

    After that error a session refuses audio, since the client may send mu-law all the same.
    """
    assert refused(**patch).code in ("unknown_parameter", "invalid_value", "invalid_type")
    assert SessionConfig().asks_for_other_input(patch)
    agreed = SessionConfig().updated({"audio": {"input": {"format": {"type": "audio/pcmu"}}}})
    assert agreed.audio.input.format == AudioFormat(type="audio/pcmu", rate=8000)


@pytest.mark.parametrize(
    "patch",
    [
        {"input_audio_format": "pcm16", "output_audio_format": "g711_ulaw"},
        {"audio": {"output": {"format": {"type": "audio/pcmu"}}}},
        {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 24000}}}, "voice": "x"},
        {"audio": {"input": {"format": None}}, "temperature": 1},
        {"instructions": "format"},
        {"audio": 3, "modalities": ["audio"]},
    ],
)
def test_an_update_that_keeps_the_input_format(patch: dict[str, Any]) -> None:
    """The format in force, by any name, or none: audio that follows is read as it is meant."""
    assert not SessionConfig().asks_for_other_input(patch)


def test_a_transcription_session_is_refused_in_words() -> None:
    """The error says what this server has instead."""
    assert "realtime sessions only" in refused(type="transcription").message


def test_a_prompt_template_is_refused_in_words() -> None:
    """Its text would be missing, and the avatar would say something else."""
    error = refused(prompt={"id": "pmpt_1"})
    assert (error.code, error.param) == ("unsupported_parameter", "session.prompt")
    assert SessionConfig().updated({"prompt": None}) == SessionConfig()


@pytest.mark.parametrize(
    ("asked", "code", "param"),
    [
        ({"turn_detection": {"eagerness": 3}}, "invalid_value", "turn_detection.eagerness"),
        ({"turn_detection": {"type": "none"}}, "invalid_value", "turn_detection.type"),
        ({"turn_detection": {"type": ["server_vad"]}}, "invalid_value", "turn_detection.type"),
        ({"turn_detection": []}, "invalid_type", "turn_detection"),
        ({"transcription": "whisper-1"}, "invalid_type", "transcription"),
        ({"transcription": {"language": "x" * 65}}, "too_long", "transcription.language"),
        ({"transcription": {"language": 3}}, "invalid_type", "transcription.language"),
        ({"transcription": {"prompt": ["x"]}}, "invalid_type", "transcription.prompt"),
    ],
)
def test_a_wrong_field_of_the_input_is_named(asked: dict[str, Any], code: str, param: str) -> None:
    """Turn detection and transcription: the error has the field's whole path."""
    error = refused(audio={"input": asked})
    assert (error.code, error.param) == (code, f"session.audio.input.{param}")


def test_frames_can_be_switched_off() -> None:
    """``encoding: "none"``: sound alone, and no event that a stock client does not know."""
    config = SessionConfig().updated({"avatar": {"video": {"encoding": "none"}}})
    assert config.avatar.video.encoding == "none"


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
