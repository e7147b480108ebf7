"""The engines of a server: what is shown of them, and when one that failed is tried again."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.dialogue.fakes import FakeVoice, wait_for
from wsavatar.config import AsrSettings, LlmSettings, Settings, TtsSettings, load_settings
from wsavatar.dialogue.engine import EngineError, EngineStatus
from wsavatar.dialogue.engines import RETRY_S, Engines

NOTHING = Settings(
    asr=AsrSettings(engine="none"),
    llm=LlmSettings(engine="none"),
    tts=TtsSettings(engines=("espeak",)),
)


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Model:
    """A language model that starts when a test says so."""

    name = "a model"
    note = "small"

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.starts = 0
        self.closed = False

    async def start(self) -> None:
        self.starts += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error

    async def check(self) -> str:
        return "ok"

    async def close(self) -> None:
        self.closed = True

    def answer(self, request: object) -> FakeVoice:
        raise NotImplementedError


def engines_with(model: Model) -> tuple[Engines, Clock]:
    clock = Clock()
    engines = Engines(NOTHING, clock=clock)
    engines.language_model = model  # type: ignore[assignment]
    return engines, clock


def of_model(engines: Engines) -> EngineStatus:
    return next(one for one in engines.status() if one.kind == "llm")


async def test_an_engine_that_failed_is_tried_again_after_a_pause() -> None:
    """Who asks for the engines' state starts it again, at most every ten seconds."""
    model = Model(EngineError("engine_unreachable", "It is down: start it."))
    engines, clock = engines_with(model)
    await engines.start()
    assert of_model(engines) == EngineStatus("llm", "a model", "It is down: start it.", "small")
    clock.now_s += RETRY_S - 1
    of_model(engines)
    await asyncio.sleep(0)
    assert model.starts == 1
    model.error = None
    clock.now_s += 2
    assert of_model(engines).problem and of_model(engines).problem
    await wait_for(lambda: of_model(engines).ready)
    assert model.starts == 2 and of_model(engines).problem == ""
    clock.now_s += 2 * RETRY_S
    of_model(engines)
    await asyncio.sleep(0)
    assert model.starts == 2
    await engines.close()
    assert model.closed


async def test_an_engine_that_fails_while_it_is_used_is_shown() -> None:
    """Unreachable now: shown, and tried again. One bad answer alone is no state of the engine."""
    model = Model()
    engines, clock = engines_with(model)
    await engines.start()
    engines.failed("llm", EngineError("engine_timeout", "Slow."))
    assert of_model(engines).ready
    engines.failed("llm", EngineError("engine_unreachable", "Gone."))
    assert (of_model(engines).problem, of_model(engines).ready) == ("Gone.", False)
    clock.now_s += RETRY_S
    of_model(engines)
    await wait_for(lambda: of_model(engines).ready)
    await engines.close()


async def test_an_engine_that_hangs_does_not_keep_the_server_from_being_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who listens and speaks without it can begin; it starts meanwhile."""
    monkeypatch.setattr("wsavatar.dialogue.engines._START_S", 0.01)
    gate = asyncio.Event()

    class Slow(Model):
        async def start(self) -> None:
            await gate.wait()

    engines, _ = engines_with(Slow())
    await engines.start()
    assert (of_model(engines).ready, of_model(engines).problem) == (False, "")
    gate.set()
    await wait_for(lambda: of_model(engines).ready)
    await engines.close()


async def test_the_log_says_why_an_answer_failed(caplog: pytest.LogCaptureFixture) -> None:
    """One line for each; the errors of engines have no key and no text in them."""
    engines, _ = engines_with(Model())
    engines.failed("llm", EngineError("engine_failed", "The endpoint allows no more requests."))
    assert "llm: The endpoint allows no more requests." in caplog.text


async def test_an_upstream_without_its_key_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Shown and logged before anybody talks to it."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    url = "wss://api.openai.com/v1/realtime"
    upstream = NOTHING.upstream.model_copy(update={"url": url})
    engines = Engines(NOTHING.model_copy(update={"upstream": upstream}))
    await engines.start()
    status = engines.status()[-1]
    assert (status.kind, status.ready) == ("upstream", False)
    assert "OPENAI_API_KEY" in status.problem and status.problem in caplog.text
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    assert engines.status()[-1].ready
    await engines.close()


async def test_a_library_that_fails_is_a_problem_and_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Any exception of one engine leaves the others and the server alone; the log has it."""
    with caplog.at_level(logging.WARNING):
        engines, _ = engines_with(Model(ValueError("odd")))
        await engines.start()
    assert "a model could not be started" in of_model(engines).problem
    assert "ValueError: odd" in caplog.text
    await engines.close()


async def test_an_engine_that_is_not_there_says_what_to_type() -> None:
    """Each kind has its line, also where nothing is set up."""
    engines = Engines(NOTHING)
    asr, llm, tts = engines.status()
    assert "pip install" in asr.problem and "llm.engine" in llm.problem and not tts.problem
    assert engines.problem("llm") == llm.problem and not engines.converse


@pytest.mark.parametrize(("name", "model"), [("chat-local", "OllamaModel"), ("chat-hosted", "")])
def test_the_configurations_of_a_conversation_name_engines_that_there_are(
    monkeypatch: pytest.MonkeyPatch, name: str, model: str
) -> None:
    """Each loads, and its engines are made; with the environment's key for hosted ones."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    settings = load_settings(name)
    engines = Engines(settings)
    assert settings.dialogue.mode == "chat" and engines.recognizer is not None
    assert type(engines.language_model).__name__ == (model or "EndpointModel")
    assert engines.voices is not None
