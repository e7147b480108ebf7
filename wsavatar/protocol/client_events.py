"""Client events: text in, typed events out.

Unknown fields are refused. Nothing here trusts its input: depth, number of values and every type
are bounded before a model sees them.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal, NoReturn, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from .avatar_events import (
    AvatarCreate,
    AvatarCreateAppend,
    AvatarCreateCancel,
    AvatarCreateCommit,
    AvatarDelete,
    AvatarList,
    AvatarRename,
)
from .base import Base64, ClientObject, EventId, Id, Ours, refuse, suggestion
from .errors import ProtocolError
from .items import ConversationItem
from .responses import ResponseParams
from .session_config import SessionConfig
from .validation import protocol_error
from .video_events import AvatarRender, AvatarRenderCancel

__all__ = [
    "MAX_DEPTH",
    "MAX_SPEAK_CHARS",
    "MAX_VALUES",
    "AvatarPlayback",
    "AvatarSpeak",
    "ClientEvent",
    "ConversationItemCreate",
    "ConversationItemDelete",
    "ConversationItemRetrieve",
    "ConversationItemTruncate",
    "InputAudioBufferAppend",
    "InputAudioBufferClear",
    "InputAudioBufferCommit",
    "ResponseCancel",
    "ResponseCreate",
    "SessionUpdate",
    "parse_client_event",
]

MAX_DEPTH = 32
MAX_VALUES = 20_000
MAX_MARKS = 200_000
"""Commas and brackets in an event, texts included."""
MAX_SPEAK_CHARS = 5_000


def _not_blank(text: str) -> str:
    if not text.strip():
        raise refuse("empty_text", "Has nothing in it to say.")
    return text


class _Stock(ClientObject):
    event_id: EventId | None = None


def _as_is(patch: Any) -> Any:
    return patch


class SessionUpdate(_Stock):
    """Change the session's configuration: what is absent stays as it is."""

    type: Literal["session.update"]
    session: Annotated[
        dict[str, Any], BeforeValidator(_as_is, json_schema_input_type=SessionConfig)
    ]


class InputAudioBufferAppend(_Stock):
    """Append audio in ``audio.input.format`` to the input buffer."""

    type: Literal["input_audio_buffer.append"]
    audio: Base64


class InputAudioBufferCommit(_Stock):
    """Make the input buffer a user item."""

    type: Literal["input_audio_buffer.commit"]


class InputAudioBufferClear(_Stock):
    """Empty the input buffer."""

    type: Literal["input_audio_buffer.clear"]


class ConversationItemCreate(_Stock):
    """Add an item after ``previous_item_id``: absent, at the end; ``root``, at the beginning."""

    type: Literal["conversation.item.create"]
    item: ConversationItem
    previous_item_id: str | None = None


class ConversationItemDelete(_Stock):
    """Remove an item from the conversation."""

    type: Literal["conversation.item.delete"]
    item_id: Id


class ConversationItemRetrieve(_Stock):
    """Ask for an item as the server has it."""

    type: Literal["conversation.item.retrieve"]
    item_id: Id


class ConversationItemTruncate(_Stock):
    """Say how much of an item of the avatar was played; the rest is forgotten."""

    type: Literal["conversation.item.truncate"]
    item_id: Id
    content_index: Annotated[int, Field(ge=0)]
    audio_end_ms: Annotated[int, Field(ge=0)]


class ResponseCreate(_Stock):
    """Answer now."""

    type: Literal["response.create"]
    response: ResponseParams | None = None


class ResponseCancel(_Stock):
    """Stop the response in progress, or the one that is named."""

    type: Literal["response.cancel"]
    response_id: str | None = None


class AvatarSpeak(Ours):
    """Say this text, in any mode."""

    type: Literal["avatar.speak"]
    text: Annotated[str, Field(max_length=MAX_SPEAK_CHARS), AfterValidator(_not_blank)]


class AvatarPlayback(Ours):
    """How much of a response the client has played, and how many of its frames it has shown."""

    type: Literal["avatar.playback"]
    response_id: Id
    position_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    frames_shown: Annotated[int, Field(ge=0)]
    frames_late: Annotated[int, Field(ge=0)]


