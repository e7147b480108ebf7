"""Voices: they really speak, stop when told, fail clearly, and need no network to be tested."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

import edge_tts.communicate
import numpy as np
import pytest

from wsavatar.config import TtsSettings
from wsavatar.dialogue.tts import Voice, VoiceError, create_voice
from wsavatar.dialogue.tts import espeak as espeak_module
from wsavatar.dialogue.tts.auto import AutoVoice, ServiceState
from wsavatar.dialogue.tts.base import VOICE_RATE, Chunks, VoiceTimeout, VoiceUnreachable
from wsavatar.dialogue.tts.edge import EdgeVoice
from wsavatar.dialogue.tts.espeak import EspeakVoice
from wsavatar.dialogue.tts.languages import espeak_voices

from .edge_service import EdgeService, edge_service, mp3_tone

PANGRAM = "The quick brown fox jumps over the lazy dog."


async def spoken(voice: Voice, text: str = PANGRAM) -> np.ndarray:
    return np.concatenate([np.empty(0, np.float32), *[chunk async for chunk in voice.speak(text)]])


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples**2)))


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


@pytest.mark.parametrize(
    ("name", "text", "voices"),
    [
        ("", "Hello", ["en-us"]),
        ("marin", "Hello", ["en-us"]),
        ("", "1, 2, 3!", ["en-us"]),
        ("en-gb+f3", "Hello", ["en-gb+f3", "en-us"]),
        ("pt-BR-AntonioNeural", "Olá", ["pt-br", "pt", "en-us"]),
        ("es-MX-DaliaNeural", "Hola", ["es-419", "es", "en-us"]),
        ("zh-CN-XiaoxiaoNeural", "你好", ["zh-cn", "cmn", "en-us"]),
        ("zh-HK-HiuMaanNeural", "你好", ["yue", "cmn", "en-us"]),
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


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EdgeService]:
    async with edge_service(monkeypatch) as running:
        yield running


@pytest.mark.parametrize(("rate", "size"), [(24_000, 720), (24_000, 1), (48_000, 4096)])
async def test_edge_decodes_mp3_as_it_comes(service: EdgeService, rate: int, size: int) -> None:
    """In pieces of any size and at any rate the tone comes out, at its pitch and length."""
    service.audio, service.piece_bytes = mp3_tone(1.0, rate), size
    service.voices = {"de-DE-KatjaNeural"}
    audio = await spoken(EdgeVoice("de-DE-KatjaNeural"), "Hallo")
    assert service.texts == ["Hallo"]
    assert 0.95 < len(audio) / VOICE_RATE < 1.15
    middle = audio[VOICE_RATE // 4 : VOICE_RATE * 3 // 4]
    assert rms(middle) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)
    peak = np.argmax(np.abs(np.fft.rfft(middle))) * VOICE_RATE / len(middle)
    assert peak == pytest.approx(440, abs=4)


async def test_edge_speaks_before_all_has_come(service: EdgeService) -> None:
    """The first audio is there while the service is still sending; closing ends the connection."""
    service.stall_after = 2
    async with aclosing(EdgeVoice().speak("Hello")) as speech:
        assert len(await anext(speech)) > 0 and service.open == 1
    service.release.set()
    await service.all_closed()


async def test_closing_edge_does_not_wait_for_the_service(service: EdgeService) -> None:
    """An interruption takes effect at once, though the service does not answer the closing
    handshake."""
    service.stall_after = 2
    speech = EdgeVoice().speak("Hello")
    await anext(speech)
    await speech.aclose()
    assert service.open == 1  # it has not noticed


async def test_cancelling_edge_ends_the_connection(service: EdgeService) -> None:
    """A session that ends while the service is silent leaves nothing open."""
    service.stall_after = 0
    task = asyncio.create_task(spoken(EdgeVoice(), "Hello"))
    await service.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    service.release.set()
    await service.all_closed()


@pytest.mark.parametrize("name", ["", "marin", "../x", "en"])
async def test_a_voice_edge_does_not_have_is_the_default(service: EdgeService, name: str) -> None:
    """A stock client's voice names ask for nothing that the service lacks."""
    assert len(await spoken(EdgeVoice(name)))


async def test_a_wrong_clock_is_no_failure(service: EdgeService) -> None:
    """The service refuses a machine whose clock is off; its answer says the time, and the next
    handshake has it."""
    service.wrong_clocks = 1
    assert len(await spoken(EdgeVoice())) and service.handshakes == 2


@pytest.mark.parametrize("status", [403, 404, 429, 500, 503])
async def test_a_refused_handshake_is_unreachable(service: EdgeService, status: int) -> None:
    """Neither text nor voice are in the handshake: its refusal concerns everyone."""
    service.status = HTTPStatus(status)
    with pytest.raises(VoiceUnreachable, match="cannot be reached"):
        await spoken(EdgeVoice())
    assert service.texts == []


