"""Voices of an OpenAI-compatible endpoint (``/audio/speech``), through the ``openai`` package.

PCM at 24 kHz is asked for and spoken as it arrives. Servers that send a WAV or an MP3 instead are
understood by their header or content type.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING

from wsavatar.config import TtsSettings
from wsavatar.dialogue.engine import EngineError
from wsavatar.dialogue.openai_endpoint import Endpoint, status_of

from .base import (
    Chunks,
    Samples,
    Synthesizer,
    VoiceEngine,
    VoiceError,
    VoiceInfo,
    VoiceTimeout,
    VoiceUnreachable,
)
from .languages import language_of
from .streams import Decoder, decoder_for

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["EndpointEngine", "EndpointVoice"]

_OPENAI_MODEL = "gpt-4o-mini-tts"
_MODEL = "tts-1"
"""The name that compatible servers answer to, whatever they run."""
_VOICE = "alloy"
_VOICES = "alloy ash ballad coral echo fable nova onyx sage shimmer verse marin cedar".split()
"""OpenAI's, which compatible servers have their own for."""
_BUSY = 429
_UNKNOWN_VOICE = frozenset({400, 404, 422})
_MAX_REFUSED = 256


class EndpointEngine(VoiceEngine):
    """An endpoint. Without ``base_url``: OPENAI_BASE_URL, else OpenAI's.

    ``audio_s``: from the request to the first audio, and from there to the next.
    """

    name = "openai"

    def __init__(self, settings: TtsSettings, *, audio_s: float = 8.0) -> None:
        self.audio_s = audio_s
        self.refused: set[str] = set()
        """Voices that the endpoint does not have."""
        self.endpoint: Endpoint | None = None
        names = (name.strip() for name in settings.voice.split(","))
        self.voice = next(filter(self.knows, names), _VOICE)
        self._problem = ""
        self._client: AsyncOpenAI | None = None
        try:
            self.endpoint = Endpoint.of(
                settings.base_url,
                settings.api_key.get_secret_value(),
                what="The speech endpoint",
                setting="tts",
            )
        except EngineError as error:
            self._problem = str(error)
        is_openais = self.endpoint is not None and self.endpoint.is_openais
        self.model = settings.model or (_OPENAI_MODEL if is_openais else _MODEL)

    def problem(self) -> str:
        if importlib.util.find_spec("openai") is None:
            return "Voices of an endpoint need a package: pip install openai"
        return self._problem

    def knows(self, name: str) -> bool:
        """Any name may be one of its voices, but for those that have another engine's form."""
        return bool(name) and not language_of(name) and name not in self.refused

    def synthesizer(self, name: str) -> Synthesizer:
        return EndpointVoice(self, name if self.knows(name) else self.voice)

    def voices(self) -> Sequence[VoiceInfo]:
        if self.problem():
            return ()
        names = dict.fromkeys([self.voice, *_VOICES])
        return [VoiceInfo(name, name.capitalize(), "", self.name) for name in names]

    async def start(self) -> None:
        """The package takes a second to import. The endpoint is asked for nothing."""
        if not self.problem():
            await asyncio.to_thread(self.client)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def client(self) -> AsyncOpenAI:
        """One for all sessions, so that connections are kept. Raises EngineError."""
        if self.endpoint is None:
            raise EngineError("engine_missing", self._problem)
        if self._client is None:
            self._client = self.endpoint.open(self.audio_s)
        return self._client


class EndpointVoice:
    """A `Synthesizer`. A name that the endpoint refuses means its default voice."""

    times_words = False

    def __init__(self, engine: EndpointEngine, name: str) -> None:
        self._engine = engine
        self._name = name

    async def speak(self, text: str) -> Chunks:
        engine = self._engine
        name = engine.voice if self._name in engine.refused else self._name
        try:
            async with aclosing(self._speak(text, name)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        except _Refused as refusal:
            if name == engine.voice:
                raise VoiceError(str(refusal)) from None
        async with aclosing(self._speak(text, engine.voice)) as chunks:
            async for chunk in chunks:
                if len(engine.refused) < _MAX_REFUSED:
                    engine.refused.add(name)
                yield chunk

    async def _speak(self, text: str, voice: str) -> AsyncGenerator[Samples, None]:
        decoder: Decoder | None = None
        beginning = b""
        try:
            async with aclosing(self._answer(text, voice)) as pieces:
                async for content_type, piece in pieces:
                    if decoder is None:
                        beginning += piece
                        if len(beginning) < 4:
                            continue
                        piece = beginning
                        decoder = decoder_for(content_type, beginning)
                    for samples in decoder.push(piece):
                        yield samples
        except EngineError as error:
            raise _voice_error(error) from error
        if decoder is not None:
            for samples in decoder.flush():
                yield samples

    async def _answer(self, text: str, voice: str) -> AsyncGenerator[tuple[str, bytes], None]:
        """The bytes of the answer's body as they arrive, with its content type. Raises
        EngineError."""
        engine = self._engine
        client = engine.client()
        assert engine.endpoint is not None
        with engine.endpoint.explained():
            from openai import Timeout

            request = client.audio.speech.with_streaming_response.create(
                model=engine.model,
                voice=voice,
                input=text,
                response_format="pcm",
                timeout=Timeout(None, connect=engine.audio_s / 2),
            )
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(engine.audio_s):
                    answer = await stack.enter_async_context(request)
                content_type = answer.headers.get("content-type", "")
                pieces = answer.iter_bytes()
                while True:
                    async with asyncio.timeout(engine.audio_s):
                        piece = await anext(pieces, None)
                    if piece is None:
                        return
                    yield content_type, piece


class _Refused(VoiceError):
    """Of this model, voice or text."""


def _voice_error(error: EngineError) -> VoiceError:
    """By what it concerns: everyone, this session, or this text."""
    status = status_of(error)
    if status in _UNKNOWN_VOICE:
        return _Refused(str(error))
    if error.code == "engine_timeout":
        return VoiceTimeout(str(error))
    concerns_all = ("engine_unreachable", "engine_unauthorized", "engine_missing")
    if error.code in concerns_all or status == _BUSY:
        return VoiceUnreachable(str(error))
    return VoiceError(str(error))
