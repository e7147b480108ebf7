"""A session's configuration: what ``session.update`` may change, and how it merges.

Knows the wire's shapes and limits; not what a session does with them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from .audio_format import AudioFormat, Voice
from .base import (
    BackgroundName,
    ClientObject,
    Ignored,
    MaxOutputTokens,
    OutputModalities,
    StrictObject,
    refuse,
)
from .errors import ProtocolError
from .responses import NO_PROMPTS
from .tools import Tool, ToolChoice
from .validation import protocol_error

__all__ = [
    "MAX_SESSION_BYTES",
    "AudioConfig",
    "AudioFormat",
    "AudioInput",
    "AudioOutput",
    "AvatarConfig",
    "SessionConfig",
    "SessionObject",
    "Transcription",
    "TurnDetection",
    "VideoConfig",
]

MAX_SESSION_BYTES = 256 * 1024
"""Largest configuration a session keeps, as JSON: instructions and tools are a client's to grow."""

AvatarId = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,63})?$")]
"""A name, never a path; empty: the server's default."""


class TurnDetection(StrictObject):
    """When a turn begins and ends, and what the server does about it.

    ``semantic_vad``: the silence that ends a turn depends on whether the words so far read as
    finished, and on ``eagerness``, which ``server_vad`` does not have.
    """

    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    prefix_padding_ms: Annotated[int, Field(ge=0, le=2000)] = 300
    silence_duration_ms: Annotated[int, Field(ge=100, le=5000)] = 500
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: Ignored = None

    @model_serializer(mode="wrap")
    def _without_what_it_lacks(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = write(self)
        if self.type == "server_vad":
            fields.pop("eagerness", None)
        return fields


class Transcription(ClientObject):
    """How what the user says is transcribed. ``model``: the engine's name, whatever was asked for.

    ``languages``, ``keywords`` and ``delay`` are accepted without effect, and not sent: Pipecat's
    client fails at fields that it does not know.
    """

    model: str | None = None
    language: Annotated[str, Field(max_length=64)] | None = None
    prompt: str | None = None
    languages: Annotated[Ignored, Field(exclude=True)] = None
    keywords: Annotated[Ignored, Field(exclude=True)] = None
    delay: Annotated[Ignored, Field(exclude=True)] = None


class AudioInput(StrictObject):
    format: AudioFormat = AudioFormat()
    turn_detection: TurnDetection | None = TurnDetection()
    transcription: Transcription | None = None
    noise_reduction: Ignored = None


def _only_speed(_: float) -> float:
    return 1.0


class AudioOutput(StrictObject):
    """``speed`` is accepted, and reads 1: voices speak at their own speed."""

    format: AudioFormat = AudioFormat()
    voice: Voice = ""
    speed: Annotated[float, Field(ge=0.25, le=1.5), AfterValidator(_only_speed)] = 1.0


class AudioConfig(StrictObject):
    moved = {
        "turn_detection": "session.audio.input.turn_detection",
        "transcription": "session.audio.input.transcription",
        "noise_reduction": "session.audio.input.noise_reduction",
        "format": "session.audio.input.format or session.audio.output.format",
        "voice": "session.audio.output.voice",
        "speed": "session.audio.output.speed",
    }

    input: AudioInput = AudioInput()
    output: AudioOutput = AudioOutput()


class VideoConfig(StrictObject):
    """How frames are sent. ``max_width``: they are scaled down to it; null: never.

    ``background``: what is behind the avatar. Transparent frames need the codec ``webp`` or
    ``png``.
    """

    model_config = ConfigDict(strict=True)

    encoding: Literal["json", "binary", "none"] = "json"
    region: Literal["full", "mouth"] = "full"
    fps: Annotated[int, Field(ge=5, le=60)] = 25
    quality: Annotated[int, Field(ge=10, le=100)] = 85
    max_width: Annotated[int, Field(ge=64, le=4096)] | None = None
    codec: Literal["jpeg", "webp", "png"] = "jpeg"
    background: BackgroundName = "original"

    @model_validator(mode="after")
    def _can_be_transparent(self) -> Self:
        if self.background == "transparent" and self.codec == "jpeg":
            raise refuse(
                "invalid_value",
                "JPEG frames cannot be transparent: ask for the codec 'webp' or 'png' too.",
                field="codec",
            )
        return self


class AvatarConfig(StrictObject):
    model_config = ConfigDict(strict=True)
    moved = {name: f"session.avatar.video.{name}" for name in VideoConfig.model_fields}

    id: AvatarId = ""
    mode: Literal["mirror", "parrot", "chat", "upstream"] = "parrot"
    video: VideoConfig = VideoConfig()


def _realtime_only(value: Any) -> Any:
    if value == "transcription":
        raise refuse(
            "invalid_value",
            "This server has realtime sessions only. Leave type out, or send 'realtime'.",
        )
    return value


def _own_name(_: str) -> str:
    return "wsavatar"


class SessionConfig(StrictObject):
    """A session's whole configuration; immutable: `updated` makes the next one.

    The ``internal`` fields are not on the wire.
    """

    moved = {
        "modalities": "session.output_modalities",
        "voice": "session.audio.output.voice",
        "speed": "session.audio.output.speed",
        "input_audio_format": "session.audio.input.format",
        "output_audio_format": "session.audio.output.format",
        "input_audio_transcription": "session.audio.input.transcription",
        "input_audio_noise_reduction": "session.audio.input.noise_reduction",
        "turn_detection": "session.audio.input.turn_detection",
        "max_response_output_tokens": "session.max_output_tokens",
        "temperature": "",
        "mode": "session.avatar.mode",
        "video": "session.avatar.video",
    }
    unsupported = {"prompt": NO_PROMPTS}
    internal = frozenset({"default_turn_detection", "default_voice", "transcriber", "passed_on"})

    type: Annotated[Literal["realtime"], BeforeValidator(_realtime_only)] = "realtime"
    model: Annotated[str, AfterValidator(_own_name)] = "wsavatar"
    instructions: str = ""
    output_modalities: OutputModalities = ["audio"]
    audio: AudioConfig = AudioConfig()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    max_output_tokens: MaxOutputTokens = "inf"
    parallel_tool_calls: Ignored = None
    reasoning: Ignored = None
    tracing: Ignored = None
    truncation: Ignored = None
    include: Ignored = None
    avatar: AvatarConfig = AvatarConfig()
    # Fills in what a turn_detection leaves out where none of its type was in force.
    default_turn_detection: SkipJsonSchema[TurnDetection] = Field(
        default=TurnDetection(), exclude=True
    )
    # What an empty voice means: a name, or several with commas between them, for different engines.
    default_voice: SkipJsonSchema[str] = Field(default="", exclude=True)
    # The server's engine of speech recognition; empty: there is none, and nothing is transcribed.
    transcriber: SkipJsonSchema[str] = Field(default="", exclude=True)
    # What a client has set and this server does not use: mode "upstream" sends it on.
    passed_on: SkipJsonSchema[dict[str, Any]] = Field(default={}, exclude=True)

    @property
    def voice(self) -> str:
        """The voice in force: the client's, or the default one."""
        return self.audio.output.voice or self.default_voice

    @property
    def voice_name(self) -> str:
        """The voice as a client is shown it: of a default with several names, the first."""
        return self.audio.output.voice or _first(self.default_voice)

    def updated(self, patch: dict[str, Any], event_id: str | None = None) -> SessionConfig:
        """This configuration with a ``session.update``'s ``session`` merged into it.

        Raises `ProtocolError`, whose ``param`` is the field's path; this one stays in force.
        """
        patch = {key: value for key, value in patch.items() if key not in _READ_ONLY}
        for name in self.internal & patch.keys():
            param = f"session.{name}"
            raise ProtocolError(
                "unknown_parameter", f"{param}: Unknown field.", param=param, event_id=event_id
            )
        passed_on = _passed_on(self.passed_on, patch, _PASSED_ON)
        merged = _merge(self.model_dump(mode="json"), patch, "session")
        self._fill_turn_detection(merged, patch)
        if len(json.dumps(merged)) + len(json.dumps(passed_on)) > MAX_SESSION_BYTES:
            raise ProtocolError(
                "session_too_large",
                f"A session's configuration can have at most {MAX_SESSION_BYTES} bytes as JSON.",
                param="session",
                event_id=event_id,
            )
        try:
            new = SessionConfig.model_validate(merged)
        except ValidationError as error:
            raise protocol_error(error, prefix="session", event_id=event_id) from None
        return new._with_internals(self.model_copy(update={"passed_on": passed_on}))

    def asks_for_other_input(self, patch: dict[str, Any]) -> bool:
        """Whether a ``session.update``, refused or not, wants another input format than this.

        Misplaced and beta-style names count too: a client that believes in them sends audio that
        would be misread.
        """
        for asked in _input_formats(patch):
            try:
                form = AudioFormat.model_validate({} if asked == "pcm16" else asked)
            except ValidationError:
                return True
            if form != self.audio.input.format:
                return True
        return False

    def on_wire(self, session_id: str) -> SessionObject:
        """The ``session`` of ``session.created`` and ``session.updated``."""
        fields = {name: getattr(self, name) for name in SessionConfig.model_fields}
        output = self.audio.output.model_copy(update={"voice": self.voice_name})
        fields["audio"] = self.audio.model_copy(update={"output": output})
        return SessionObject.model_construct(id=session_id, **fields)

    def _with_internals(self, old: SessionConfig) -> SessionConfig:
        """This configuration with what ``old`` has besides; it promises no more than it can do."""
        heard, spoken = self.audio.input, self.audio.output
        if spoken.voice == _first(old.default_voice):  # not a choice: it follows the default
            spoken = spoken.model_copy(update={"voice": ""})
        asked = heard.transcription
        if asked is not None and self.avatar.mode != "upstream":  # there it is the other server's
            engine = {"model": old.transcriber}
            given = asked.model_copy(update=engine) if old.transcriber else None
            heard = heard.model_copy(update={"transcription": given})
        audio = self.audio.model_copy(update={"input": heard, "output": spoken})
        internal = {name: getattr(old, name) for name in self.internal}
        return self.model_copy(update={"audio": audio, **internal})

    def _fill_turn_detection(self, merged: dict[str, Any], patch: dict[str, Any]) -> None:
        """Where none of this type was in force, what is left out comes from the defaults."""
        asked = patch
        for key in ("audio", "input", "turn_detection"):
            asked = asked.get(key) if isinstance(asked, dict) else None  # type: ignore[assignment]
        if not isinstance(asked, dict):
            return
        asked = _without_nulls(asked)
        before = self.audio.input.turn_detection
        if before is None or asked.get("type", before.type) != before.type:
            filled = self.default_turn_detection.model_dump(mode="json")
            merged["audio"]["input"]["turn_detection"] = filled | asked


class SessionObject(SessionConfig):
    """A session as events show it."""

    object: Literal["realtime.session"] = "realtime.session"
    id: str


_READ_ONLY = frozenset({"id", "object", "expires_at"})
"""What a client may send back as it came."""
_REPLACED_WHOLE = {
    "session.audio.input.format",
    "session.audio.output.format",
    "session.audio.input.transcription",
    "session.tool_choice",
}
_NOT_NULLABLE = {
    "session": {"type", "model", "instructions", "output_modalities", "audio", "tools"}
    | {"tool_choice", "max_output_tokens"},
    "session.audio": {"input", "output"},
    "session.audio.input": {"format"},
    "session.audio.output": {"format", "voice", "speed"},
    "session.audio.input.turn_detection": set(TurnDetection.model_fields),
}


_PASSED_ON: dict[str, Any] = {
    **dict.fromkeys(("tracing", "truncation", "include", "reasoning", "parallel_tool_calls")),
    "audio": {
        "input": {
            "noise_reduction": None,
            "turn_detection": {"idle_timeout_ms": None},
            "transcription": {"languages": None, "keywords": None, "delay": None},
        },
        "output": {"speed": 1.0},
    },
}
"""What a session shows of these fields, whatever was asked for."""


def _passed_on(old: dict[str, Any], patch: dict[str, Any], shown: dict[str, Any]) -> dict[str, Any]:
    """``old`` with such fields of a patch. What a client sends back as it was shown is no wish."""
    new = dict(old)
    for key in shown.keys() & patch.keys():
        value, default = patch[key], shown[key]
        if isinstance(default, dict):
            inner = _passed_on(old.get(key, {}), value, default) if isinstance(value, dict) else {}
            new |= {key: inner} if inner else {}
        elif key in old or value != default:
            new[key] = default if value is None else value
    return new


def _merge(base: dict[str, Any], patch: dict[str, Any], path: str) -> dict[str, Any]:
    """``base`` with ``patch`` over it, object by object; a stock field's null leaves it alone."""
    merged = dict(base)
    for key, value in patch.items():
        here = f"{path}.{key}"
        if value is None and key in _NOT_NULLABLE.get(path, ()):
            continue
        old = base.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and here not in _REPLACED_WHOLE:
            merged[key] = _merge(old, value, here)
        else:
            merged[key] = value
    return merged


def _input_formats(patch: dict[str, Any]) -> Iterator[Any]:
    """What a client wrote as the input's format, wherever it put it."""
    for key, value in patch.items():
        if key.startswith("output") or value is None:
            continue
        if "format" in key:
            yield value
        elif key in ("audio", "input") and isinstance(value, dict):
            yield from _input_formats(value)


def _first(names: str) -> str:
    return names.partition(",")[0].strip()


def _without_nulls(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if value is not None}
