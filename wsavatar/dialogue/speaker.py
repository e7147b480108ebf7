"""Speaks one response at a time, in a task, so that the dialogue goes on listening.

Knows responses and voices, not the reason for speaking.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

import numpy as np

from wsavatar.media.audio import resample

from .base import SPEECH_RATE, DialogueConfig, DialogueSession, Response, ResponseRequest
from .conversation import Recording
from .engine import EngineError
from .live import LiveSpeech
from .llm.base import CallDelta, Finished, TextDelta
from .llm.base import Part as AnswerPart
from .read_ahead import ReadAhead
from .saying import Part, Saying, moved
from .tts import Voice, VoiceError
from .tts.clean import whole
from .tts.text import Phrase, PhraseCutter, TextError, check_speakable, phrases

__all__ = ["Interrupted", "MakeVoice", "Said", "Speaker"]

_log = logging.getLogger(__name__)

MakeVoice = Callable[[str], Voice]
"""Creates the voice of this name (empty: the default). Raises VoiceError if there is none."""
Answer = AsyncGenerator[AnswerPart, None]
"""A language model's answer while it is written."""
Said = str | Recording | LiveSpeech | Answer
"""A text, a recording, live speech, or a text that is still written."""
Parts = AsyncGenerator[Part, None]

_ANSWER_AHEAD = 512
"""Parts of an answer that may wait for the voice; then the model waits."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A response that was interrupted, and what is left of it. `Speaker.resume` or `close` it."""

    response: Response
    saying: Saying
    request: ResponseRequest | None

    async def close(self) -> None:
        """It is not gone on with: stop the model and the voice."""
        await self.saying.close()


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
        self._now: Interrupted | None = None  # the newest response
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
        return self._now is None or self._now.response.over

    async def say(self, said: Sequence[Said], request: ResponseRequest | None = None) -> None:
        """Start a response with these, one after another.

        Audio of a single rate is sent at that rate, with the same samples. A text that cannot be
        spoken gives a failed response.
        """
        try:
            for one in said:
                if isinstance(one, str):
                    check_speakable(one)
        except TextError as error:
            await self.fail(error.code, str(error), request)
            return
        voice = self._voice
        if request is not None and request.voice is not None:
            voice = self._make_voice(request.voice)
        with_sound = request is None or request.modality == "audio"
        own = [one.rate for one in said if isinstance(one, Recording | LiveSpeech)]
        rates = {*own, *([SPEECH_RATE] if len(own) < len(said) else [])}
        rate = rates.pop() if len(rates) == 1 else SPEECH_RATE
        live = any(isinstance(one, LiveSpeech) for one in said)
        if live:
            request = replace(request or ResponseRequest(), live=True)
        await self._begin(
            lambda: Saying(_parts(said, voice, rate, with_sound=with_sound), rate, live=live),
            rate,
            request,
        )

    async def fail(self, code: str, message: str, request: ResponseRequest | None = None) -> None:
        """Answer with a failed response, which replaces the one in progress."""
        response = self._session.respond(request)
        await self.stop()
        await response.fail(code, message)

    async def abort(self, code: str, message: str) -> None:
        """Fail the response in progress."""
        if self._now is not None:
            await self._now.response.fail(code, message, at_once=True)
        await self.stop()

    async def stop(self) -> None:
        """Stop speaking and end the response with the audio so far."""
        now = await self._leave()
        if now is not None:
            await now.close()
            await now.response.done()

    async def interrupt(self) -> Interrupted | None:
        """Stop speaking at once, so that `resume` can go on. None: there is nothing to go on with.

        Voice and model pause: no more than is read ahead is made. The caller ends the response.
        """
        now = await self._leave()
        if now is not None and now.saying.live:
            await now.close()
            return None
        return now

    async def resume(self, interrupted: Interrupted, heard_s: float, heard_chars: int) -> None:
        """Go on behind this position of the interrupted response's audio and texts, as a new
        response."""
        old = interrupted.saying

        async def rest() -> Parts:
            try:
                for part in old.after(heard_s, heard_chars):
                    yield part
                async for part in old.parts():
                    yield moved(part, -heard_s) if isinstance(part, tuple) else part
            finally:
                await old.close()

        request = interrupted.request
        if request is not None:
            request = replace(request, trace=None)
        await self._begin(lambda: Saying(rest(), old.rate, live=False), old.rate, request)

    async def _leave(self) -> Interrupted | None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        now, self._now = self._now, None
        return now

    async def _begin(
        self, make: Callable[[], Saying], rate: int, request: ResponseRequest | None
    ) -> None:
        response = self._session.respond(request, rate=rate)  # cancels the one in progress
        await self.stop()
        self._now = Interrupted(response, make(), request)
        self._task = asyncio.create_task(self._say(self._now), name=f"say {response.id}")

    async def _say(self, now: Interrupted) -> None:
        response, saying = now.response, now.saying
        try:
            await self._say_parts(response, saying, now.request)
        except VoiceError as error:
            await response.fail("tts_failed", str(error))
        except EngineError as error:
            await response.fail(error.code, str(error))
        except Exception:  # the task's boundary
            _log.exception("response %s could not be said", response.id)
            await response.fail("internal_error", "The response could not be said.")
        await saying.close()  # not where it is cancelled: it may be gone on with

    async def _say_parts(
        self, response: Response, saying: Saying, request: ResponseRequest | None
    ) -> None:
        max_s = None if saying.live else self._config.settings.max_response_s
        trace = request.trace if request is not None else None
        with_sound = request is None or request.modality == "audio"
        answered = written = False
        finished: Finished | None = None
        async for part in saying.parts():
            if response.over:
                return
            if isinstance(part, str):
                written = written or bool(part.strip())
                answered = answered or (bool(part) and not with_sound)
                await response.text(part)
            elif isinstance(part, np.ndarray):
                answered = answered or len(part) > 0
                if trace is not None and len(part):
                    trace.mark("first_sound")
                too_long = max_s is not None and saying.seconds > max_s
                excess = round((saying.seconds - max_s) * saying.rate) if too_long and max_s else 0
                await response.audio(part[: len(part) - excess])
                if too_long:
                    await response.fail(
                        "response_too_long", f"Cut off: a response may last {max_s:g} s."
                    )
                    return
            elif isinstance(part, CallDelta):
                answered = True
                await response.arguments(part.call_id, part.name, part.arguments)
            elif isinstance(part, Finished):
                finished = part
            else:
                await response.words(part)
        early = None
        if finished is not None and finished.reason in ("max_output_tokens", "content_filter"):
            early = finished.reason
        if answered or early or (written and finished is not None):  # an answer may be code alone
            await response.done(early)
        elif finished is not None:
            await response.fail("empty_answer", "The language model answered with nothing.")
        else:
            await response.fail("nothing_to_say", "There is nothing in it that can be heard.")


