"""What the upstream is told, and how what it says is read. Pure: JSON, no connection."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from wsavatar.config import UpstreamSettings
from wsavatar.dialogue.base import DialogueConfig, ResponseRequest
from wsavatar.dialogue.conversation import Entry, Recording
from wsavatar.media.audio import encode, resample
from wsavatar.protocol.events import (
    AssistantMessage,
    InputAudioPart,
    ProtocolError,
    UserMessage,
)

from .user_audio import RATE

__all__ = [
    "Json",
    "Nonsense",
    "changed",
    "item_of",
    "number",
    "problem_of",
    "response_of",
    "section",
    "session_of",
    "text",
]

Json = dict[str, Any]

_PCM = {"type": "audio/pcm", "rate": RATE}
_MAX_ID_CHARS = 512
_MAX_MESSAGE_CHARS = 1000
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


# -- told -----------------------------------------------------------------------------------------


def session_of(config: DialogueConfig, settings: UpstreamSettings) -> Json:
    """The ``session`` of a ``session.update``. Empty texts are left to the upstream."""
    session: Json = {
        "type": "realtime",
        "output_modalities": [config.modality],
        "audio": {
            "input": {
                "format": _PCM,
                "turn_detection": _turn_detection(config),
                "transcription": _transcription(config, settings),
            },
            "output": {"format": _PCM},
        },
        "tools": [_json(tool) for tool in config.tools],
        "tool_choice": _json(config.tool_choice),
        "max_output_tokens": config.max_output_tokens,
    }
    instructions = config.instructions or settings.instructions or config.persona.instructions
    if instructions:
        session["instructions"] = instructions
    if voice := config.voice or settings.voice:
        session["audio"]["output"]["voice"] = voice
    return _with(session, config.passed_on)


def _with(session: Json, more: Mapping[str, Any]) -> Json:
    """Both; nothing is added to what is off (null)."""
    both = dict(session)
    for key, value in more.items():
        if key not in both:
            both[key] = value
        elif isinstance(both[key], dict) and isinstance(value, Mapping):
            both[key] = _with(both[key], value)
    return both


def changed(old: Json, new: Json) -> Json:
    """What of ``new`` is not in ``old``, group by group; empty: nothing.

    An upstream refuses some settings once it has spoken, though they are what they were.
    """
    different: Json = {}
    for key, value in new.items():
        before = old.get(key)
        if value == before:
            continue
        if key in ("audio", "input", "output") and isinstance(before, dict):
            value = changed(before, value)
        different[key] = value
    return different


def response_of(request: ResponseRequest, known: Mapping[str, object]) -> Json:
    """The ``response`` of a ``response.create``; ``known``: the items that the upstream has."""
    response: Json = {
        "conversation": "auto" if request.in_conversation else "none",
        "output_modalities": [request.modality],
    }
    if request.input is not None:
        items = [
            {"type": "item_reference", "id": entry.id} if entry.id in known else item_of(entry)
            for entry in request.input
        ]
        response["input"] = [item for item in items if item is not None]
    if request.tools is not None:
        response["tools"] = [_json(tool) for tool in request.tools]
    if request.voice:
        response["audio"] = {"output": {"voice": request.voice}}
    optional = {
        "instructions": request.instructions,
        "tool_choice": _json(request.tool_choice),
        "max_output_tokens": request.max_output_tokens,
        "metadata": dict(request.metadata) if request.metadata is not None else None,
    }
    return response | {name: value for name, value in optional.items() if value is not None}


def item_of(entry: Entry, *, as_text: bool = False) -> Json | None:
    """An item as a client creates it; None: there is nothing in it that an upstream would take.

    ``as_text``: what the user said, where it is known, instead of the sound.
    """
    item = entry.item
    if isinstance(item, UserMessage | AssistantMessage):
        parts = [_part(part, entry.audio, as_text=as_text) for part in item.content]
        content = [part for part in parts if part is not None]
        if not content:
            return None
        return {"id": item.id, "type": "message", "role": item.role, "content": content}
    return item.model_dump(mode="json", exclude_none=True, exclude={"object", "status"})


def _part(part: BaseModel, audio: Recording | None, *, as_text: bool) -> Json | None:
    given = part.model_dump(mode="json", exclude_none=True)
    if given["type"] == "output_audio":  # what was said is a text for who did not say it
        return {"type": "output_text", "text": given["transcript"]} if _has(given) else None
    if not isinstance(part, InputAudioPart):
        return given if given.get("text", "-").strip() else None
    if _has(given) and (as_text or audio is None):
        return {"type": "input_text", "text": given["transcript"]}
    if audio is None:
        return None
    pcm = encode(resample(audio.samples, audio.rate, RATE), "audio/pcm")
    return {"type": "input_audio", "audio": base64.b64encode(pcm).decode("ascii")}


def _has(part: Json) -> bool:
    return bool(part.get("transcript", "").strip())


def _turn_detection(config: DialogueConfig) -> Json | None:
    settings = config.settings
    if not settings.turn_detection:
        return None
    detection: Json = {
        "create_response": settings.create_response,
        "interrupt_response": settings.interrupt_response,
    }
    if config.semantic:
        return {"type": "semantic_vad", "eagerness": config.eagerness, **detection}
    return {
        "type": "server_vad",
        "threshold": settings.vad_threshold,
        "prefix_padding_ms": settings.vad_prefix_padding_ms,
        "silence_duration_ms": settings.vad_silence_ms,
        **detection,
    }


def _transcription(config: DialogueConfig, settings: UpstreamSettings) -> Json | None:
    asked = config.transcription
    if asked is None:
        return None
    given = {
        "model": asked.model or settings.transcription_model,
        "language": asked.language,
        "prompt": asked.prompt,
    }
    return {name: value for name, value in given.items() if value}


def _json(value: Any) -> Any:
    return (
        value.model_dump(mode="json", exclude_none=True) if isinstance(value, BaseModel) else value
    )


# -- said -----------------------------------------------------------------------------------------


class Nonsense(ValueError):
    """An event of the upstream is not what the protocol says; it names the field at fault."""


def text(event: Json, name: str, default: str | None = None) -> str:
    """A field's text, an id's in particular. Raises Nonsense."""
    value = event.get(name, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or (name.endswith("id") and not 0 < len(value) <= _MAX_ID_CHARS):
        raise Nonsense(name)
    return value


def number(event: Json, name: str, default: int | None = None) -> int:
    """A count of milliseconds, or an index. Raises Nonsense."""
    value = event.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise Nonsense(name)
    return int(value)


def section(event: Json, name: str) -> Json:
    """An object in an event; empty where there is none. Raises Nonsense."""
    value = event.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Nonsense(name)
    return value


def problem_of(error: Json, event_id: str | None = None) -> ProtocolError:
    """The upstream's error, as our client is told. ``event_id``: the client's own."""
    code, message, param = (error.get(name) for name in ("code", "message", "param"))
    mistaken = error.get("type") == "invalid_request_error"
    return ProtocolError(
        code if isinstance(code, str) and _CODE.fullmatch(code) else "upstream_error",
        (message if isinstance(message, str) else "The upstream gave no reason.")[
            :_MAX_MESSAGE_CHARS
        ],
        param=param if isinstance(param, str) and len(param) <= _MAX_ID_CHARS else None,
        event_id=event_id,
        type="invalid_request_error" if mistaken else "server_error",
    )
