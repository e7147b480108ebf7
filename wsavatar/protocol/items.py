"""Conversation items: messages and function calls, in both directions.

A client's items are read into these classes, and the server's events carry them. Audio in a part is
decoded and never written back. Knows no conversation.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag

from .base import Base64, ClientObject, Id, new_id, refuse

__all__ = [
    "AssistantMessage",
    "ConversationItem",
    "FunctionCall",
    "FunctionCallOutput",
    "InputAudioPart",
    "InputImagePart",
    "InputItem",
    "InputTextPart",
    "Item",
    "ItemReference",
    "ItemStatus",
    "OutputAudioPart",
    "OutputTextPart",
    "SystemMessage",
    "UserMessage",
    "assistant_item",
    "user_item",
]

ItemStatus = Literal["in_progress", "completed", "incomplete"]


# -- content parts --------------------------------------------------------------------------------


class InputTextPart(ClientObject):
    type: Literal["input_text"] = "input_text"
    text: str


class InputAudioPart(ClientObject):
    """``audio``: bytes in the session's input format; only a client sends them."""

    type: Literal["input_audio"] = "input_audio"
    audio: Base64 | None = Field(default=None, exclude=True, repr=False)
    transcript: str | None = None


class InputImagePart(ClientObject):
    """``image_url``: a data URI. Kept for a dialogue that can see."""

    type: Literal["input_image"] = "input_image"
    image_url: str = Field(repr=False)
    detail: Literal["auto", "low", "high"] = "auto"


class OutputTextPart(ClientObject):
    type: Literal["output_text"] = "output_text"
    text: str


class OutputAudioPart(ClientObject):
    """``audio`` is read and dropped: what was said earlier is not said again."""

    type: Literal["output_audio"] = "output_audio"
    audio: Base64 | None = Field(default=None, exclude=True, repr=False)
    transcript: str | None = None


_MOVED_PARTS = {
    ("user", "text"): "input_text",
    ("system", "text"): "input_text",
    ("user", "audio"): "input_audio",
    ("assistant", "text"): "output_text",
    ("assistant", "audio"): "output_audio",
}


def _kind(part: Any) -> str:
    """The tag of a content part's class."""
    return f"<{part.get('type') if isinstance(part, dict) else part.type}>"


def _part_of(role: str, *types: str) -> BeforeValidator:
    """Refuse a content part that a message of this role cannot have."""
    allowed = " or ".join(map(repr, types))

    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            if isinstance(value, BaseModel):
                return value
            raise refuse("invalid_type", "Should be an object.")
        kind = value.get("type")
        if kind in types:
            return value
        if kind is None:
            raise refuse("missing_required_parameter", f"Should be {allowed}.", field="type")
        moved = _MOVED_PARTS.get((role, kind)) if isinstance(kind, str) else None
        what = f"A message of the {role} has no part of type {str(kind)[:100]!r}."
        hint = f"Use {moved!r}." if moved else f"Should be {allowed}."
        raise refuse("invalid_value", f"{what} {hint}", field="type")

    return BeforeValidator(check)


_UserPart = Annotated[
    Annotated[InputTextPart, Tag("<input_text>")]
    | Annotated[InputAudioPart, Tag("<input_audio>")]
    | Annotated[InputImagePart, Tag("<input_image>")],
    Discriminator(_kind),
    _part_of("user", "input_text", "input_audio", "input_image"),
]
_SystemPart = Annotated[InputTextPart, _part_of("system", "input_text")]
_AssistantPart = Annotated[
    Annotated[OutputTextPart, Tag("<output_text>")]
    | Annotated[OutputAudioPart, Tag("<output_audio>")],
    Discriminator(_kind),
    _part_of("assistant", "output_text", "output_audio"),
]


# -- items ----------------------------------------------------------------------------------------


class _Item(ClientObject):
    """What every item has. It gets an ``id`` here where the client names none."""

    id: Id = Field(default_factory=lambda: new_id("item"))
    object: Literal["realtime.item"] = "realtime.item"
    status: ItemStatus = "completed"

    @property
    def text(self) -> str:
        """What is in it in writing, transcripts included."""
        return ""


class UserMessage(_Item):
    type: Literal["message"] = "message"
    role: Literal["user"] = "user"
    content: tuple[_UserPart, ...]

    @property
    def text(self) -> str:
        return _written(self.content)


class SystemMessage(_Item):
    type: Literal["message"] = "message"
    role: Literal["system"] = "system"
    content: tuple[_SystemPart, ...]

    @property
    def text(self) -> str:
        return _written(self.content)


