"""Items of a conversation as a language model's messages, bounded. Pure.

What was not heard is not in the items any more, so the model knows what the user knows.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from wsavatar.dialogue.conversation import Entry
from wsavatar.protocol.events import (
    AssistantMessage,
    FunctionCall,
    FunctionCallOutput,
    FunctionTool,
    InputImagePart,
    Item,
    SystemMessage,
    ToolChoiceFunction,
    UserMessage,
)

__all__ = ["messages", "tool_choice", "tools"]

Message = dict[str, Any]

_CHARS_PER_TOKEN = 3.5
"""Of European text; a wide character is a token of its own."""
_MESSAGE_TOKENS = 4
_IMAGE_TOKENS = 800


def messages(entries: Iterable[Entry], instructions: str, max_tokens: int) -> tuple[Message, ...]:
    """Chat messages: the instructions, then the newest items within about ``max_tokens``.

    The last of the user always stays. A call of a function and its output stay together; one
    without the other is left out.
    """
    groups = _groups(list(entries))
    system = [{"role": "system", "content": instructions}] if instructions.strip() else []
    left = max_tokens - sum(map(_tokens, system))
    kept: list[list[Message]] = []
    has_user = False
    for group in reversed(groups):
        left -= sum(map(_tokens, group))
        if left < 0 and has_user:
            break
        kept.append(group)
        has_user = has_user or group[0]["role"] == "user"
    return tuple([*system, *(message for group in reversed(kept) for message in group)])


def tools(offered: Iterable[FunctionTool]) -> tuple[dict[str, Any], ...]:
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


def tool_choice(choice: str | ToolChoiceFunction) -> Any:
    """Which of them the model may or must call."""
    if isinstance(choice, str):
        return choice
    return {"type": "function", "function": {"name": choice.name}}


def _groups(entries: Sequence[Entry]) -> list[list[Message]]:
    """Messages that stand or fall together, in order."""
    outputs = {
        entry.item.call_id: entry.item.output
        for entry in entries
        if isinstance(entry.item, FunctionCallOutput)
    }
    groups: list[list[Message]] = []
    for entry in entries:
        item = entry.item
        if isinstance(item, FunctionCall):
            if item.call_id in outputs:
                groups.append(_call(item, outputs[item.call_id]))
        elif (message := _message(item)) is not None:
            last = groups[-1] if groups else []
            if last and _joins(last[-1], message):  # an answer that was interrupted and went on
                last[-1]["content"] += " " + message["content"]
            else:
                groups.append([message])
    return groups


def _message(item: Item) -> Message | None:
    """A message with something in it; None: nothing was said."""
    if isinstance(item, UserMessage):
        images = [part for part in item.content if isinstance(part, InputImagePart)]
        if images:
            parts: list[Message] = [{"type": "text", "text": item.text}] if item.text else []
            for one in images:
                url = {"url": one.image_url, "detail": one.detail}
                parts.append({"type": "image_url", "image_url": url})
            return {"role": "user", "content": parts}
    if isinstance(item, UserMessage | AssistantMessage | SystemMessage) and item.text.strip():
        return {"role": item.role, "content": item.text.strip()}
    return None


def _joins(last: Message, message: Message) -> bool:
    both = last["role"] == message["role"] == "assistant"
    return both and isinstance(last.get("content"), str) and "tool_calls" not in last


def _call(item: FunctionCall, output: str) -> list[Message]:
    function = {"name": item.name, "arguments": item.arguments}
    call = {"id": item.call_id, "type": "function", "function": function}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": item.call_id, "content": output},
    ]


def _tokens(message: Message) -> int:
    """About as many tokens as a message has; rather too many."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"text": content or ""}]
    text = "".join(part.get("text", "") for part in parts)
    for call in message.get("tool_calls", ()):
        text += call["function"]["name"] + call["function"]["arguments"]
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    images = sum(part.get("type") == "image_url" for part in parts)
    tokens = wide + (len(text) - wide) / _CHARS_PER_TOKEN
    return int(_MESSAGE_TOKENS + images * _IMAGE_TOKENS + tokens)
