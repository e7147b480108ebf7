"""Base classes and field types that every object of the wire is made of.

Knows pydantic and the rules that hold everywhere: unknown fields are refused, with a hint at the
right name. Knows no event.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import re
import secrets
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

__all__ = [
    "BackgroundName",
    "Base64",
    "Bytes",
    "ClientObject",
    "Id",
    "Ignored",
    "MaxOutputTokens",
    "EventId",
    "Metadata",
    "OtherBackground",
    "Ours",
    "OutputModalities",
    "StrictObject",
    "tagged",
    "new_id",
    "refuse",
    "suggestion",
]


def refuse(code: str, message: str, *, field: str | None = None) -> PydanticCustomError:
    """An error to raise in a validator. ``field`` is appended to the path of the object."""
    context = {"message": message, "code": code, "field": field}
    return PydanticCustomError("wsavatar", "{message}", context)


def suggestion(name: str, known: list[str]) -> str:
    """`` Did you mean 'x'?`` where one of ``known`` is close to ``name``, else nothing."""
    close = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.7)
    return f" Did you mean {close[0]!r}?" if close else ""


def new_id(prefix: str) -> str:
    """An id that no other event, item or response of any session has: ``item_3f9c…``."""
    return f"{prefix}_{secrets.token_hex(10)}"


class StrictObject(BaseModel):
    """Immutable, and without fields that it does not know.

    ``moved`` says where a field of the beta API went (empty: nowhere), or a field belongs that is
    often put here; ``unsupported`` says, for a field of the GA API that this server cannot honour,
    what to do instead; ``internal`` names fields that are not on the wire.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_serialization_defaults_required=True
    )

    moved: ClassVar[dict[str, str]] = {}
    unsupported: ClassVar[dict[str, str]] = {}
    internal: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _known_fields_only(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for key in data:
            if key in cls.model_fields:
                continue
            if key not in cls.unsupported:
                raise cls._unknown(key)
            if data[key] is not None:
                raise refuse("unsupported_parameter", cls.unsupported[key], field=key)
        return {key: data[key] for key in data if key not in cls.unsupported}

    @classmethod
    def _unknown(cls, key: str) -> PydanticCustomError:
        """The error for a field that this object does not have."""
        if key in cls.moved:
            hint = f"Use {cls.moved[key]}." if cls.moved[key] else "Leave it out."
            message = f"There is no such field. {hint}"
        else:
            known = sorted(cls.model_fields.keys() - cls.internal)
            message = f"Unknown field.{suggestion(key, known)} Known: {', '.join(known)}."
        return refuse("unknown_parameter", message, field=key[:100])


class ClientObject(StrictObject):
    """An object of the Realtime API as a client sends it: null is the same as absent.

    Some SDKs write every field they know, as null where it was not set.
    """

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = cls.model_fields
        return {k: v for k, v in data.items() if v is not None or k not in known}


def _decode_base64(value: Any) -> Any:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise refuse("invalid_type", "Should be a string of base64.")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise refuse("invalid_base64", f"Not base64: {error}.") from None


def _encode_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _one_modality(value: Any) -> Any:
    if value in (["audio", "text"], ["text", "audio"]):
        raise refuse("invalid_value", "Give one: ['audio'], which has a transcript, or ['text'].")
    return value


def _nothing(_: Any) -> None:
    return None


def tagged(by_kind: dict[type, str], fallback: str) -> Discriminator:
    """Choose a union's branch by the Python type of the input.

    Tags are written ``<like this>``: they are no part of the path that an error names.
    """

    def choose(value: Any) -> str:
        return next((tag for kind, tag in by_kind.items() if isinstance(value, kind)), fallback)

    return Discriminator(choose)


def _background(value: str) -> str:
    if not re.fullmatch(r"original|transparent|picture|#[0-9a-fA-F]{6}", value):
        raise refuse(
            "invalid_value",
            "Should be 'original', 'transparent', or a colour as '#00b140'; 'picture' is the "
            "server's, where it has one.",
        )
    return value.lower()


def _background_or_none(value: str) -> str:
    return value and _background(value)


_BASE64_SCHEMA = {"type": "string", "contentEncoding": "base64"}

Base64 = Annotated[bytes, BeforeValidator(_decode_base64), WithJsonSchema(_BASE64_SCHEMA)]
"""Bytes that a client sends in base64."""
Bytes = Annotated[
    bytes, PlainSerializer(_encode_base64, when_used="json"), WithJsonSchema(_BASE64_SCHEMA)
]
"""Bytes that the server sends in base64."""
BackgroundName = Annotated[str, AfterValidator(_background)]
"""What is behind an avatar."""
OtherBackground = Annotated[str, AfterValidator(_background_or_none)]
"""The same; empty: the one in force."""
Id = Annotated[str, Field(min_length=1, max_length=512)]
EventId = Annotated[str, Field(max_length=512)]
Ignored = Annotated[None, BeforeValidator(_nothing, json_schema_input_type=Any)]
"""A field of the GA API that is accepted and has no effect: it reads null."""
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]
Modality = Literal["audio", "text"]
OutputModalities = Annotated[
    list[Modality], Field(min_length=1, max_length=1), BeforeValidator(_one_modality)
]
"""Exactly one. Audio always comes with its transcript."""
MaxOutputTokens = Annotated[
    Annotated[Literal["inf"], Tag("<inf>")]
    | Annotated[int, Field(ge=1, le=4096, strict=True), Tag("<count>")],
    tagged({str: "<inf>"}, "<count>"),
]


class Ours(StrictObject):
    """An event of the client that the Realtime API does not have: its types are strict."""

    model_config = ConfigDict(strict=True)

    event_id: EventId | None = None
