"""Items of a conversation as a language model's messages. Pure."""

from __future__ import annotations

from typing import Any

from wsavatar.dialogue.conversation import Entry

__all__ = ["messages", "tool_choice", "tools"]


def messages(
    entries: tuple[Entry, ...], instructions: str, max_tokens: int
) -> tuple[dict[str, Any], ...]:
    """The texts of the items."""
    roles = [(getattr(one.item, "role", None), one.item.text) for one in entries]
    said = [{"role": role, "content": text} for role, text in roles if role and text.strip()]
    return ({"role": "system", "content": instructions}, *said)


def tools(offered: tuple[Any, ...]) -> tuple[dict[str, Any], ...]:
    """The client's functions."""
    return tuple(
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description or "",
                "parameters": tool.parameters or {"type": "object", "properties": {}},
            },
        }
        for tool in offered
    )


def tool_choice(choice: Any) -> Any:
    """Which of them the model may or must call."""
    return choice if isinstance(choice, str) else {"type": "function", "function": choice.name}
