"""An Ollama: found by itself, its model loaded before the first answer."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
from typing import Any
from urllib.parse import urlsplit

from wsavatar.config import LlmSettings
from wsavatar.dialogue.engine import EngineError

from .endpoint import EndpointModel

__all__ = ["FIND_S", "OllamaModel", "ollama_address"]

_log = logging.getLogger(__name__)

_PORT = 11434
FIND_S = 0.3
"""One on this machine answers in milliseconds."""
_LOAD_S = 300.0
_SUGGESTED = "llama3.2"
_NO_CHAT = ("bert", "embed")
"""In the families and names of models that do not write."""


class OllamaModel(EndpointModel):
    """A `LanguageModel`. ``llm.model`` empty: the newest that Ollama has."""

    def __init__(self, settings: LlmSettings) -> None:
        self._root = settings.base_url.removesuffix("/").removesuffix("/v1") or ollama_address()
        super().__init__(settings.model_copy(update={"base_url": f"{self._root}/v1"}))
        self._loading: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        where = "on this machine" if self._endpoint.is_local else f"at {self._endpoint.host}"
        model = self._model.removesuffix(":latest")
        return ", ".join(part for part in ("Ollama", model, where) if part)

    async def is_there(self) -> bool:
        """Whether it answers, at once."""
        try:
            client = self._opened()  # the import takes longer than the answer
            async with asyncio.timeout(FIND_S):
                await client.get(f"{self._root}/api/version", cast_to=object)
        except Exception as error:  # whatever it is: no Ollama
            _log.debug("no Ollama at %s: %s", self._endpoint.host, type(error).__name__)
            return False
        return True

    async def start(self) -> None:
        """Choose the model, and load it in the background. Raises EngineError."""
        names = await self._models()
        if not self._model:
            self._model = names[0] if names else ""
        there = {name.removesuffix(":latest") for name in names}
        if self._model.removesuffix(":latest") not in there:
            wanted = self._model or _SUGGESTED
            what = f"does not have {self._model}" if self._model else "has no model"
            raise EngineError("engine_missing", f"Ollama {what}. Type: ollama pull {wanted}")
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(self._load(), name="load Ollama's model")

    async def close(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])
        await super().close()

    async def _models(self) -> list[str]:
        """Models that write, the newest first."""
        with self._endpoint.explained():
            async with asyncio.timeout(self._settings.timeout_s):
                url = f"{self._root}/api/tags"
                tags: Any = await self._opened().get(url, cast_to=object)
            models = [(str(one["name"]), one.get("details") or {}) for one in tags["models"]]
        return [name for name, details in models if _writes(name, details)]

    async def _load(self) -> None:
        """Ollama loads a model when it is first asked for it."""
        try:
            await self._opened().post(
                f"{self._root}/api/generate",
                body={"model": self._model},
                cast_to=object,
                options={"timeout": _LOAD_S},
            )
        except Exception as error:  # the first answer says what it is
            _log.debug("Ollama did not load its model: %s", type(error).__name__)


def _writes(name: str, details: dict[str, Any]) -> bool:
    what = f"{name} {details.get('family', '')}".lower()
    return not any(part in what for part in _NO_CHAT)


def ollama_address() -> str:
    """``OLLAMA_HOST`` as Ollama's own client reads it, or the usual address. Without a path."""
    given = os.environ.get("OLLAMA_HOST", "").strip().strip("\"'")
    if given.startswith(":"):
        given = f"127.0.0.1{given}"
    url = given if "://" in given else f"http://{given or '127.0.0.1'}"
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": _PORT, "https": 443}.get(parts.scheme, _PORT)
        host = parts.hostname or "127.0.0.1"
    except ValueError:
        return f"http://127.0.0.1:{_PORT}"
    if "://" in given and parts.port is None and parts.scheme == "http":
        port = 80
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"{parts.scheme}://{host}:{port}"
    if address.is_unspecified:  # where it listens, not where it is
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    shown = f"[{address}]" if address.version == 6 else str(address)
    return f"{parts.scheme}://{shown}:{port}"
