"""Voices of an OpenAI-compatible endpoint: streamed, stopped, with clear failures and safe keys."""

from __future__ import annotations

import asyncio
import io
import socket
import wave
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from tests.dialogue.scripted_endpoint import (
    CUT,
    HANG,
    Answer,
    ScriptedEndpoint,
    pcm_tone,
    scripted_endpoint,
)
from tests.dialogue.tts.edge_service import mp3_tone
from tests.dialogue.tts.spoken import NOWHERE, forget_nowhere, rms, spoken
from wsavatar.config import TtsSettings
from wsavatar.dialogue.tts import VoiceError
from wsavatar.dialogue.tts.base import VOICE_RATE, VoiceTimeout, VoiceUnreachable
from wsavatar.dialogue.tts.endpoint import EndpointEngine

TONE = pcm_tone(0.5)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def endpoint() -> AsyncIterator[ScriptedEndpoint]:
    async with scripted_endpoint(speech=[Answer(TONE)]) as running:
        yield running


@pytest.fixture
async def engine(endpoint: ScriptedEndpoint) -> AsyncIterator[EndpointEngine]:
    made = EndpointEngine(TtsSettings(base_url=endpoint.url), audio_s=5)
    yield made
    await made.close()


def wav(samples: np.ndarray, rate: int, streamed: bool) -> bytes:
    """A WAV; of a stream, whose length is not known when its header is written."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(samples.ndim)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    data = out.getvalue()
    if not streamed:
        return data + b"LIST\x04\x00\x00\x00\xff\x7f\xff\x7f"  # no sound
    return data[:4] + b"\xff" * 4 + data[8:40] + b"\xff" * 4 + data[44:]


def pitch(audio: np.ndarray) -> float:
    middle = audio[len(audio) // 4 : -len(audio) // 4]
    return float(np.argmax(np.abs(np.fft.rfft(middle))) * VOICE_RATE / len(middle))


async def test_a_phrase_is_asked_for_and_spoken(
    endpoint: ScriptedEndpoint, engine: EndpointEngine
) -> None:
    """The text, a voice and PCM; what comes is the sound, sample for sample."""
    audio = await spoken(engine.synthesizer("coral"), "Hello there.")
    assert (audio * 32768).round().astype("<i2").tobytes() == TONE
    (asked,) = endpoint.requests("/audio/speech")
    assert asked.body == {
        "input": "Hello there.",
        "model": "tts-1",
        "voice": "coral",
        "response_format": "pcm",
    }


def test_the_default_voice_is_the_configured_one() -> None:
    """The first of its names that is not plainly another engine's."""
    for configured, voice in [("", "alloy"), ("en-us+f3, coral", "coral"), ("de", "alloy")]:
        settings = TtsSettings(base_url="http://127.0.0.1:9/v1", voice=configured)
        assert EndpointEngine(settings).voice == voice


async def test_connections_are_kept(endpoint: ScriptedEndpoint, engine: EndpointEngine) -> None:
    """The second phrase does not pay for another handshake."""
    for _ in range(3):
        await spoken(engine.synthesizer(""))
    assert endpoint.connections == 1


@pytest.mark.parametrize("sizes", [(1,) * 40, (7, 2, 4000), (3,)])
async def test_samples_may_be_cut_anywhere(
    endpoint: ScriptedEndpoint, engine: EndpointEngine, sizes: tuple[int, ...]
) -> None:
    """Half a sample waits for its other half."""
    rest, steps = TONE, []
    for size in sizes:
        steps.append(rest[:size])
        rest = rest[size:]
    endpoint.speech = [Answer(*steps, rest)]
    assert pitch(await spoken(engine.synthesizer(""))) == pytest.approx(440, abs=5)


async def test_the_first_sound_does_not_wait_for_the_last(
    endpoint: ScriptedEndpoint, engine: EndpointEngine
) -> None:
    """It is there while the server still sends."""
    more = asyncio.Event()
    endpoint.speech = [Answer(TONE, more, TONE)]
    async with aclosing(engine.synthesizer("").speak("Hello")) as speech:
        first = await anext(speech)
        assert not more.is_set()
        more.set()
        rest = [part async for part in speech]
    assert len(first) + sum(map(len, rest)) == len(TONE)  # twice its samples, of two bytes