class AssistantMessage(_Item):
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    content: tuple[_AssistantPart, ...]

    @property
    def text(self) -> str:
        return _written(self.content)


class FunctionCall(_Item):
    """A call that the model made. ``arguments`` is JSON in a string."""

    type: Literal["function_call"] = "function_call"
    call_id: str | None = None
    name: str
    arguments: str


class FunctionCallOutput(_Item):
    """What a function of the client returned."""

    type: Literal["function_call_output"] = "function_call_output"
    call_id: str
    output: str


class ItemReference(ClientObject):
    """An item of this session, by its id. Only in the ``input`` of ``response.create``."""

    type: Literal["item_reference"] = "item_reference"
    id: Id


def _written(parts: tuple[Any, ...]) -> str:
    texts = (getattr(part, "text", None) or getattr(part, "transcript", None) for part in parts)
    return "\n".join(text for text in texts if text)


def _class_of(item: Any) -> str:
    """The tag of an item's class: its role where it is a message, else its type."""
    if isinstance(item, dict):
        return f"<{item.get('role') if item.get('type', 'message') == 'message' else item['type']}>"
    return f"<{getattr(item, 'role', item.type)}>"


def _known_item(value: Any) -> Any:
    """Refuse what is no item, naming the field at fault."""
    if not isinstance(value, dict):
        if isinstance(value, BaseModel):
            return value
        raise refuse("invalid_type", "Should be an object.")
    kind = value.get("type", "message")
    if kind == "message":
        role = value.get("role")
        if role not in ("user", "system", "assistant"):
            code = "missing_required_parameter" if role is None else "invalid_value"
            raise refuse(code, "Should be 'user', 'system' or 'assistant'.", field="role")
    elif isinstance(kind, str) and kind.startswith("mcp_"):
        message = "This server connects to no MCP servers. Answer function calls instead."
        raise refuse("unsupported_value", message, field="type")
    elif kind not in ("function_call", "function_call_output", "item_reference"):
        message = "Should be 'message', 'function_call' or 'function_call_output'."
        raise refuse("invalid_value", message, field="type")
    return value


def _no_reference(value: Any) -> Any:
    if isinstance(value, dict) and value.get("type") == "item_reference":
        message = "A reference is allowed only in the input of response.create."
        raise refuse("invalid_value", message, field="type")
    return _known_item(value)


Item = UserMessage | SystemMessage | AssistantMessage | FunctionCall | FunctionCallOutput

ConversationItem = Annotated[
    Annotated[UserMessage, Tag("<user>")]
    | Annotated[SystemMessage, Tag("<system>")]
    | Annotated[AssistantMessage, Tag("<assistant>")]
    | Annotated[FunctionCall, Tag("<function_call>")]
    | Annotated[FunctionCallOutput, Tag("<function_call_output>")],
    Discriminator(_class_of),
    BeforeValidator(_no_reference),
]
"""An `Item` as a field of an event."""

InputItem = Annotated[
    Annotated[UserMessage, Tag("<user>")]
    | Annotated[SystemMessage, Tag("<system>")]
    | Annotated[AssistantMessage, Tag("<assistant>")]
    | Annotated[FunctionCall, Tag("<function_call>")]
    | Annotated[FunctionCallOutput, Tag("<function_call_output>")]
    | Annotated[ItemReference, Tag("<item_reference>")],
    Discriminator(_class_of),
    BeforeValidator(_known_item),
]
"""An `Item`, or a reference to one."""


# -- what the server makes ------------------------------------------------------------------------


def user_item(
    item_id: str, *, status: ItemStatus = "completed", text: str | None = None
) -> UserMessage:
    """A user's message: what they said (``text`` None), or wrote."""
    part = InputAudioPart() if text is None else InputTextPart(text=text)
    return UserMessage(id=item_id, status=status, content=(part,))


def assistant_item(
    item_id: str,
    *,
    status: ItemStatus,
    transcript: str | None = None,
    text: str | None = None,
) -> AssistantMessage:
    """What the avatar says (``transcript``) or writes (``text``). Both None: nothing in it yet."""
    content: tuple[OutputTextPart | OutputAudioPart, ...] = ()
    if transcript is not None:
        content = (OutputAudioPart(transcript=transcript),)
    elif text is not None:
        content = (OutputTextPart(text=text),)
    return AssistantMessage(id=item_id, status=status, content=content)
