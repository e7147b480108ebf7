"""Language models: messages in, an answer out. A new engine is a class and a line here."""

from __future__ import annotations

from collections.abc import Callable

from wsavatar.config import LlmSettings

from .base import CallDelta, ChatRequest, Finished, LanguageModel, Part, TextDelta

__all__ = [
    "CallDelta",
    "ChatRequest",
    "Finished",
    "LanguageModel",
    "Part",
    "TextDelta",
    "create_language_model",
]

_ENGINES: dict[str, Callable[[LlmSettings], LanguageModel]] = {}


def create_language_model(settings: LlmSettings) -> LanguageModel | None:
    """The engine of the settings; None: none is set up. Loads nothing. Raises EngineError."""
    return None
