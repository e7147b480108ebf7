"""eSpeak NG: it really speaks, in many languages, and stops when told."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import numpy as np
import pytest

from tests.dialogue.tts.spoken import PANGRAM, rms, spoken, timed
from wsavatar.config import TtsSettings
from wsavatar.dialogue.tts import VoiceError, create_voice
from wsavatar.dialogue.tts import espeak as espeak_module
from wsavatar.dialogue.tts.base import VOICE_RATE
from wsavatar.dialogue.tts.espeak import EspeakEngine, EspeakVoice
from wsavatar.dialogue.tts.languages import espeak_voices


async def test_espeak_really_speaks() -> None:
    """Nine words take some seconds, at the loudness of speech, unclipped."""
    audio = await spoken(EspeakVoice())
    assert audio.dtype == np.float32 and 1.5 < len(audio) / VOICE_RATE < 5
    assert 0.03 < rms(audio) < 0.3 and np.abs(audio).max() <= 1
    windows = audio[: len(audio) // 1200 * 1200].reshape(-1, 1200)
    assert np.mean(np.sqrt((windows**2).mean(axis=1)) > 0.01) > 0.5


async def test_espeak_speaks_longer_of_longer_texts() -> None:
    """Twice the words, about twice the time."""
    once, twice = await spoken(EspeakVoice()), await spoken(EspeakVoice(), f"{PANGRAM} {PANGRAM}")
    assert 1.7 < len(twice) / len(once) < 2.3


async def test_espeak_speaks_the_language_that_is_asked_for() -> None:
    """By its own names, or by the language of another engine's; others mean the default voice."""
    text = "Ich heiße Zwölf"
    german, english = await spoken(EspeakVoice("de"), text), await spoken(EspeakVoice(), text)
    assert alike(german, await spoken(EspeakVoice("de-DE-KatjaNeural"), text))
    assert not alike(german, english)
    for unknown in ("marin", "xx", "../../etc/passwd", "a" * 5000):
        assert alike(english, await spoken(EspeakVoice(unknown), text))


@pytest.mark.parametrize(
    ("name", "text", "voices"),
    [
        ("", "Hello", ["en-us"]),
        ("marin", "Hello", ["en-us"]),
        ("", "1, 2, 3!", ["en-us"]),
        ("en-gb+f3", "Hello", ["en+f3", "en-us"]),
        ("pt-BR-AntonioNeural", "Olá", ["pt-br", "pt", "en-us"]),
        ("es-MX-DaliaNeural", "Hola", ["es-419", "es", "en-us"]),
        ("zh-CN-XiaoxiaoNeural", "你好", ["zh-cn", "cmn", "en-us"]),
        ("zh-HK-HiuMaanNeural", "你好", ["yue", "cmn", "en-us"]),
        ("de_DE-thorsten-low", "Hallo", ["de-de", "de", "en-us"]),
        ("iu-Cans-CA-SiqiniqNeural", "ai", ["iu-ca", "iu", "en-us"]),
        ("", "你好，world", ["cmn", "en-us"]),
        ("", "日本語です", ["ja", "en-us"]),
        ("ja-JP-NanamiNeural", "日本", ["ja-jp", "ja", "en-us"]),
        ("", "안녕하세요", ["ko", "en-us"]),
        ("", "مرحبا", ["ar", "en-us"]),
        ("", "آپ کیسے ہیں", ["ur", "en-us"]),
        ("", "می‌خواهم بروم پیش", ["fa", "en-us"]),
        ("", "Привіт, світ", ["uk", "en-us"]),
        ("bg-BG-KalinaNeural", "Здравей", ["bg-bg", "bg", "en-us"]),
        ("de", "Привет", ["ru", "de", "en-us"]),
        ("hi-IN-SwaraNeural", "नमस्ते, world", ["hi-in", "hi", "en-us"]),
    ],
)
def test_espeak_reads_the_script_of_a_text(name: str, text: str, voices: list[str]) -> None:
    """The voice that is named, or one that reads the script where the named one would spell it."""
    assert espeak_voices(name, text) == voices


