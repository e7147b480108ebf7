"""How audio is stored in bytes on the wire, and which voice speaks. Knows no samples."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from .base import ClientObject, StrictObject, refuse

__all__ = ["AudioFormat", "Voice"]

_BETA_FORMATS = {
    "pcm16": '{"type": "audio/pcm", "rate": 24000}',
    "g711_ulaw": '{"type": "audio/pcmu"}',
    "g711_alaw": '{"type": "audio/pcma"}',
}


class AudioFormat(StrictObject):
    """PCM16 little-endian mono at 16, 24 or 48 kHz, or G.711 at 8 kHz."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: int = 24_000

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any) -> Any:
        name = data.get("type") if isinstance(data, dict) else data
        if isinstance(name, str) and name in _BETA_FORMATS:
            raise refuse("invalid_value", f"{name!r} is a beta name. Use {_BETA_FORMATS[name]}.")
        if not isinstance(data, dict):
            return data
        given = {key: value for key, value in data.items() if value is not None}
        g711 = given.get("type") in ("audio/pcmu", "audio/pcma")
        return {"rate": 8_000 if g711 else 24_000, **given}

    @model_validator(mode="after")
    def _known_rate(self) -> AudioFormat:
        rates = (16_000, 24_000, 48_000) if self.type == "audio/pcm" else (8_000,)
        if self.rate not in rates:
            allowed = " or ".join(map(str, rates))
            raise refuse("invalid_value", f"{self.type} has a rate of {allowed} Hz.")
        return self

    @property
    def bytes_per_sample(self) -> int:
        return 2 if self.type == "audio/pcm" else 1


class VoiceReference(ClientObject):
    id: str


def _voice_name(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"id"}:
        return value["id"]
    return value


Voice = Annotated[str, BeforeValidator(_voice_name, json_schema_input_type=str | VoiceReference)]
"""A voice's name; the GA API's ``{"id": …}`` is read as that name. Empty: the configured voice."""