ClientEvent = (
    SessionUpdate
    | InputAudioBufferAppend
    | InputAudioBufferCommit
    | InputAudioBufferClear
    | ConversationItemCreate
    | ConversationItemDelete
    | ConversationItemRetrieve
    | ConversationItemTruncate
    | ResponseCreate
    | ResponseCancel
    | AvatarSpeak
    | AvatarPlayback
    | AvatarCreate
    | AvatarCreateAppend
    | AvatarCreateCommit
    | AvatarCreateCancel
    | AvatarRename
    | AvatarDelete
    | AvatarList
    | AvatarRender
    | AvatarRenderCancel
)

# The union's discriminator, spelt out so that an unknown type gets its own error.
_BY_TYPE: dict[str, type[ClientEvent]] = {
    get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(ClientEvent)
}


_UNSUPPORTED = {
    "output_audio_buffer.clear": "The client plays the audio itself on this transport. Send "
    "response.cancel, drop what is not yet played, then send conversation.item.truncate.",
    "transcription_session.update": "This server has realtime sessions only. Send session.update.",
}
"""Events of the Realtime API that have no meaning here."""


def parse_client_event(text: str | bytes) -> ClientEvent:
    """One text message as a typed event. Raises `ProtocolError` for anything else."""
    data = _load_object(text)
    event_id = _usable_event_id(data.get("event_id"))
    _check_extent(data, event_id)
    kind = data.get("type")
    if not isinstance(kind, str):
        code = "invalid_type" if "type" in data else "missing_required_parameter"
        raise ProtocolError(
            code, "An event needs a type: a string.", param="type", event_id=event_id
        )
    model = _BY_TYPE.get(kind)
    if model is None:
        raise _no_such_event(kind, event_id)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise protocol_error(error, prefix="", event_id=event_id) from None


def _no_such_event(kind: str, event_id: str | None) -> ProtocolError:
    if kind in _UNSUPPORTED:
        code, message = "unsupported_event", f"{kind}: {_UNSUPPORTED[kind]}"
    else:
        known = sorted(_BY_TYPE)
        hint = suggestion(kind, known)
        code = "unknown_event"
        message = f"Unknown event type {kind[:100]!r}.{hint} Known: {', '.join(known)}."
    return ProtocolError(code, message, param="type", event_id=event_id)


def _load_object(text: str | bytes) -> dict[str, Any]:
    # Before they are made: millions of empty lists in one message would stop everyone for seconds.
    if isinstance(text, bytes):
        marks = sum(map(text.count, (b",", b"[", b"{")))
    else:
        marks = sum(map(text.count, ",[{"))
    if marks > MAX_MARKS:
        raise ProtocolError("too_complex", f"An event may have {MAX_VALUES} values.")
    try:
        data = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite_float)
    except RecursionError:
        raise ProtocolError("too_deep", f"JSON can be at most {MAX_DEPTH} levels deep.") from None
    except ValueError as error:
        raise ProtocolError("invalid_json", f"Not JSON: {error}.") from None
    if not isinstance(data, dict):
        raise ProtocolError("invalid_event", "An event is a JSON object.")
    return data


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is out of range")
    return value


def _usable_event_id(value: Any) -> str | None:
    """The client's event id, if an error can carry it back."""
    if isinstance(value, str) and len(value) <= 512 and _is_unicode(value):
        return value
    return None


def _check_extent(data: dict[str, Any], event_id: str | None) -> None:
    """Bound depth and number of values; refuse half a surrogate pair, which UTF-8 cannot carry."""
    level: list[Any] = [data]
    seen = 0
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below.extend(value.keys())
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
            elif isinstance(value, str) and not _is_unicode(value):
                raise ProtocolError(
                    "invalid_unicode", "A string has half a surrogate pair.", event_id=event_id
                )
        if not below:
            return
        seen += len(below)
        if seen > MAX_VALUES:
            raise ProtocolError(
                "too_complex", f"An event can have at most {MAX_VALUES} values.", event_id=event_id
            )
        level = below
    raise ProtocolError(
        "too_deep", f"JSON can be at most {MAX_DEPTH} levels deep.", event_id=event_id
    )


def _is_unicode(value: str) -> bool:
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