async def test_espeak_does_not_spell_other_scripts() -> None:
    """A default voice says "hello, world" in Arabic as fast as the Arabic voice does."""
    text = "مرحبا بالعالم"
    assert len(await spoken(EspeakVoice(), text)) < 1.2 * len(await spoken(EspeakVoice("ar"), text))


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """The same words in the same voice, by their spectra in steps of 40 ms: eSpeak's pitch
    flutters differently each time."""
    length = min(len(one), len(other)) // 960 * 960
    spectra = [
        np.abs(np.fft.rfft(audio[:length].reshape(-1, 960)))[:, :160] for audio in (one, other)
    ]
    bands = [np.log(spectrum.reshape(-1, 20, 8).sum(axis=2) + 1e-3) for spectrum in spectra]
    return bool(np.corrcoef(bands[0].ravel(), bands[1].ravel())[0, 1] > 0.9)


async def test_a_missing_espeak_costs_only_what_it_would_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A voice can be had, as a mirror needs one; speaking names the package that is missing."""
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setattr(espeak_module, "_library", espeak_module._library_path)
    voice = create_voice(TtsSettings(engines=("espeak",)))
    with pytest.raises(VoiceError, match="pip install 'espeakng-loader"):
        await spoken(voice)


async def test_espeak_says_when_it_says_each_word() -> None:
    """A sound is where the word begins: what is before it sounds as the phrase without it does."""
    words = await timed(EspeakVoice(), PANGRAM)
    assert [PANGRAM[word.at :].split()[0] for word in words] == PANGRAM.split()
    audio = await spoken(EspeakVoice(), PANGRAM)
    starts = [word.start_s for word in words]
    assert starts == sorted(starts) and starts[-1] < len(audio) / VOICE_RATE - 0.2
    before = await spoken(EspeakVoice(), PANGRAM.removesuffix(" dog."))
    assert starts[-1] == pytest.approx(len(before) / VOICE_RATE, abs=0.12)


async def test_words_are_counted_in_characters() -> None:
    """Not in bytes: letters of two and three bytes."""
    text = "Größe über 你 Äpfel"
    words = await timed(EspeakVoice("de"), text)
    assert {text[word.at :].split()[0] for word in words} >= {"Größe", "über", "Äpfel"}


async def test_espeak_serves_many_at_once() -> None:
    """The library is one and not thread-safe; its users get their own words all the same."""
    texts = [f"Number {n}." for n in range(12)]
    alone = [await spoken(EspeakVoice(), text) for text in texts]
    together = await asyncio.gather(*(spoken(EspeakVoice(), text) for text in texts))
    assert all(len(audio) > VOICE_RATE // 4 for audio in alone)
    for one, other in zip(alone, together, strict=True):
        assert abs(len(one) - len(other)) < 0.02 * VOICE_RATE and rms(one) == pytest.approx(
            rms(other), rel=0.1
        )


async def test_espeak_leaves_the_loop_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is only ever called on its own thread."""
    threads: set[str] = set()
    original = espeak_module._synthesize

    def watched(*args: Any) -> Any:
        threads.add(espeak_module.threading.current_thread().name)
        return original(*args)

    monkeypatch.setattr(espeak_module, "_synthesize", watched)
    await asyncio.gather(spoken(EspeakVoice()), spoken(EspeakVoice("de")))
    assert threads == {"espeak_0"}


async def test_cancelling_espeak_stops_it() -> None:
    """Who is cancelled while a phrase is made gets nothing, and the voice speaks on for others."""
    task = asyncio.create_task(spoken(EspeakVoice(), "word " * 40))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(await spoken(EspeakVoice())) > VOICE_RATE


@pytest.mark.parametrize(
    "text", ["...", "🙂", "\x01", "<speak>[[x]]</speak>", "א ב ج 日本", "%s%n"]
)
async def test_odd_texts_do_not_harm_espeak(text: str) -> None:
    """Whatever it is given it returns, and speaks afterwards."""
    await spoken(EspeakVoice(), text)
    assert len(await spoken(EspeakVoice())) > VOICE_RATE


async def test_the_languages_that_espeak_reads() -> None:
    """Each by the code that a client sends as the voice's name, and that the library knows."""
    languages = {info.id: info.name for info in EspeakEngine().voices()}
    assert len(languages) > 100 and languages["de"] == "German"
    assert {"en", "en-us", "fr", "pt-br", "cmn"} < set(languages)
    library, _ = espeak_module._library()
    for code in languages:
        assert library.espeak_SetVoiceByName(code.encode()) == 0
        # As a server does: after many voices that say nothing a text's first word has no time.
        await spoken(EspeakVoice(code), "1")
    assert all(espeak_voices(code, "x")[0] == code for code in languages)
