"""An OpenAI-compatible chat endpoint: vLLM, Ollama, llama.cpp, hosted ones."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from wsavatar.config import LlmSettings
from wsavatar.dialogue.engine import EngineError
from wsavatar.dialogue.openai_endpoint import Endpoint

from .base import ChatRequest, Finished, Part, TextDelta
from .calls import Calls
from .check import checked
from .thinking import Thinking

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["EndpointModel"]

_log = logging.getLogger(__name__)

_OPENAI_MODEL = "gpt-4.1-mini"
"""It begins to answer at once; models that think first are too slow for a conversation."""
_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}


class EndpointModel:
    """A `LanguageModel`. ``llm.model`` empty: OpenAI's small one, or the server's first."""

    note = ""

    def __init__(self, settings: LlmSettings) -> None:
        self._settings = settings
        self._endpoint = Endpoint.of(
            settings.base_url,
            settings.api_key.get_secret_value(),
            what="The language model's endpoint",
            setting="llm",
        )
        self._model = settings.model or (_OPENAI_MODEL if self._endpoint.is_openais else "")
        self._client: AsyncOpenAI | None = None

    @property
    def name(self) -> str:
        where = self._endpoint.host
        model = self._model.rpartition("/")[2] if self._model.startswith("/") else self._model
        return f"{model} at {where}" if model else where

    async def start(self) -> None:
        """Connect, so that the first answer does not wait for it; choose a model if none is named.

        Raises EngineError.
        """
        names = await self._models()
        if not self._model:
            if not names:
                raise EngineError(
                    "engine_missing",
                    f"{self.name} has no model: load one there, or name it in llm.model.",
                )
            self._model = names[0]
        _log.info("language model %s", self.name)

    async def check(self) -> str:
        await self.start()
        return await checked(self)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def answer(self, request: ChatRequest) -> AsyncGenerator[Part, None]:
        if not self._model:
            await self.start()
        thinking, calls = Thinking(), Calls()
        reason: str | None = None
        begun = False
        async with aclosing(self._choices(request)) as choices:
            async for choice in choices:
                begun = True
                reason = choice.finish_reason or reason
                if choice.delta is None:
                    continue
                if text := thinking.push(choice.delta.content or ""):
                    yield TextDelta(text)
                for delta in calls.push(choice.delta.tool_calls or ()):
                    yield delta
        if text := thinking.flush():
            yield TextDelta(text)
        for delta in calls.flush():
            yield delta
        if not begun:
            raise self._endpoint.strange()
        if reason is None:
            raise EngineError("engine_failed", f"{self.name} broke off in the middle of an answer.")
        if reason in _REASONS:
            yield Finished("max_output_tokens" if reason == "length" else "content_filter")
        else:
            yield Finished("tool_calls" if calls.any else "stop")

    async def _models(self) -> list[str]:
        """The server's models; none if it does not list them."""
        with self._endpoint.explained():
            import openai

            try:
                async with asyncio.timeout(self._settings.timeout_s):
                    listed = await self._opened().models.list()
            except openai.NotFoundError:
                if not self._model:
                    raise
                return []
            return [one.id for one in listed.data if isinstance(one.id, str)]

    async def _choices(self, request: ChatRequest) -> AsyncGenerator[Any, None]:
        """The stream's choices. Leaving the iteration closes the connection, so the model stops."""
        timeout_s = self._settings.timeout_s
        with self._endpoint.explained():
            async with asyncio.timeout(timeout_s):
                stream = await self._opened().chat.completions.create(**self._arguments(request))
            async with stream:
                while True:
                    async with asyncio.timeout(timeout_s):
                        chunk = await anext(stream, None)
                    if chunk is None:
                        return
                    for choice in chunk.choices or ():
                        yield choice

    def _arguments(self, request: ChatRequest) -> dict[str, Any]:
        settings = self._settings
        arguments: dict[str, Any] = {
            "model": self._model,
            "messages": list(request.messages),
            "stream": True,
        }
        if request.tools:
            arguments |= {"tools": list(request.tools), "tool_choice": request.tool_choice}
        if request.max_tokens is not None:
            # OpenAI's newer models refuse the old name, other servers do not know the new one.
            limit = "max_completion_tokens" if self._endpoint.is_openais else "max_tokens"
            arguments[limit] = request.max_tokens
        if settings.temperature is not None:
            arguments["temperature"] = settings.temperature
        if settings.extra_body:
            arguments["extra_body"] = settings.extra_body
        return arguments

    def _opened(self) -> AsyncOpenAI:
        """One client for all sessions, so that connections are kept."""
        if self._client is None:
            self._client = self._endpoint.open(self._settings.timeout_s)
        return self._client
