"""An Ollama that is found by itself, and the model that is taken where none is configured."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from tests.dialogue.scripted_endpoint import Answer, ScriptedEndpoint, scripted_endpoint
from wsavatar.config import LlmSettings
from wsavatar.dialogue.engine import EngineError
from wsavatar.dialogue.llm import ChatRequest, TextDelta, automatic, create_language_model
from wsavatar.dialogue.llm import ollama as ollama_module
from wsavatar.dialogue.llm.automatic import AutomaticModel
from wsavatar.dialogue.llm.local import LocalModel
from wsavatar.dialogue.llm.ollama import OllamaModel, ollama_address

ASKED = ChatRequest(({"role": "user", "content": "Hi"},))


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ollama_module, "FIND_S", 10.0)  # tests may run on a busy machine


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalModel, "is_installed", lambda settings: False)


def ollama(*models: str) -> ScriptedEndpoint:
    return scripted_endpoint(ollama=True, models=list(models), chat=[Answer("Hello.")])  # type: ignore[return-value]


async def test_an_ollama_is_found_named_and_warmed(
    monkeypatch: pytest.MonkeyPatch, nothing_installed: None
) -> None:
    """Its newest model that writes answers, and is loaded before the first turn."""
    async with ollama("nomic-embed-text:latest", "llama3.2:latest", "qwen3:8b") as endpoint:
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{endpoint.port}")
        model = create_language_model(LlmSettings())
        assert isinstance(model, AutomaticModel) and model.name == ""
        await model.start()
        assert model.name == "Ollama, llama3.2, on this machine" and model.note == ""
        loading = await endpoint.until_asked("/api/generate")
        assert loading.body == {"model": "llama3.2:latest"}
        parts = [part async for part in model.answer(ASKED)]
        assert parts[0] == TextDelta("Hello.")
        assert endpoint.requests("/chat/completions")[0].body["model"] == "llama3.2:latest"
        await model.close()


async def test_a_model_that_ollama_does_not_have(nothing_installed: None) -> None:
    """The error says what to type."""
    async with ollama() as endpoint:
        model = OllamaModel(LlmSettings(base_url=endpoint.url))
        with pytest.raises(EngineError, match="has no model. Type: ollama pull llama3.2"):
            await model.start()
        await model.close()
        model = OllamaModel(LlmSettings(base_url=endpoint.root, model="phi4"))
        with pytest.raises(EngineError, match="ollama pull phi4") as caught:
            await model.start()
        assert caught.value.code == "engine_missing"
        await model.close()


async def test_without_any_model_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, nothing_installed: None
) -> None:
    """No Ollama, no key, nothing installed. An Ollama that is started later is found."""
    async with ollama("llama3.2") as endpoint:
        monkeypatch.setenv("OLLAMA_HOST", endpoint.root)
        endpoint.ollama = False
        model = AutomaticModel(LlmSettings())
        with pytest.raises(EngineError, match=r"Start Ollama .* OPENAI_API_KEY.* pip install"):
            await model.start()
        endpoint.ollama = True
        await model.start()
        assert model.name.startswith("Ollama")
        await model.close()


@pytest.mark.parametrize("how", ["refuses", "is silent", "is something else"])
async def test_what_is_no_ollama_is_passed_over(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """A closed port, a server that never answers, and a server of another kind."""
    async with scripted_endpoint() as other:
        silent = socket.create_server(("127.0.0.1", 0))
        ports = {"refuses": 9, "is silent": silent.getsockname()[1]}
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{ports.get(how, other.port)}")
        monkeypatch.setattr(ollama_module, "FIND_S", 0.1)
        model = OllamaModel(LlmSettings())
        async with asyncio.timeout(30):
            assert not await model.is_there()
        await model.close()
        silent.close()


async def test_a_proxy_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """`HTTP_PROXY` is for other hosts."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with ollama("llama3.2") as endpoint:
        model = OllamaModel(LlmSettings(base_url=endpoint.url))
        assert await model.is_there()
        await model.close()


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8000", "http://127.0.0.1:8000"),
        (":8000", "http://127.0.0.1:8000"),
        ("studio.local", "http://studio.local:11434"),
        ("http://studio.local", "http://studio.local:80"),
        ("https://studio.local/", "https://studio.local:443"),
        ("[::]:8000", "http://[::1]:8000"),
        ("nonsense:port", "http://127.0.0.1:11434"),
    ],
)
def test_ollamas_address(monkeypatch: pytest.MonkeyPatch, given: str, address: str) -> None:
    """`OLLAMA_HOST` as Ollama's own client reads it; where it listens is not where it is."""
    monkeypatch.setenv("OLLAMA_HOST", given)
    assert ollama_address() == address


async def test_the_small_model_is_taken_where_ollama_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An Ollama without a model does not stand in the way of what is installed."""

    class Small:
        name, note = "small", "it is small"

        def __init__(self, settings: LlmSettings) -> None: ...

        @staticmethod
        def is_installed(settings: LlmSettings) -> bool:
            return True

        async def start(self) -> None: ...

        async def close(self) -> None: ...

    monkeypatch.setattr(automatic, "LocalModel", Small)
    async with ollama() as endpoint:
        monkeypatch.setenv("OLLAMA_HOST", endpoint.root)
        model = AutomaticModel(LlmSettings())
        await model.start()
        assert (model.name, model.note) == ("small", "it is small")
        await model.close()