async def _parts(said: Sequence[Said], voice: Voice, rate: int, *, with_sound: bool) -> Parts:
    voice = voice.for_response()
    samples = start = 0  # so far; where the last text's sound begins
    for one in said:
        yield ""  # the words before it end here
        parts = _of(one, voice if with_sound else None, rate)
        async with aclosing(parts):
            async for part in parts:
                if isinstance(part, str):
                    start = samples
                elif isinstance(part, np.ndarray):
                    samples += len(part)
                elif isinstance(part, tuple):
                    part = moved(part, start / rate)
                yield part


def _of(said: Said, voice: Voice | None, rate: int) -> Parts:
    if isinstance(said, str):
        return _text(said, voice)
    if isinstance(said, Recording | LiveSpeech):
        return _audio(said, rate)
    return _in_text(said) if voice is None else _answer(said, voice)


async def _in_text(answer: Answer) -> Parts:
    """An answer that is not spoken, as it comes."""
    async with aclosing(answer):
        async for part in answer:
            yield whole(part.text) if isinstance(part, TextDelta) else part


async def _text(text: str, voice: Voice | None) -> Parts:
    if voice is None:
        yield whole(text)
        return
    for phrase in phrases(text):
        async with aclosing(_phrase(phrase, voice)) as parts:
            async for part in parts:
                yield part


async def _phrase(phrase: Phrase, voice: Voice) -> Parts:
    """A phrase's text before its audio, so that captions are not late."""
    yield phrase.text
    if phrase.silent:
        return
    async with aclosing(voice.speak(phrase.text.rstrip(" "))) as parts:
        async for part in parts:
            yield part


async def _answer(answer: Answer, voice: Voice) -> Parts:
    """A text that is still written, read while its beginning is spoken.

    What was written before an error is said, then the error is raised.
    """
    cutter = PhraseCutter()
    written = ReadAhead(answer, _ANSWER_AHEAD)
    try:
        ended: Exception | None = None
        while ended is None:
            after: AnswerPart | None = None
            try:
                part = await anext(written)
            except (StopAsyncIteration, EngineError) as error:
                ended, found = error, cutter.flush()
            else:
                if isinstance(part, TextDelta):
                    found = cutter.push(part.text)
                else:
                    found, after = cutter.flush(), part
            for phrase in found:
                async with aclosing(_phrase(phrase, voice)) as parts:
                    async for one in parts:
                        yield one
            if after is not None and not isinstance(after, TextDelta):
                yield after
        if isinstance(ended, EngineError):
            raise ended
    finally:
        await written.close()


async def _audio(audio: Recording | LiveSpeech, rate: int) -> Parts:
    if isinstance(audio, LiveSpeech):
        async with aclosing(audio.pieces()) as pieces:
            async for piece in pieces:
                yield piece
        return
    samples = resample(audio.samples, audio.rate, rate)
    for start in range(0, len(samples), rate // 2):
        yield samples[start : start + rate // 2]
