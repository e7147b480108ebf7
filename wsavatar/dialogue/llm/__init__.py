"""Language models: messages in, an answer out. A new engine is a class and a line here."""

from __future__ import annotations

import os
from collections.abc import Callable

from wsavatar.config import LlmSettings
from wsavatar.dialogue.engine import EngineError

from .automatic import AutomaticModel
from .base import CallDelta, ChatRequest, Finished, LanguageModel, Part, TextDelta
from .endpoint import EndpointModel
from .local import LocalModel
from .ollama import OllamaModel

__all__ = [
    "CallDelta",
    "ChatRequest",
    "Finished",
    "LanguageModel",
    "Part",
    "TextDelta",
    "create_language_model",
]

_ENGINES: dict[str, Callable[[LlmSettings], LanguageModel]] = {
    "openai": EndpointModel,
    "ollama": OllamaModel,
    "local": LocalModel,
}


def create_language_model(settings: LlmSettings) -> LanguageModel | None:
    """The engine of the settings; None: none is set up. Loads nothing. Raises EngineError."""
    name = settings.engine
    if name == "none":
        return None
    if name == "auto":
        return _automatic(settings)
    make = _ENGINES.get(name)
    if make is None:
        raise EngineError(
            "engine_missing",
            f"llm.engine: there is no {name[:60]!r}. There are: auto, none, {', '.join(_ENGINES)}.",
        )
    return make(settings)


def _automatic(settings: LlmSettings) -> LanguageModel:
    configured = settings.base_url or settings.api_key.get_secret_value()
    if configured or os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_KEY"):
        return EndpointModel(settings)
    return AutomaticModel(settings)
