"""Recognition by an OpenAI-compatible transcription endpoint: ``/audio/transcriptions``.

An endpoint on this machine is asked while the user speaks, like a local model. Others are asked at
pauses and at the end of a turn, because they charge by the second.
"""

from __future__ import annotations

import asyncio
import io
import logging
import wave
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsavatar.config import AsrSettings
from wsavatar.dialogue.engine import EngineError
from wsavatar.dialogue.openai_endpoint import Endpoint
from wsavatar.media.audio import encode

from .base import ASR_RATE, Heard, Recognition
from .growing import Growing, Growth, Slots
from .guard import said
from .sample import check_with

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["EndpointRecognizer"]

_log = logging.getLogger(__name__)

_AT_ONCE = 8
"""Requests of all sessions."""
_OPENAI_MODEL = "gpt-transcribe"
_MODEL = "whisper-1"
"""The name that most compatible servers answer to, whatever they run."""
_LIKELY = ("whisper", "transcri", "parakeet", "voxtral", "canary", "moonshine", "asr")
"""Parts of names of models that recognise speech."""
_MAX_TEXT = 100_000

Samples = NDArray[np.float32]


class EndpointRecognizer:
    """A `Recognizer`. ``asr.model`` empty: OpenAI's newest, or one of the server's by its name."""

    note = ""

    def __init__(self, settings: AsrSettings) -> None:
        self._endpoint = Endpoint.of(
            settings.base_url,
            settings.api_key.get_secret_value(),
            what="The transcription endpoint",
            setting="asr",
        )
        self._timeout_s = settings.timeout_s
        self._model = settings.model or (_OPENAI_MODEL if self._endpoint.is_openais else "")
        self._slots = Slots(_AT_ONCE)
        self._growth = Growth(while_spoken=self._endpoint.is_local)
        self._client: AsyncOpenAI | None = None
        self._opening = asyncio.Lock()
        self.language = settings.language

    @property
    def name(self) -> str:
        model = f"{self._model} at " if self._model else ""
        return f"{model}{self._endpoint.host}"

    async def start(self) -> None:
        """See whether the server is there and takes the key, and choose a model."""
        try:
            await self._choose_model()
        except EngineError as error:
            if error.code == "engine_failed" and self._model:
                return  # it has no list of models, which nobody needs then
            raise

    async def check(self) -> str:
        return await check_with(self._read)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def listen(
        self, *, language: str = "", prompt: str = "", on_heard: Callable[[Heard], None]
    ) -> Recognition:
        return Growing(
            self._read,
            self._slots,
            self._growth,
            on_heard,
            language=language.split("-")[0].lower(),
            prompt=prompt,
            timeout_s=2 * self._timeout_s,  # a request says better itself what happened
        )

    async def _read(
        self, samples: Samples, *, language: str, prompt: str, on_text: Callable[[str], None]
    ) -> str:
        client = await self._opened()
        model = self._model or await self._choose_model()
        request: dict[str, Any] = {"model": model, "file": ("turn.wav", _wav(samples), "audio/wav")}
        if language:
            request["language"] = language
        if prompt:
            request["prompt"] = prompt
        # Other servers name their events differently, or refuse the parameter.
        streams = model.startswith("gpt-")
        with self._endpoint.explained():
            async with asyncio.timeout(self._timeout_s):
                if streams:
                    text = await self._streamed(client, request, on_text)
                else:
                    answer = await client.audio.transcriptions.create(**request)
                    text = getattr(answer, "text", None)
        if not isinstance(text, str):
            raise EngineError(
                "engine_failed",
                f"The transcription endpoint ({self._endpoint.host}) answers without a text: is "
                "asr.base_url right?",
            )
        return await asyncio.to_thread(said, text[:_MAX_TEXT], samples)

    async def _streamed(
        self, client: AsyncOpenAI, request: dict[str, Any], on_text: Callable[[str], None]
    ) -> object:
        """The text of the last event; each delta is told."""
        text: object = None
        so_far = ""
        async with await client.audio.transcriptions.create(**request, stream=True) as events:
            async for event in events:
                if event.type == "transcript.text.delta" and len(so_far) < _MAX_TEXT:
                    so_far += event.delta
                    on_text(so_far)
                elif event.type == "transcript.text.done":
                    text = event.text
        return text

    async def _choose_model(self) -> str:
        """The model to ask for, by the server's list. Raises EngineError where it has none."""
        client = await self._opened()
        with self._endpoint.explained():
            async with asyncio.timeout(self._timeout_s):
                listed = await client.models.list()
                names = [one.id for one in listed.data if isinstance(one.id, str)]
        if not self._model:
            likely = (one for one in names if any(part in one.lower() for part in _LIKELY))
            self._model = next(likely, names[0] if len(names) == 1 else _MODEL)
            _log.info("speech recognition by the model %s of %s", self._model, self._endpoint.host)
        return self._model

    async def _opened(self) -> AsyncOpenAI:
        """One client for all sessions, so that connections are kept."""
        async with self._opening:
            if self._client is None:  # in a thread, because it imports the package
                self._client = await asyncio.to_thread(self._endpoint.open, self._timeout_s)
            return self._client


def _wav(samples: Samples) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(ASR_RATE)
        writer.writeframes(encode(samples, "audio/pcm"))
    return file.getvalue()