async def test_closing_ends_the_request(endpoint: ScriptedEndpoint, engine: EndpointEngine) -> None:
    """The server is not left to make what nobody hears; the next phrase works."""
    endpoint.speech = [Answer(TONE, HANG), Answer(TONE)]
    speech = engine.synthesizer("").speak("Hello")
    await anext(speech)
    await speech.aclose()
    await endpoint.until_abandoned()
    assert len(await spoken(engine.synthesizer(""))) == len(TONE) // 2


@pytest.mark.parametrize("rate", [24_000, 44_100])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_wav_is_understood(
    endpoint: ScriptedEndpoint, engine: EndpointEngine, rate: int, streamed: bool
) -> None:
    """By its header, at any rate, whatever its content type; what follows its sound is left out."""
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    data = wav(tone, rate, streamed)
    endpoint.speech = [Answer(data[:3], data[3:30], data[30:101], data[101:])]
    audio = await spoken(engine.synthesizer(""))
    assert len(audio) == pytest.approx(VOICE_RATE, abs=2)
    assert pitch(audio) == pytest.approx(440, abs=5)
    assert rms(audio) == pytest.approx(0.3 / np.sqrt(2), rel=0.02)


async def test_an_mp3_is_understood(endpoint: ScriptedEndpoint, engine: EndpointEngine) -> None:
    """Of servers that send nothing else."""
    endpoint.speech = [Answer(mp3_tone(1.0), content_type="audio/mpeg")]
    audio = await spoken(engine.synthesizer(""))
    assert pitch(audio) == pytest.approx(440, abs=5) and len(audio) > 0.9 * VOICE_RATE


async def test_pcm_of_another_rate_is_understood(
    endpoint: ScriptedEndpoint, engine: EndpointEngine
) -> None:
    """If its content type says so."""
    endpoint.speech = [
        Answer(pcm_tone(1.0, 16_000), headers={"Content-Type": "audio/pcm;rate=16000"})
    ]
    assert pitch(await spoken(engine.synthesizer(""))) == pytest.approx(440, abs=5)


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b"<html>sorry</html>" * 50, "text/html"),
        (b'{"detail": "no"}', "application/json"),
        (b"OggS" * 100, "audio/ogg"),
        (b"RIFF\xff\xff\xff\xffWAVE" + b"junk\x04\x00\x00\x00abcd" * 6000, "audio/wav"),
        (b"RIFF\xff\xff\xff\xffWAVEdata\xff\xff\xff\xff" + TONE, "audio/wav"),
        (wav(np.zeros(10), 24_000, True).replace(b"\x10\x00data", b"\x0c\x00data"), "audio/wav"),
    ],
)
async def test_what_is_no_sound_is_not_played(
    endpoint: ScriptedEndpoint, engine: EndpointEngine, data: bytes, content_type: str
) -> None:
    """A page, an error as JSON, a format that was not asked for: an error, never noise."""
    endpoint.speech = [Answer(data, content_type=content_type)]
    with pytest.raises(VoiceError):
        await spoken(engine.synthesizer(""))


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "refuses the key"), (403, "refuses the key"), (429, "no more requests"), (503, "503")],
)
async def test_a_refusal_of_everyone_concerns_everyone(
    endpoint: ScriptedEndpoint, engine: EndpointEngine, status: int, said: str
) -> None:
    """A wrong key, no quota, no capacity: neither the text nor the voice is the cause."""
    endpoint.speech = [Answer("the key sk-secret is wrong", status=status)]
    with pytest.raises(VoiceUnreachable, match=said) as caught:
        await spoken(engine.synthesizer(""), "a private text")
    assert "secret" not in str(caught.value) and "private" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "said"), [(400, "400"), (404, "tts.model"), (422, "422"), (500, "500")]
)
async def test_another_refusal_concerns_this_text(
    endpoint: ScriptedEndpoint, engine: EndpointEngine, status: int, said: str
) -> None:
    """It may be the text; the message says what to do and not what the server repeats of it."""
    endpoint.speech = [Answer("a private text is not nice", status=status)]
    with pytest.raises(VoiceError, match=said) as caught:
        await spoken(engine.synthesizer(""), "a private text")
    assert not isinstance(caught.value, VoiceUnreachable) and "private" not in str(caught.value)


