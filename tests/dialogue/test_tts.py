"""Voices: they really speak, stop when told, fail clearly, and need no network to be tested."""

from __future__ import annotations

import asyncio
import io
import logging
import sys
from collections.abc import AsyncGenerator
from typing import Any

import av
import edge_tts
import numpy as np
import pytest

from wsavatar.dialogue.tts import Voice, VoiceError, create_voice
from wsavatar.dialogue.tts import espeak as espeak_module
from wsavatar.dialogue.tts.auto import AutoVoice, OnlineState
from wsavatar.dialogue.tts.base import VOICE_RATE, Chunks
from wsavatar.dialogue.tts.edge import EdgeVoice
from wsavatar.dialogue.tts.espeak import EspeakVoice
from wsavatar.dialogue.tts.text import MAX_PHRASE_CHARS, TextError, phrases, speakable

PANGRAM = "The quick brown fox jumps over the lazy dog."


async def spoken(voice: Voice, text: str = PANGRAM) -> np.ndarray:
    return np.concatenate([np.empty(0, np.float32), *[chunk async for chunk in voice.speak(text)]])


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples**2)))


# -- text -----------------------------------------------------------------------------------------


def test_text_is_cleaned_of_what_no_voice_can_say() -> None:
    """Control and format characters go, white space is one blank, everything else stays."""
    assert speakable("  Grüß\x00 \u202edich,\n\n世界!\u200b ") == "Grüß dich, 世界!"


@pytest.mark.parametrize(
    ("text", "code"), [("", "empty_text"), ("\x07\n", "empty_text"), ("a" * 5001, "text_too_long")]
)
def test_text_that_cannot_be_spoken(text: str, code: str) -> None:
    """The error's code says why."""
    with pytest.raises(TextError) as caught:
        speakable(text)
    assert caught.value.code == code


def test_the_first_phrase_is_the_first_sentence() -> None:
    """Speech begins early, then sentences go together; numbers and quotes are left whole."""
    cut = phrases('Hi! Version 3.5 is out. "Really?" he said. Yes.')
    assert cut == ["Hi!", 'Version 3.5 is out. "Really?" he said. Yes.']
    assert phrases("你好。世界很大！") == ["你好。", "世界很大！"]


@pytest.mark.parametrize("text", ["word " * 999, "x" * 4999, "a, " * 1500, "Yes. No? " * 500])
def test_phrases_are_bounded_and_lose_nothing(text: str) -> None:
    """However a text is built, no phrase is too long and every letter is in one."""
    line = speakable(text)
    cut = phrases(line)
    assert max(map(len, cut)) <= MAX_PHRASE_CHARS
    assert "".join(cut).replace(" ", "") == line.replace(" ", "")


# -- espeak ---------------------------------------------------------------------------------------


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
    voice = create_voice("espeak")
    with pytest.raises(VoiceError, match="pip install 'espeakng-loader"):
        await spoken(voice)


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


# -- edge -----------------------------------------------------------------------------------------


def mp3_tone(seconds: float, rate: int = 24_000) -> bytes:
    """A 440 Hz tone, truly encoded, as the service sends it: MP3, mono, 48 kbit/s."""
    out = io.BytesIO()
    samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    with av.open(out, "w", format="mp3") as container:
        stream = container.add_stream("mp3", rate=rate, layout="mono", bit_rate=48_000)
        frame = av.AudioFrame.from_ndarray(
            samples.astype(np.float32)[None], format="fltp", layout="mono"
        )
        frame.sample_rate = rate
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return out.getvalue()


class FakeService:
    """Stands where ``edge_tts.Communicate`` does; sends what it was told to."""

    def __init__(self, *messages: Any) -> None:
        self.messages = messages
        self.asked: list[tuple[str, str]] = []
        self.closed = 0

    def __call__(self, text: str, voice: str, **options: Any) -> FakeService:
        self.asked.append((text, voice))
        return self

    async def stream(self) -> AsyncGenerator[dict[str, Any], None]:
        try:
            for message in self.messages:
                if isinstance(message, BaseException):
                    raise message
                if message is None:  # never answers
                    await asyncio.Event().wait()
                yield message
        finally:
            self.closed += 1


def audio_messages(data: bytes, size: int) -> list[dict[str, Any]]:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    words = {"type": "SentenceBoundary", "offset": 0, "duration": 1, "text": "x"}
    return [words, *({"type": "audio", "data": piece} for piece in pieces)]


def serve(monkeypatch: pytest.MonkeyPatch, *messages: Any) -> FakeService:
    service = FakeService(*messages)
    monkeypatch.setattr(edge_tts, "Communicate", service)
    return service