async def test_edge_without_a_network_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection and a host name that is not found."""
    for address in ("ws://127.0.0.1:9/edge/v1?x=1", "ws://nowhere.invalid/edge/v1?x=1"):
        monkeypatch.setattr(edge_tts.communicate, "WSS_URL", address)
        with pytest.raises(VoiceUnreachable, match="cannot be reached"):
            await spoken(EdgeVoice())


async def test_edge_over_a_connection_that_is_not_tls_is_unreachable(service: EdgeService) -> None:
    """A captive portal that answers in plain text."""
    edge_tts.communicate.WSS_URL = service.address.replace("ws:", "wss:")
    with pytest.raises(VoiceUnreachable, match="cannot be reached"):
        await spoken(EdgeVoice())


async def test_a_handshake_that_hangs_is_unreachable(service: EdgeService) -> None:
    """Within its patience."""
    service.handshakes_hang = True
    with pytest.raises(VoiceUnreachable, match="did not answer"):
        await spoken(EdgeVoice(connect_s=0.1))


async def test_a_connection_that_never_opens_is_unreachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Something listens, and does not answer the TLS handshake."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        monkeypatch.setattr(edge_tts.communicate, "WSS_URL", f"wss://127.0.0.1:{port}/?x=1")
        with pytest.raises(VoiceUnreachable, match="did not answer"):
            await spoken(EdgeVoice(connect_s=0.1))


@pytest.mark.parametrize("pieces", [0, 2])
async def test_a_service_that_stalls_is_a_timeout(service: EdgeService, pieces: int) -> None:
    """Before the first audio, or in the middle of a phrase."""
    service.stall_after = pieces
    with pytest.raises(VoiceTimeout, match="no audio for"):
        await spoken(EdgeVoice(audio_s=0.2))


@pytest.mark.parametrize("lost", [False, True])
async def test_a_text_without_audio_is_this_texts_error(service: EdgeService, lost: bool) -> None:
    """As of a text in a script that the voice does not read; a connection that is lost before the
    first audio looks the same, and whether the service is down the next text finds out."""
    service.speaks = lambda text: lost
    service.abort_after = 0
    with pytest.raises(VoiceError, match="no audio for this text") as caught:
        await spoken(EdgeVoice())
    assert type(caught.value) is VoiceError


@pytest.mark.parametrize(
    "name",
    ["en-US-RetiredNeural", "de-de-KatjaNeural", "iu-Cans-CA-SiqiniqNeural"],
    ids=["the service does not know", "edge-tts refuses", "edge-tts cannot name"],
)
async def test_an_unknown_voice_is_this_voices_error(service: EdgeService, name: str) -> None:
    """The error names the voice; it is no fault of the service."""
    with pytest.raises(VoiceError, match=name) as caught:
        await spoken(EdgeVoice(name))
    assert type(caught.value) is VoiceError


async def test_edge_sending_no_mp3_is_a_clear_error(service: EdgeService) -> None:
    """A page of HTML is not played as noise."""
    service.audio = b"<html>sorry</html>" * 200
    with pytest.raises(VoiceError, match="no MP3"):
        await spoken(EdgeVoice())


# -- auto -----------------------------------------------------------------------------------------


class FakeVoice:
    """Says one constant, or fails before or after it."""

    def __init__(self, level: float) -> None:
        self.level, self.asked = level, 0
        self.before: VoiceError | None = None
        self.after: VoiceError | None = None

    def for_response(self) -> FakeVoice:
        return self

    async def speak(self, text: str) -> Chunks:
        self.asked += 1
        if self.before is not None:
            raise self.before
        yield np.full(100, self.level, np.float32)
        if self.after is not None:
            raise self.after


ONLINE, OFFLINE = np.float32(0.1), np.float32(0.2)


class Sessions:
    """The voices of several sessions, whose online voice is one fake, at a time that is set."""

    def __init__(self) -> None:
        self.online, self.offline = FakeVoice(0.1), FakeVoice(0.2)
        self.service = ServiceState()
        self.now_s = 0.0

    def voice(self) -> AutoVoice:
        return AutoVoice(
            online=self.online,
            offline=self.offline,
            service=self.service,
            clock=lambda: self.now_s,
        )


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


async def said(voice: Voice) -> np.float32:
    return np.float32((await spoken(voice))[0])


async def test_auto_speaks_online_where_it_can(sessions: Sessions) -> None:
    """The offline voice is not asked while the online one answers."""
    assert await said(sessions.voice()) == ONLINE and sessions.offline.asked == 0


async def test_an_unreachable_service_is_left_alone_by_all_sessions(
    sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    """One session waits for the failure, not each; the log says so once, and when it is over."""
    sessions.online.before = VoiceUnreachable("Not there.")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert await said(sessions.voice()) == OFFLINE
        assert sessions.online.asked == 1
        sessions.now_s = 61.0
        assert await said(sessions.voice()) == OFFLINE and sessions.online.asked == 2
        sessions.online.before, sessions.now_s = None, 122.0
        assert [await said(sessions.voice()) for _ in range(2)] == [ONLINE, ONLINE]
    assert [record.getMessage() for record in caplog.records] == [
        "Not there. Speaking with the offline voice (eSpeak NG).",
        "The online voice can be reached again.",
    ]


async def test_one_response_at_a_time_tries_an_unreachable_service(sessions: Sessions) -> None:
    """While it waits all others speak offline; given up, it is tried again soon."""
    sessions.online.before = VoiceUnreachable("Not there.")
    await spoken(sessions.voice())
    sessions.now_s = 61.0
    assert sessions.service.may_try(sessions.now_s)  # and its response is then interrupted
    sessions.online.before = None
    assert await said(sessions.voice()) == OFFLINE
    sessions.now_s = 80.0
    assert await said(sessions.voice()) == ONLINE


async def test_one_text_does_not_change_the_voice_of_the_next(sessions: Sessions) -> None:
    """A text or a voice name that gets no audio is spoken offline; all else stays online."""
    voice = sessions.voice()
    sessions.online.before = VoiceError("No audio was received.")
    assert await said(voice) == OFFLINE
    sessions.online.before = None
    assert await said(voice) == ONLINE and await said(sessions.voice()) == ONLINE


async def test_a_service_that_sends_nothing_concerns_one_session(sessions: Sessions) -> None:
    """It may be the text that it is slow with: this session does not wait again for a while, no
    other is changed."""
    voice = sessions.voice()
    sessions.online.before = VoiceTimeout("Nothing for 4 s.")
    assert await said(voice) == OFFLINE
    sessions.online.before = None
    assert await said(voice) == OFFLINE and await said(sessions.voice()) == ONLINE
    sessions.now_s = 61.0
    assert await said(voice) == ONLINE


async def test_a_response_keeps_the_voice_that_it_fell_back_to(sessions: Sessions) -> None:
    """The next response is online again."""
    voice = sessions.voice()
    response = voice.for_response()
    sessions.online.before = VoiceError("No audio was received.")
    assert await said(response) == OFFLINE
    sessions.online.before = None
    assert [await said(response) for _ in range(2)] == [OFFLINE, OFFLINE]
    assert [await said(voice.for_response()) for _ in range(2)] == [ONLINE, ONLINE]


async def test_auto_does_not_say_half_a_phrase_twice(sessions: Sessions) -> None:
    """A voice that breaks off within a phrase fails it, and is used again for the next."""
    voice = sessions.voice()
    sessions.online.after = VoiceUnreachable("Gone.")
    with pytest.raises(VoiceError):
        await spoken(voice)
    assert sessions.offline.asked == 0
    sessions.online.after = None
    assert await said(voice) == ONLINE


@pytest.mark.parametrize("name", ["en-US-RetiredNeural", "de-de-KatjaNeural"])
async def test_a_refused_voice_changes_no_other_sessions_voice(
    service: EdgeService, name: str
) -> None:
    """With the real package: its session hears the offline voice, another one the online voice."""
    state, offline = ServiceState(), FakeVoice(0.2)
    refused = AutoVoice(name, offline=offline, service=state)
    assert await said(refused) == OFFLINE
    assert len(await spoken(AutoVoice(offline=offline, service=state))) > VOICE_RATE // 4
    assert offline.asked == 1


async def test_a_service_that_comes_back_is_used_again(service: EdgeService) -> None:
    """With the real package: refused handshakes, then, a minute later, audio."""
    state, offline, now = ServiceState(), FakeVoice(0.2), [0.0]
    voice = AutoVoice(offline=offline, service=state, clock=lambda: now[0])
    service.status = HTTPStatus.SERVICE_UNAVAILABLE
    assert await said(voice) == OFFLINE and await said(voice) == OFFLINE
    assert service.handshakes == 1
    service.status, now[0] = HTTPStatus.SWITCHING_PROTOCOLS, 61.0
    assert len(await spoken(voice)) > VOICE_RATE // 4 and offline.asked == 2


def test_an_engine_that_is_not_there_is_a_clear_error() -> None:
    """The error names the engines there are."""
    with pytest.raises(VoiceError, match="auto, edge, espeak"):
        create_voice(TtsSettings(engines=("flite",)))
