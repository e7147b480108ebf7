"""Uses a language model once, to see whether it works."""

from __future__ import annotations

import time
from contextlib import aclosing

from wsavatar.dialogue.engine import EngineError

from .base import ChatRequest, LanguageModel, TextDelta

__all__ = ["checked"]

_QUESTION = {"role": "user", "content": "Hello!"}
_MAX_TOKENS = 300
"""Enough for a model that thinks before it answers."""


async def checked(model: LanguageModel) -> str:
    """What a model that was started says, and how long its first token took. Raises EngineError."""
    begun_s = time.monotonic()
    first_s: float | None = None
    text = ""
    async with aclosing(model.answer(ChatRequest((_QUESTION,), max_tokens=_MAX_TOKENS))) as parts:
        async for part in parts:
            if isinstance(part, TextDelta):
                first_s = first_s or time.monotonic() - begun_s
                text += part.text
    if first_s is None or not text.strip():
        raise EngineError("engine_failed", f"{model.name} answers with nothing.")
    return f"It says {text.strip()[:60]!r}, first after {first_s:.2f} s."