@pytest.mark.parametrize(("rate", "size"), [(24_000, 720), (24_000, 1), (48_000, 4096)])
async def test_edge_decodes_mp3_as_it_comes(
    monkeypatch: pytest.MonkeyPatch, rate: int, size: int
) -> None:
    """In pieces of any size and at any rate the tone comes out, at its pitch and length."""
    service = serve(monkeypatch, *audio_messages(mp3_tone(1.0, rate), size))
    audio = await spoken(EdgeVoice("de-DE-KatjaNeural"), "Hallo")
    assert service.asked == [("Hallo", "de-DE-KatjaNeural")]
    assert 0.95 < len(audio) / VOICE_RATE < 1.15
    middle = audio[VOICE_RATE // 4 : VOICE_RATE * 3 // 4]
    assert rms(middle) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)
    peak = np.argmax(np.abs(np.fft.rfft(middle))) * VOICE_RATE / len(middle)
    assert peak == pytest.approx(440, abs=4)


async def test_edge_speaks_before_all_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first audio is there while the service is still sending."""
    half = audio_messages(mp3_tone(2.0)[:6000], 720)
    service = serve(monkeypatch, *half, None)
    speech = EdgeVoice().speak("Hello")
    chunk = await anext(speech)
    assert len(chunk) > 0 and service.closed == 0
    await speech.aclose()
    assert service.closed == 1


@pytest.mark.parametrize("name", ["", "marin", "../x", "en"])
async def test_a_voice_edge_does_not_have_is_the_default(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A stock client's voice names ask for nothing that the service lacks."""
    service = serve(monkeypatch, *audio_messages(mp3_tone(0.2), 720))
    await spoken(EdgeVoice(name))
    assert service.asked[0][1].endswith("Neural")


@pytest.mark.parametrize(
    "failure",
    [OSError("Name or service not known"), edge_tts.exceptions.NoAudioReceived("none"), None],
)
async def test_edge_without_a_network_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, failure: Any
) -> None:
    """Unreachable, refusing or mute: a VoiceError within its patience."""
    service = serve(monkeypatch, failure)
    with pytest.raises(VoiceError, match="online voice"):
        await spoken(EdgeVoice(patience_s=0.01))
    assert service.closed == 1


async def test_edge_sending_no_mp3_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of HTML is not played as noise."""
    serve(monkeypatch, {"type": "audio", "data": b"<html>sorry</html>" * 200})
    with pytest.raises(VoiceError, match="no MP3"):
        await spoken(EdgeVoice())


# -- auto -----------------------------------------------------------------------------------------


class FakeVoice:
    """Says one constant, or fails before or after it."""

    def __init__(self, level: float, *, fails: str = "") -> None:
        self.level, self.fails, self.asked = level, fails, 0

    async def speak(self, text: str) -> Chunks:
        self.asked += 1
        if self.fails == "before":
            raise VoiceError("Not there.")
        yield np.full(100, self.level, np.float32)
        if self.fails == "after":
            raise VoiceError("Gone.")


async def test_auto_speaks_online_where_it_can() -> None:
    """The offline voice is not asked while the online one answers."""
    online, offline = FakeVoice(0.1), FakeVoice(0.2)
    voice = AutoVoice(online=online, offline=offline, state=OnlineState(), clock=lambda: 0.0)
    assert (await spoken(voice))[0] == np.float32(0.1) and offline.asked == 0


async def test_auto_falls_back_says_so_once_and_tries_again_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One user waits for the failure, not each; five minutes later it is tried again."""
    online, offline, now, state = (
        FakeVoice(0.1, fails="before"),
        FakeVoice(0.2),
        [0.0],
        OnlineState(),
    )

    def voice() -> AutoVoice:
        return AutoVoice(online=online, offline=offline, state=state, clock=lambda: now[0])

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert (await spoken(voice()))[0] == np.float32(0.2)
        assert online.asked == 1
        now[0] = 301.0
        assert (await spoken(voice()))[0] == np.float32(0.2) and online.asked == 2
    assert len([record for record in caplog.records if "offline voice" in record.message]) == 1
    online.fails, now[0] = "", 602.0
    assert (await spoken(voice()))[0] == np.float32(0.1)


async def test_auto_does_not_say_half_a_phrase_twice() -> None:
    """A voice that breaks off within a phrase fails it; the next phrase is spoken offline."""
    online, offline = FakeVoice(0.1, fails="after"), FakeVoice(0.2)
    voice = AutoVoice(online=online, offline=offline, state=OnlineState(), clock=lambda: 0.0)
    with pytest.raises(VoiceError):
        await spoken(voice)
    assert (await spoken(voice))[0] == np.float32(0.2)


def test_an_engine_that_is_not_there_is_a_clear_error() -> None:
    """The error names the engines there are."""
    with pytest.raises(VoiceError, match="auto, edge, espeak"):
        create_voice("flite")