async def test_a_voice_that_is_refused_is_the_default_voice(
    endpoint: ScriptedEndpoint, engine: EndpointEngine
) -> None:
    """For this phrase and, without asking again, for the next."""
    endpoint.speech = [Answer("no such voice", status=400), Answer(TONE)]
    voice = engine.synthesizer("nobody")
    assert len(await spoken(voice)) and len(await spoken(voice))
    assert len(await spoken(engine.synthesizer("de-DE-KatjaNeural")))  # plainly another engine's
    voices = [asked.body["voice"] for asked in endpoint.requests("/audio/speech")]
    assert voices == ["nobody", "alloy", "alloy", "alloy"]


async def test_a_server_that_is_not_there_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection, a name that is not found: every session waits for another."""
    forget_nowhere(monkeypatch)
    for base_url in ("http://127.0.0.1:9/v1", f"http://{NOWHERE}/v1"):
        engine = EndpointEngine(TtsSettings(base_url=base_url), audio_s=5)
        with pytest.raises(VoiceUnreachable, match="cannot be reached"):
            await spoken(engine.synthesizer(""))
        await engine.close()


async def test_a_connection_that_never_opens_is_unreachable() -> None:
    """Something listens, and does not answer the TLS handshake."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        # Half of it is for the connection; the other half is what a slow machine may need.
        engine = EndpointEngine(TtsSettings(base_url=f"https://127.0.0.1:{port}/v1"), audio_s=2)
        with pytest.raises(VoiceUnreachable, match="cannot be reached"):
            await spoken(engine.synthesizer(""))
        await engine.close()


@pytest.mark.parametrize("steps", [(HANG,), (TONE, HANG)])
async def test_a_server_that_stalls_is_a_timeout(
    endpoint: ScriptedEndpoint, steps: tuple[Any, ...]
) -> None:
    """Before the first sound, or in the middle of a phrase."""
    endpoint.speech = [Answer(*steps)]
    engine = EndpointEngine(TtsSettings(base_url=endpoint.url), audio_s=1.0)
    with pytest.raises(VoiceTimeout, match="in time"):
        await spoken(engine.synthesizer(""))
    await engine.close()


async def test_an_answer_that_breaks_off_is_an_error(
    endpoint: ScriptedEndpoint, engine: EndpointEngine
) -> None:
    """Half a phrase is not taken for a whole one."""
    endpoint.speech = [Answer(TONE, CUT)]
    with pytest.raises(VoiceError):
        await spoken(engine.synthesizer(""))


# -- keys -----------------------------------------------------------------------------------------


async def test_the_settings_key_goes_to_the_settings_endpoint(endpoint: ScriptedEndpoint) -> None:
    """As a bearer token."""
    endpoint.key = "sk-mine"
    settings = TtsSettings(base_url=endpoint.url, api_key=SecretStr("sk-mine"))
    engine = EndpointEngine(settings)
    assert len(await spoken(engine.synthesizer("")))
    await engine.close()


async def test_the_environments_key_goes_to_nobody_else(
    endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another server gets neither OpenAI's key nor the names of its organisation and project."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-secret")
    engine = EndpointEngine(TtsSettings(base_url=endpoint.url))
    await spoken(engine.synthesizer(""))
    await engine.close()
    assert "secret" not in str(endpoint.asked[0].headers)


async def test_the_environments_endpoint_gets_the_environments_key(
    endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no endpoint is configured."""
    endpoint.key = "sk-env"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    engine = EndpointEngine(TtsSettings())
    assert len(await spoken(engine.synthesizer("")))
    await engine.close()


def test_what_is_missing_is_said() -> None:
    """OpenAI without a key, and an address that is none."""
    assert "OPENAI_API_KEY" in EndpointEngine(TtsSettings()).problem()
    for wrong in ("localhost:8000", "ftp://x/v1", "http://"):
        assert "base_url" in EndpointEngine(TtsSettings(base_url=wrong)).problem()
    assert EndpointEngine(TtsSettings(base_url="http://127.0.0.1:8000/v1")).problem() == ""
