"""What a language model is. Knows no engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from wsavatar.dialogue.engine import SharedEngine

__all__ = ["CallDelta", "ChatRequest", "Finished", "LanguageModel", "Part", "TextDelta"]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class CallDelta:
    """The model calls a function: more of its arguments' JSON. Calls come one after another."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is over; always the last part."""

    reason: Literal["stop", "tool_calls", "max_output_tokens", "content_filter"]


Part = TextDelta | CallDelta | Finished


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What the model answers, in the shapes of OpenAI's chat completions."""

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: Any = "auto"
    max_tokens: int | None = None


class LanguageModel(SharedEngine, Protocol):
    """A language model that streams its answer."""

    def answer(self, request: ChatRequest) -> AsyncGenerator[Part, None]:
        """The answer while it is written. Closing the generator stops the model.

        Raises EngineError, in the middle of an answer too.
        """
        ...
