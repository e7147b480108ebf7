"""The one thing a dialogue says at a time, said in a task of its own.

So a dialogue goes on listening while it speaks. Knows responses and voices; not why something is
said.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from wsavatar.config import DialogueSettings

from .base import SPEECH_RATE, DialogueSession, Response, ResponseRequest, Samples
from .conversation import Recording
from .tts import Voice, VoiceError
from .tts.text import TextError, phrases, speakable

__all__ = ["MakeVoice", "Speaker"]

_log = logging.getLogger(__name__)

MakeVoice = Callable[[DialogueSettings], Voice]
"""The voice that the settings ask for. Raises VoiceError where it is not available."""
Parts = AsyncGenerator[str | Samples, None]
"""What a response is made of, in order: text, and the audio that speaks it."""


class Speaker:
    """Says recordings and texts. A new one takes the place of the one in progress.

    A response that would last more than ``max_response_s`` fails there, having said so much.
    """

    def __init__(
        self, session: DialogueSession, make_voice: MakeVoice, settings: DialogueSettings
    ) -> None:
        self._session = session
        self._make_voice = make_voice
        self._settings = settings
        self._voice = make_voice(settings)
        self._response: Response | None = None
        self._task: asyncio.Task[None] | None = None

    def configure(self, settings: DialogueSettings) -> None:
        """The next text is said with these settings. Raises VoiceError; then nothing changes."""
        old, chosen = self._settings, (settings.tts, settings.tts_voice)
        if chosen != (old.tts, old.tts_voice):
            self._voice = self._make_voice(settings)
        self._settings = settings

    @property
    def busy(self) -> bool:
        """Something is being said that is not all sent yet."""
        return self._task is not None and not self._task.done()

    async def say(self, said: str | Recording, request: ResponseRequest | None = None) -> None:
        """Begin to say a text, or a recording at its own rate.

        A text that cannot be said is a failed response.
        """
        if isinstance(said, Recording):
            await self._begin(_recording(said), request, said.rate)
            return
        try:
            text = speakable(said)
        except TextError as error:
            await self.fail(error.code, str(error), request)
            return
        voice = self._voice
        if request is not None and request.voice is not None:
            settings = self._settings.model_copy(update={"tts_voice": request.voice})
            voice = self._make_voice(settings)
        await self._begin(_text(text, voice), request, SPEECH_RATE)

    async def fail(self, code: str, message: str, request: ResponseRequest | None = None) -> None:
        """Answer with a response that fails at once."""
        await self.stop()
        await self._session.respond(request).fail(code, message)

    async def stop(self) -> None:
        """Say no more; what was said stays said. The response is over afterwards."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        response, self._response = self._response, None
        if response is not None:
            await response.done()

    async def _begin(self, parts: Parts, request: ResponseRequest | None, rate: int) -> None:
        response = self._session.respond(request, rate=rate)  # cancels what is being said
        await self.stop()
        self._response = response
        self._task = asyncio.create_task(
            self._say(response, parts, rate), name=f"say {response.id}"
        )

    async def _say(self, response: Response, parts: Parts, rate: int) -> None:
        said, limit = 0, int(self._settings.max_response_s * rate)
        try:
            async with aclosing(parts):
                async for part in parts:
                    if response.over:
                        return
                    if isinstance(part, str):
                        await response.text(part)
                        continue
                    await response.audio(part[: limit - said])
                    said += len(part)
                    if said > limit:
                        await response.fail(
                            "response_too_long",
                            f"Cut off: a response may last {self._settings.max_response_s:g} s.",
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


async def _text(text: str, voice: Voice) -> Parts:
    """Each phrase's words before its audio, so that captions are never late."""
    voice = voice.for_response()
    for phrase in phrases(text):
        yield phrase
        async with aclosing(voice.speak(phrase.rstrip())) as chunks:
            async for chunk in chunks:
                yield chunk


async def _recording(recording: Recording) -> Parts:
    step = recording.rate // 2
    for start in range(0, len(recording.samples), step):
        yield recording.samples[start : start + step]
