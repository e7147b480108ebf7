"""Voices of an OpenAI-compatible endpoint (``/audio/speech``), through the ``openai`` package.

PCM at 24 kHz is asked for and spoken as it arrives. Servers that send a WAV or an MP3 instead are
understood by their header or content type.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from wsavatar.config import TtsSettings

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
from .streams import Decoder, decoder_for

if TYPE_CHECKING:
    import openai
    from openai import AsyncOpenAI

__all__ = ["EndpointEngine", "EndpointVoice"]

_OPENAI = "https://api.openai.com/v1"
_OPENAI_MODEL = "gpt-4o-mini-tts"
_MODEL = "tts-1"
"""The name that compatible servers answer to, whatever they run."""
_VOICE = "alloy"
_VOICES = "alloy ash ballad coral echo fable nova onyx sage shimmer verse marin cedar".split()
"""OpenAI's, which compatible servers have their own for."""
_EVERYONES = frozenset({401, 403, 408, 429, 502, 503, 504})
"""HTTP statuses that depend on neither text nor voice."""
_UNKNOWN_VOICE = frozenset({400, 404, 422})
_MAX_REFUSED = 256


class EndpointEngine(VoiceEngine):
    """An endpoint. Without ``base_url``: OPENAI_BASE_URL, else OpenAI's.

    ``audio_s``: from the request to the first audio, and from there to the next.
    """

    name = "openai"

    def __init__(self, settings: TtsSettings, *, audio_s: float = 8.0) -> None:
        self.audio_s = audio_s
        self.base_url = settings.base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI
        is_openais = _origin(self.base_url) == _origin(_OPENAI)
        self.model = settings.model or (_OPENAI_MODEL if is_openais else _MODEL)
        self.voice = settings.voice or _VOICE
        self.refused: set[str] = set()
        """Voices that the endpoint does not have."""
        self._key = settings.api_key.get_secret_value() or environment_key(self.base_url)
        self._needs_key = is_openais
        self._client: AsyncOpenAI | None = None

    @property
    def host(self) -> str:
        """Of the endpoint, for people."""
        return urlsplit(self.base_url).netloc.rpartition("@")[2]

    def problem(self) -> str:
        if importlib.util.find_spec("openai") is None:
            return "Voices of an endpoint need a package: pip install openai"
        if _origin(self.base_url) is None:
            return "tts.base_url is no URL: write http://127.0.0.1:8000/v1"
        if self._needs_key and not self._key:
            return "OpenAI's voices need a key: set OPENAI_API_KEY or tts.api_key."
        return ""

    def synthesizer(self, name: str) -> Synthesizer:
        return EndpointVoice(self, name)

    def voices(self) -> Sequence[VoiceInfo]:
        if self.problem():
            return ()
        names = dict.fromkeys([self.voice, *_VOICES])
        return [VoiceInfo(name, name.capitalize(), "", self.name) for name in names]

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def client(self) -> AsyncOpenAI:
        """One for all sessions, so that connections are kept. Raises VoiceError."""
        if self._client is None:
            if problem := self.problem():
                raise VoiceError(problem)
            from openai import AsyncOpenAI, Timeout

            client = AsyncOpenAI(
                base_url=self.base_url,
                api_key=self._key or "none",
                max_retries=0,
                timeout=Timeout(None, connect=self.audio_s / 2),
            )
            client.organization = client.project = None  # the environment's
            self._client = client
        return self._client


def environment_key(base_url: str) -> str:
    """OPENAI_API_KEY, for those whose key it is: OpenAI, or the server of OPENAI_BASE_URL."""
    owner = os.environ.get("OPENAI_BASE_URL") or _OPENAI
    allowed = {_origin(owner), _origin(_OPENAI)} - {None}
    return os.environ.get("OPENAI_API_KEY", "") if _origin(base_url) in allowed else ""


def _origin(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None: it is no URL of a server."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        return (parts.scheme, parts.hostname, port) if parts.hostname else None
    except (ValueError, KeyError):
        return None


class EndpointVoice:
    """A `Synthesizer`. A name that the endpoint refuses means its default voice."""

    times_words = False

    def __init__(self, engine: EndpointEngine, name: str = "") -> None:
        self._engine = engine
        self._name = name

    async def speak(self, text: str) -> Chunks:
        engine = self._engine
        name = self._name or engine.voice
        if name in engine.refused:
            name = engine.voice
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
        if decoder is not None:
            for samples in decoder.flush():
                yield samples

    async def _answer(self, text: str, voice: str) -> AsyncGenerator[tuple[str, bytes], None]:
        """The bytes of the answer's body as they arrive, with its content type."""
        import openai

        engine = self._engine
        request = engine.client().audio.speech.with_streaming_response.create(
            model=engine.model, voice=voice, input=text, response_format="pcm"
        )
        where = f"The speech endpoint {engine.host}"
        try:
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
        except TimeoutError:
            raise VoiceTimeout(f"{where} sent no audio for {engine.audio_s:g} s.") from None
        except openai.APIStatusError as error:
            message = f"{where} refused the request: {_reason(error)}."
            if error.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                message += " Is tts.api_key (or OPENAI_API_KEY) the key of this server?"
            if error.status_code in _EVERYONES:
                raise VoiceUnreachable(message) from None
            if error.status_code in _UNKNOWN_VOICE:
                raise _Refused(message) from None
            raise VoiceError(message) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise VoiceUnreachable(f"{where} cannot be reached: {cause}.") from None
        except Exception as error:  # httpx's, of a stream that breaks off
            if not type(error).__module__.startswith(("httpx", "httpcore")):
                raise
            raise VoiceError(f"{where} broke off: {type(error).__name__}.") from None


class _Refused(VoiceError):
    """Of this model, voice or text."""


def _reason(error: openai.APIStatusError) -> str:
    """The status, and the server's code for it; not its message, which may repeat the text or the
    key."""
    code = error.code or error.type or ""
    plain = code if re.fullmatch(r"[\w.-]{1,60}", str(code)) else ""
    return f"HTTP {error.status_code}" + (f", {plain}" if plain else "")
