"""Edge's online voices: decoded as they arrive, with clear failures. No network is needed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from http import HTTPStatus

import edge_tts.communicate
import numpy as np
import pytest

from tests.dialogue.tts.edge_service import EdgeService, edge_service, mp3_tone
from tests.dialogue.tts.spoken import NOWHERE, forget_nowhere, rms, spoken, timed
from wsavatar.dialogue.tts import VoiceError
from wsavatar.dialogue.tts.base import VOICE_RATE, VoiceTimeout, VoiceUnreachable, WordTime
from wsavatar.dialogue.tts.edge import EdgeVoice


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


async def test_edge_says_when_it_says_each_word(service: EdgeService) -> None:
    """As the service tells it, by the word's place in the text, with marks and repeated words."""
    text = "Well & good: the cat, the <b> hat."
    words = await timed(EdgeVoice(), text)
    assert [(text[word.at :].split()[0], word.start_s) for word in words] == [
        ("Well", 0.0),
        ("good:", pytest.approx(0.1)),
        ("the", pytest.approx(0.2)),
        ("cat,", pytest.approx(0.3)),
        ("the", pytest.approx(0.4)),
        ("b>", pytest.approx(0.5)),
        ("hat.", pytest.approx(0.6)),
    ]
    assert words[2].at < words[4].at and words[0].duration_s == pytest.approx(0.08)


async def test_edge_speaks_before_all_has_come(service: EdgeService) -> None:
    """The first audio is there while the service is still sending; closing ends the connection."""
    service.stall_after = 2
    async with aclosing(EdgeVoice().speak("Hello")) as speech:
        assert isinstance(await anext(speech), WordTime)
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
    forget_nowhere(monkeypatch)
    for address in ("ws://127.0.0.1:9/edge/v1?x=1", f"ws://{NOWHERE}/edge/v1?x=1"):
        monkeypatch.setattr(edge_tts.communicate, "WSS_URL", address)
        with pytest.raises(VoiceUnreachable, match="cannot be reached") as raised:
            await spoken(EdgeVoice())
        assert " object at " not in str(raised.value)


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
