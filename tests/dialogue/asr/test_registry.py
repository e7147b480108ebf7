"""Which engine the settings mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsavatar.config import AsrSettings
from wsavatar.dialogue.asr import create_recognizer, moonshine, whisper
from wsavatar.dialogue.asr.endpoint import EndpointRecognizer
from wsavatar.dialogue.asr.moonshine import MoonshineRecognizer
from wsavatar.dialogue.asr.whisper import WhisperRecognizer
from wsavatar.dialogue.engine import EngineError


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has."""
    install(monkeypatch)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def install(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    monkeypatch.setattr(
        moonshine, "bundled_model", lambda: Path("tiny-en") if "moonshine" in packages else None
    )
    monkeypatch.setattr(
        whisper, "bundled_model", lambda: Path("model") if "noter" in packages else None
    )
    monkeypatch.setattr(whisper, "find_spec", lambda name: object() if name in packages else None)


def test_none_is_no_engine() -> None:
    """And neither is anything that is not installed."""
    assert create_recognizer(AsrSettings(engine="none")) is None
    assert create_recognizer(AsrSettings()) is None


def test_an_unknown_name_says_which_there_are() -> None:
    """So that a typing error is found at once."""
    with pytest.raises(EngineError, match="auto, none, openai, moonshine, faster-whisper") as error:
        create_recognizer(AsrSettings(engine="wisper"))
    assert error.value.code == "engine_missing"


def test_auto_prefers_an_endpoint_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then what is installed: Moonshine for English, Whisper for the rest."""
    install(monkeypatch, "moonshine", "faster_whisper")
    named = AsrSettings(base_url="http://127.0.0.1:8000/v1")
    assert isinstance(create_recognizer(named), EndpointRecognizer)
    for language in ("", "en", "en-GB"):
        assert isinstance(create_recognizer(AsrSettings(language=language)), MoonshineRecognizer)
    assert isinstance(create_recognizer(AsrSettings(language="de")), WhisperRecognizer)
    assert isinstance(create_recognizer(AsrSettings(model="small")), WhisperRecognizer)
    install(monkeypatch, "moonshine")
    assert create_recognizer(AsrSettings(language="de")) is None
    install(monkeypatch, "faster_whisper")
    assert isinstance(create_recognizer(AsrSettings()), WhisperRecognizer)


def test_whisper_takes_the_model_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """For English, tiny.en of a package; else one to download. The name says which."""

    def name(**settings: str) -> str:
        recognizer = create_recognizer(AsrSettings(engine="faster-whisper", **settings))
        assert recognizer is not None
        return recognizer.name

    assert name() == "faster-whisper, base"
    install(monkeypatch, "noter")
    assert name() == name(language="en") == "faster-whisper, tiny.en"
    assert name(language="de") == "faster-whisper, base"
    assert name(model="small.en") == "faster-whisper, small.en"


def test_a_small_model_is_named_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to type for a better one."""
    install(monkeypatch, "moonshine", "noter", "faster_whisper")
    for engine in ("moonshine", "faster-whisper"):
        recognizer = create_recognizer(AsrSettings(engine=engine))
        assert recognizer is not None and "For a better one: asr." in recognizer.note


@pytest.mark.parametrize("engine", ["moonshine", "faster-whisper"])
async def test_an_engine_that_is_not_installed_says_what_to_type(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be chosen; starting it fails."""
    monkeypatch.setitem(__import__("sys").modules, "moonshine_voice", None)
    monkeypatch.setitem(__import__("sys").modules, "faster_whisper", None)
    recognizer = create_recognizer(AsrSettings(engine=engine))
    assert recognizer is not None
    with pytest.raises(EngineError, match="pip install") as error:
        await recognizer.start()
    assert error.value.code == "engine_missing"
    await recognizer.close()


def test_an_endpoint_needs_an_address_and_openais_a_key() -> None:
    """Both are said before anything is sent."""
    with pytest.raises(EngineError, match="asr.base_url is no URL"):
        create_recognizer(AsrSettings(base_url="127.0.0.1:8000"))
    with pytest.raises(EngineError, match="OPENAI_API_KEY or asr.api_key") as error:
        create_recognizer(AsrSettings(engine="openai"))
    assert error.value.code == "engine_unauthorized"
