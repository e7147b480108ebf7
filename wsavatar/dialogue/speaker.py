"""Speaks one response at a time, in a task, so that the dialogue goes on listening.

Knows responses and voices, not the reason for speaking.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from wsavatar.media.audio import resample

from .base import SPEECH_RATE, DialogueConfig, DialogueSession, Response, ResponseRequest, Samples
from .conversation import Recording
from .live import LiveSpeech
from .tts import Voice, VoiceError
from .tts.text import TextError, phrases, speakable

__all__ = ["MakeVoice", "Said", "Speaker"]

_log = logging.getLogger(__name__)

MakeVoice = Callable[[str], Voice]
"""Creates the voice of this name (empty: the default). Raises VoiceError if there is none."""
Said = str | Recording | LiveSpeech
"""A text, a recording, or live speech."""
Parts = AsyncGenerator[str | Samples, None]
"""Parts of a response in order: text, followed by its audio."""


class Speaker:
    """Speaks texts, recordings and live speech. A new response replaces the one in progress.

    A response longer than ``max_response_s`` fails at that point, except for live speech.
    """

    def __init__(
        self, session: DialogueSession, make_voice: MakeVoice, config: DialogueConfig
    ) -> None:
        self._session = session
        self._make_voice = make_voice
        self._config = config
        self._voice = make_voice(config.voice)
        self._response: Response | None = None
        self._task: asyncio.Task[None] | None = None

    def configure(self, config: DialogueConfig) -> None:
        """Use this from the next text on. Raises VoiceError; then nothing changes."""
        if config.voice != self._config.voice:
            self._voice = self._make_voice(config.voice)
        self._config = config

    @property
    def busy(self) -> bool:
        """Whether speech is in progress that is not sent completely."""
        return self._task is not None and not self._task.done()

    @property
    def is_over(self) -> bool:
        """Whether the newest response is over: cancelled, or said to its end."""
        return self._response is None or self._response.over

    async def say(self, said: Sequence[Said], request: ResponseRequest | None = None) -> None:
        """Start a response with these, one after another.

        Audio of a single rate is sent at that rate, with the same samples. A text that cannot be
        spoken gives a failed response.
        """
        try:
            said = [speakable(one) if isinstance(one, str) else one for one in said]
        except TextError as error:
            await self.fail(error.code, str(error), request)
            return
        voice = self._voice
        if request is not None and request.voice is not None:
            voice = self._make_voice(request.voice)
        rates = {SPEECH_RATE if isinstance(one, str) else one.rate for one in said}
        rate = rates.pop() if len(rates) == 1 else SPEECH_RATE
        await self._begin(said, voice, request, rate)

    async def fail(self, code: str, message: str, request: ResponseRequest | None = None) -> None:
        """Answer with a failed response, which replaces the one in progress."""
        response = self._session.respond(request)
        await self.stop()
        await response.fail(code, message)

    async def abort(self, code: str, message: str) -> None:
        """Fail the response in progress."""
        if self._response is not None:
            await self._response.fail(code, message, at_once=True)
        await self.stop()

    async def stop(self) -> None:
        """Stop speaking and end the response with the audio so far."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        response, self._response = self._response, None
        if response is not None:
            await response.done()

    async def _begin(
        self, said: Sequence[Said], voice: Voice, request: ResponseRequest | None, rate: int
    ) -> None:
        response = self._session.respond(request, rate=rate)  # cancels the one in progress
        await self.stop()
        self._response = response
        is_live = any(isinstance(one, LiveSpeech) for one in said)
        limit = None if is_live else int(self._config.settings.max_response_s * rate)
        saying = self._say(response, _parts(said, voice, rate), limit)
        self._task = asyncio.create_task(saying, name=f"say {response.id}")

    async def _say(self, response: Response, parts: Parts, limit: int | None) -> None:
        said = 0
        try:
            async with aclosing(parts):
                async for part in parts:
                    if response.over:
                        return
                    if isinstance(part, str):
                        await response.text(part)
                        continue
                    await response.audio(part if limit is None else part[: limit - said])
                    said += len(part)
                    if limit is not None and said > limit:
                        max_s = self._config.settings.max_response_s
                        await response.fail(
                            "response_too_long",
                            f"Cut off: a response may last {max_s:g} s.",
                        )
                        return
            if said:
                await response.done()
            else:
                await response.fail("nothing_to_say", "There is nothing in it that can be heard.")
        except VoiceError as error:
            await response.fail("tts_failed", str(error))
        except Exception:  # the task's boundary
            _log.exception("response %s could not be said", response.id)
            await response.fail("internal_error", "The response could not be said.")


async def _parts(said: Sequence[Said], voice: Voice, rate: int) -> Parts:
    voice = voice.for_response()
    for one in said:
        yield ""  # the words before it end here
        parts = _text(one, voice) if isinstance(one, str) else _audio(one, rate)
        async with aclosing(parts):
            async for part in parts:
                yield part


async def _text(text: str, voice: Voice) -> Parts:
    """Each phrase's text before its audio, so that captions are not late."""
    for phrase in phrases(text):
        yield phrase
        async with aclosing(voice.speak(phrase.rstrip())) as chunks:
            async for chunk in chunks:
                yield chunk


async def _audio(audio: Recording | LiveSpeech, rate: int) -> Parts:
    if isinstance(audio, LiveSpeech):
        async with aclosing(audio.pieces()) as pieces:
            async for piece in pieces:
                yield piece
        return
    samples = resample(audio.samples, audio.rate, rate)
    for start in range(0, len(samples), rate // 2):
        yield samples[start : start + rate // 2]
