"""The language model where none is configured: an Ollama that runs, else the one installed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from wsavatar.config import LlmSettings
from wsavatar.dialogue.engine import EngineError

from .base import ChatRequest, LanguageModel, Part
from .local import INSTALL, LocalModel
from .ollama import OllamaModel

__all__ = ["AutomaticModel"]

_NOTHING = (
    "There is no language model. Start Ollama (ollama pull llama3.2), or set OPENAI_API_KEY, or "
    f"llm.base_url to an OpenAI-compatible server, or install a small one: {INSTALL}"
)


class AutomaticModel:
    """A `LanguageModel`: the one that is found at each `start`."""

    def __init__(self, settings: LlmSettings) -> None:
        self._ollama = OllamaModel(settings)
        self._local = LocalModel(settings) if LocalModel.is_installed(settings) else None
        self._chosen: LanguageModel | None = None

    @property
    def name(self) -> str:
        return self._chosen.name if self._chosen is not None else ""

    @property
    def note(self) -> str:
        return self._chosen.note if self._chosen is not None else ""

    async def start(self) -> None:
        if await self._ollama.is_there():
            try:
                await self._ollama.start()
                self._chosen = self._ollama
                return
            except EngineError:
                if self._local is None:
                    raise
        if self._local is None:
            raise EngineError("engine_missing", _NOTHING)
        await self._local.start()
        self._chosen = self._local

    async def check(self) -> str:
        if self._chosen is None:
            await self.start()
        assert self._chosen is not None
        return await self._chosen.check()

    async def close(self) -> None:
        await self._ollama.close()
        if self._local is not None:
            await self._local.close()

    async def answer(self, request: ChatRequest) -> AsyncGenerator[Part, None]:
        if self._chosen is None:
            await self.start()
        assert self._chosen is not None
        async with aclosing(self._chosen.answer(request)) as parts:
            async for part in parts:
                yield part
