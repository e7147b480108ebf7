"""A language model that follows rules, so that what it says shows what it was told.

It greets where it is told to, uses the tool for the weather, tells a tool's result, repeats what it
said before, speaks at length, and else says what it was asked.
"""

from __future__ import annotations

import json
from typing import Any

from tests.dialogue.scripted_endpoint import Answer, call_delta

__all__ = ["LONG", "SENTENCE", "answer"]

SENTENCE = "Hello. How do you do today?"
"""What is spoken to it."""
LONG = "This sentence is long enough to be interrupted. " * 12


def answer(body: dict[str, Any]) -> Answer:
    """For a request of chat completions."""
    messages = body["messages"]
    last = messages[-1]
    instructions = " ".join(_text(one) for one in messages if one["role"] == "system")
    if last["role"] == "tool":
        return _said(f"I was told that it is {_text(last)}.")
    if "Greet" in instructions:
        return _said("Welcome, dear guest.")
    asked = _text(last)
    if "weather" in asked and (name := _weather_tool(body)):
        arguments = json.dumps({"city": "Paris"})
        return Answer(
            call_delta(0, call_id="call_weather", name=name, arguments=""),
            call_delta(0, arguments=arguments[:7]),
            call_delta(0, arguments=arguments[7:]),
            finish="tool_calls",
        )
    if "repeat" in asked:
        before = [_text(one) for one in messages if one["role"] == "assistant"]
        return _said(f"Before I said: {before[-1] if before else 'nothing'}.")
    if "at length" in asked:
        return _said(LONG)
    return _said(f"You said: {asked}")


def _said(text: str) -> Answer:
    return Answer(*(f"{word} " for word in text.split()))


def _weather_tool(body: dict[str, Any]) -> str:
    names = [tool["function"]["name"] for tool in body.get("tools") or []]
    allowed = body.get("tool_choice") != "none"
    return next((name for name in names if "weather" in name and allowed), "")


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content)
