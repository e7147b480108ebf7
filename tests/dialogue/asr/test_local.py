"""Engines of this machine: loaded once, in threads, and a failure is one that can be shown."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.dialogue.fakes import wait_for
from wsavatar.config import AsrSettings
from wsavatar.dialogue.asr import ASR_RATE, Heard
from wsavatar.dialogue.asr.local import LocalRecognizer
from wsavatar.dialogue.engine import EngineError


@dataclass
class ScriptedModel:
    """Reads in a thread; ``hold``: waits for it, as a slow model would."""

    text: str = "hello"
    hold: threading.Event | None = None
    begun: threading.Event = field(default_factory=threading.Event)
    reads: list[tuple[float, str, str]] = field(default_factory=list)
    closed: bool = False

    def read(self, samples: np.ndarray, language: str, prompt: str) -> str:
        assert not self.closed
        self.begun.set()
        if self.hold is not None:
            assert self.hold.wait(30)
        self.reads.append((len(samples) / ASR_RATE, language, prompt))
        return self.text

    def close(self) -> None:
        self.closed = True


def voice(seconds: float) -> np.ndarray:
    return np.full(round(seconds * ASR_RATE), 0.5, np.float32)


async def test_a_turn_is_read_by_the_model() -> None:
    """In the language that is wanted, in its short form; the model is loaded once, when it is first
    needed."""
    model, loads = ScriptedModel(), list[int]()

    def load() -> ScriptedModel:
        loads.append(1)
        return model

    recognizer = LocalRecognizer(AsrSettings(language="de"), load, name="scripted")
    assert recognizer.language == "de" and not loads
    heard: list[Heard] = []
    for _ in range(2):
        turn = recognizer.listen(language="EN-us", prompt="Ada", on_heard=heard.append)
        turn.push(voice(0.4))
        assert await turn.finish() == "hello"
    assert model.reads == [(pytest.approx(0.4), "en", "Ada")] * 2
    assert heard[-1].whole and len(loads) == 1
    await recognizer.close()
    assert model.closed


async def test_the_event_loop_goes_on_while_a_model_reads() -> None:
    """Other work is done until the text is there."""
    model = ScriptedModel(hold=threading.Event())
    recognizer = LocalRecognizer(AsrSettings(), lambda: model, name="scripted")
    turn = recognizer.listen(on_heard=lambda _: None)
    turn.push(voice(1))
    await wait_for(model.begun.is_set)
    assert model.hold is not None
    model.hold.set()
    assert await turn.finish() == "hello"
    await recognizer.close()


async def test_a_model_that_cannot_be_loaded_says_why_and_is_tried_again() -> None:
    """The failure stands for half a minute, so that not every turn waits for it."""
    now_s, loads = 100.0, 0

    def load() -> ScriptedModel:
        nonlocal loads
        loads += 1
        if loads == 1:
            raise EngineError("engine_missing", "pip install it")
        return ScriptedModel()

    recognizer = LocalRecognizer(AsrSettings(), load, name="scripted", clock=lambda: now_s)
    with pytest.raises(EngineError, match="pip install it"):
        await recognizer.start()
    for _ in range(2):
        turn = recognizer.listen(on_heard=lambda _: None)
        turn.push(voice(1))
        with pytest.raises(EngineError, match="pip install it"):
            await turn.finish()
    assert loads == 1
    now_s += 60
    turn = recognizer.listen(on_heard=lambda _: None)
    turn.push(voice(1))
    assert await turn.finish() == "hello" and loads == 2
    await recognizer.close()


async def test_a_turn_does_not_wait_for_a_long_download() -> None:
    """It is told that the model is still being loaded; the download goes on."""
    go = threading.Event()

    def load() -> ScriptedModel:
        assert go.wait(30)
        return ScriptedModel()

    recognizer = LocalRecognizer(AsrSettings(timeout_s=1.0), load, name="Whisper")
    turn = recognizer.listen(on_heard=lambda _: None)
    turn.push(voice(0.1))
    with pytest.raises(EngineError, match="Whisper is still being loaded") as failed:
        await turn.finish()
    assert failed.value.code == "engine_timeout"
    go.set()
    await recognizer.start()
    turn = recognizer.listen(on_heard=lambda _: None)
    turn.push(voice(0.1))
    assert await turn.finish() == "hello"
    await recognizer.close()


async def test_an_engine_may_be_closed_while_it_loads() -> None:
    """The server ends without waiting for a download."""
    go = threading.Event()

    def load() -> ScriptedModel:
        assert go.wait(30)
        return ScriptedModel()

    recognizer = LocalRecognizer(AsrSettings(), load, name="scripted")
    starting = asyncio.create_task(recognizer.start())
    await asyncio.sleep(0)
    await recognizer.close()
    with pytest.raises(asyncio.CancelledError):
        await starting
    go.set()


async def test_it_is_tried_on_a_sentence() -> None:
    """`doctor` shows what was understood of it; nothing is a failure."""
    recognizer = LocalRecognizer(
        AsrSettings(), lambda: ScriptedModel("fine today"), name="scripted"
    )
    assert "understood 'fine today'" in await recognizer.check()
    await recognizer.close()
    deaf = LocalRecognizer(AsrSettings(), lambda: ScriptedModel(""), name="scripted")
    with pytest.raises(EngineError, match="understood nothing"):
        await deaf.check()
    await deaf.close()
