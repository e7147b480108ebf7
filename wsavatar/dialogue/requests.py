"""What modes without a language model answer to `response.create`.

Pure. Knows requests and items, not speech.
"""

from __future__ import annotations

from wsavatar.protocol.events import InputTextPart, UserMessage

from .base import ResponseRequest
from .conversation import Conversation, Entry, Recording

__all__ = ["repeated", "unmet"]


def repeated(request: ResponseRequest, conversation: Conversation) -> tuple[str | Recording, ...]:
    """Texts and recordings to repeat, in order; empty: nothing.

    It is the user's message in ``request.input``, or the newest one.
    """
    if request.input is not None:
        entries = [entry for entry in request.input if entry.is_users]
    else:
        newest = conversation.last_user_entry()
        entries = [newest] if newest is not None else []
    return tuple(said for entry in entries for said in _said(entry))


def _said(entry: Entry) -> list[str | Recording]:
    assert isinstance(entry.item, UserMessage)
    if entry.audio is None:
        return [entry.item.text] if entry.item.text.strip() else []
    written = [part.text for part in entry.item.content if isinstance(part, InputTextPart)]
    return [*(text for text in written if text.strip()), entry.audio]


def unmet(request: ResponseRequest, mode: str) -> str | None:
    """Why a mode cannot fulfil a request; None if it can, as one with a language model does."""
    if mode not in ("mirror", "parrot"):
        return None
    if request.instructions:
        return (
            f"The mode {mode!r} has no language model, so it cannot follow instructions: leave "
            "them out, or send the words to say in avatar.speak."
        )
    if request.modality == "text":
        return f"The mode {mode!r} speaks: its output_modalities are ['audio']."
    if request.tool_choice not in (None, "auto", "none"):
        return f"The mode {mode!r} has no language model, so it cannot call a tool."
    return None
