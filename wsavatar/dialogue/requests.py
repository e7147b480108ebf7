"""Answers to `response.create` in modes without a language model.

Pure. Knows requests and items, not speech.
"""

from __future__ import annotations

from .base import ResponseRequest
from .conversation import Conversation, Recording

__all__ = ["repeated", "unmet"]


def repeated(request: ResponseRequest, conversation: Conversation) -> str | Recording | None:
    """The recording or text to repeat, or None.

    It is the user's message in ``request.input``, or the newest one.
    """
    if request.input is not None:
        entries = [entry for entry in request.input if entry.is_users]
    else:
        newest = conversation.last_user_entry()
        entries = [newest] if newest is not None else []
    for entry in reversed(entries):
        if entry.audio is not None:
            return entry.audio
    return "\n".join(entry.item.text for entry in entries if entry.item.text.strip()) or None


def unmet(request: ResponseRequest, mode: str) -> str | None:
    """Why a mode that only repeats cannot fulfil a request; None if it can."""
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
