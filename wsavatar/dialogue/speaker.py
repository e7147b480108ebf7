"""The one thing a dialogue says at a time, said in a task of its own.

So a dialogue goes on hearing while it speaks. Knows responses and voices; not why something is
said.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np
from numpy.typing import NDArray

from wsavatar.media.audio import Resampler

from .base import SPEECH_RATE, Response, Stage
from .tts import Voice, VoiceError
from .tts.text import TextError, phrases, speakable
from .vad import VAD_RATE

__all__ = ["Speaker"]

_log = logging.getLogger(__name__)

_STEP_SAMPLES = VAD_RATE // 2

Array = NDArray[np.float32]
Parts = AsyncGenerator[str | Array, None]
"""What a response is made of, in order: captions and audio at SPEECH_RATE."""


class Speaker:
    """Says recordings and texts. A new one takes the place of the one in progress.

    ``max_seconds`` bounds a response; a longer one fails there, having said so much.
    """

    def __init__(self, stage: Stage, voice: Voice, max_seconds: float) -> None:
        self._stage = stage
        self._voice = voice
        self._max_samples = int(max_seconds * SPEECH_RATE)
        self._response: Response | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Something is being said that is not all out yet."""
        return self._task is not None and not self._task.done()

    async def say_recording(self, samples: Array, item_id: str | None = None) -> None:
        """Begin to say float32 mono at 16 kHz back."""
        await self._begin(_recording(samples), item_id)

    async def say_text(self, text: str) -> None:
        """Begin to say a text; one that cannot be said is a failed response."""
        try:
            text = speakable(text)
        except TextError as error:
            await self.fail(error.code, str(error))
            return
        await self._begin(self._text(text), None)

    async def fail(self, code: str, message: str) -> None:
        """Answer with a response that fails at once."""
        await self.stop()
        response = await self._stage.respond()
        await response.fail(code, message)

    async def stop(self) -> None:
        """Say no more; what was said stays said. The response is over afterwards."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        response, self._response = self._response, None
        if response is not None:
            await response.done()

    async def _begin(self, parts: Parts, item_id: str | None) -> None:
        await self.stop()
        self._response = await self._stage.respond(item_id)
        self._task = asyncio.create_task(
            self._say(self._response, parts), name=f"say {self._response.id}"
        )

    async def _say(self, response: Response, parts: Parts) -> None:
        said = 0
        try:
            async with aclosing(parts):
                async for part in parts:
                    if response.cancelled:
                        return
                    if isinstance(part, str):
                        await response.text(part)
                        continue
                    await response.audio(part[: self._max_samples - said])
                    said += len(part)
                    if said > self._max_samples:
                        limit = self._max_samples / SPEECH_RATE
                        await response.fail(
                            "response_too_long", f"Cut off: a response may last {limit:g} s."
                        )
                        return
            if said:
                await response.done()
            else:
                await response.fail("nothing_to_say", "There is nothing in it that can be heard.")
        except VoiceError as error:
            await response.fail("tts_failed", str(error))
        except Exception:  # the task's boundary: the session must learn that this response is over
            _log.exception("response %s could not be said", response.id)
            await response.fail("internal_error", "The response could not be said.")

    async def _text(self, text: str) -> Parts:
        """Each phrase's words before its audio, so that captions are never late."""
        voice = self._voice.for_response()
        for phrase in phrases(text):
            yield phrase
            async with aclosing(voice.speak(phrase.rstrip())) as chunks:
                async for chunk in chunks:
                    yield chunk


async def _recording(samples: Array) -> Parts:
    resampler = Resampler(VAD_RATE, SPEECH_RATE)
    for start in range(0, len(samples), _STEP_SAMPLES):
        yield resampler.push(samples[start : start + _STEP_SAMPLES])
    yield resampler.flush()
