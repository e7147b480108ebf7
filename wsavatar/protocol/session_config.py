"""A session's configuration: what ``session.update`` may change, and how it merges.

Knows the wire's shapes and limits; not what a session does with them.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ProtocolError
from .validation import protocol_error

__all__ = [
    "MAX_SESSION_BYTES",
    "AudioConfig",
    "AudioFormat",
    "AudioInput",
    "AudioOutput",
    "AvatarConfig",
    "SessionConfig",
    "TurnDetection",
    "VideoConfig",
]

MAX_SESSION_BYTES = 256 * 1024
"""Largest configuration a session keeps, as JSON: fields we only echo are a client's to grow."""

AvatarId = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,63})?$")]
"""A name, never a path; empty: the server's default."""

_STOCK = ConfigDict(extra="allow", frozen=True)
_OURS = ConfigDict(extra="forbid", frozen=True, strict=True)


class AudioFormat(BaseModel):
    """How audio lies in bytes: PCM16 little-endian mono, or G.711."""

    model_config = _STOCK

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: int = 24_000

    @model_validator(mode="before")
    @classmethod
    def _g711_is_8_khz(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("type") in ("audio/pcmu", "audio/pcma"):
            return {"rate": 8000, **{k: v for k, v in data.items() if v is not None}}
        if isinstance(data, dict) and data.get("rate", 0) is None:
            return {k: v for k, v in data.items() if k != "rate"}
        return data

    @model_validator(mode="after")
    def _known_rate(self) -> AudioFormat:
        rates = (16_000, 24_000, 48_000) if self.type == "audio/pcm" else (8_000,)
        if self.rate not in rates:
            raise ValueError(f"{self.type} may have a rate of {', '.join(map(str, rates))} Hz")
        return self

    @property
    def bytes_per_sample(self) -> int:
        return 2 if self.type == "audio/pcm" else 1


class TurnDetection(BaseModel):
    """When a turn begins and ends, and what the server does about it."""

    model_config = _STOCK

    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    prefix_padding_ms: Annotated[int, Field(ge=0, le=2000)] = 300
    silence_duration_ms: Annotated[int, Field(ge=100, le=5000)] = 500
    create_response: bool = True
    interrupt_response: bool = True


class AudioInput(BaseModel):
    model_config = _STOCK

    format: AudioFormat = AudioFormat()
    turn_detection: TurnDetection | None = TurnDetection()
    transcription: dict[str, Any] | None = None
    noise_reduction: dict[str, Any] | None = None


class AudioOutput(BaseModel):
    model_config = _STOCK

    format: AudioFormat = AudioFormat()
    voice: str | dict[str, Any] = ""
    """A name, or the Realtime API's ``{"id": …}``; empty: the configured voice."""
    speed: float = 1.0

    @property
    def voice_name(self) -> str:
        return self.voice if isinstance(self.voice, str) else str(self.voice.get("id", ""))


class AudioConfig(BaseModel):
    model_config = _STOCK

    input: AudioInput = AudioInput()
    output: AudioOutput = AudioOutput()


class VideoConfig(BaseModel):
    """What frames are to be. ``max_width``: JPEGs are scaled down to it; null: never."""

    model_config = _OURS

    encoding: Literal["json", "binary"] = "json"
    region: Literal["full", "mouth"] = "full"
    fps: Annotated[int, Field(ge=5, le=60)] = 25
    quality: Annotated[int, Field(ge=10, le=100)] = 85
    max_width: Annotated[int, Field(ge=64, le=4096)] | None = None


class AvatarConfig(BaseModel):
    model_config = _OURS

    id: AvatarId = ""
    mode: Literal["mirror", "parrot", "chat", "upstream"] = "parrot"
    video: VideoConfig = VideoConfig()


class SessionConfig(BaseModel):
    """All of a session's configuration; immutable: `updated` makes the next one.

    ``default_turn_detection`` is not on the wire: what an object for ``turn_detection`` is filled
    up from where none was in force.
    """

    model_config = _STOCK

    type: Literal["realtime"] = "realtime"
    model: str = "wsavatar"
    instructions: str = ""
    output_modalities: list[Literal["audio", "text"]] = ["audio"]
    audio: AudioConfig = AudioConfig()
    tools: list[Any] = []
    tool_choice: Any = "auto"
    max_output_tokens: int | Literal["inf"] = "inf"
    avatar: AvatarConfig = AvatarConfig()
    default_turn_detection: TurnDetection = Field(TurnDetection(), exclude=True)

    def updated(self, patch: dict[str, Any], event_id: str | None = None) -> SessionConfig:
        """This configuration with a ``session.update``'s ``session`` merged into it.

        Raises `ProtocolError`, whose ``param`` is the field's path; this one stays in force.
        """
        patch = {k: v for k, v in patch.items() if k not in ("id", "object", "expires_at")}
        patch.pop("default_turn_detection", None)
        merged = _merge(self.model_dump(mode="json"), patch, "session")
        self._fill_turn_detection(merged, patch)
        if len(json.dumps(merged)) > MAX_SESSION_BYTES:
            raise ProtocolError(
                "session_too_large",
                f"A session's configuration may have {MAX_SESSION_BYTES} bytes as JSON.",
                param="session",
                event_id=event_id,
            )
        try:
            new = SessionConfig.model_validate(merged)
        except ValidationError as error:
            raise protocol_error(error, prefix="session", event_id=event_id) from None
        return new.model_copy(update={"default_turn_detection": self.default_turn_detection})

    def to_wire(self, session_id: str) -> dict[str, Any]:
        """The ``session`` of ``session.created`` and ``session.updated``."""
        head = {"id": session_id, "object": "realtime.session"}
        return head | self.model_dump(mode="json")

    def _fill_turn_detection(self, merged: dict[str, Any], patch: dict[str, Any]) -> None:
        """A detector of another type than the one in force starts from the defaults."""
        asked = patch
        for key in ("audio", "input", "turn_detection"):
            asked = asked.get(key) if isinstance(asked, dict) else None  # type: ignore[assignment]
        if not isinstance(asked, dict):
            return
        now = self.audio.input.turn_detection
        if now is None or asked.get("type", now.type) != now.type:
            filled = self.default_turn_detection.model_dump(mode="json")
            merged["audio"]["input"]["turn_detection"] = filled | _without_nulls(asked)


_REPLACED_WHOLE = {
    "session.audio.input.format",
    "session.audio.output.format",
    "session.audio.input.transcription",
    "session.audio.input.noise_reduction",
    "session.audio.output.voice",
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


def _without_nulls(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if value is not None}
