"""Several engines in order: where one fails, the next one speaks.

How long a failure counts, and for whom, depends on what its cause may be:

* a service that cannot be reached, or refuses everyone: every session, for `RETRY_S`, then one
  response tries it again;
* one that was reached and sent nothing in time: this session, for as long;
* no sound for this text or voice name, or none any more within a phrase: the rest of this response.

A phrase that breaks off is said again from its start, by the next engine: a listener understands a
sentence that begins again, and not the second half of one in another voice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import numpy as np

from .base import (
    VOICE_RATE,
    Samples,
    Speech,
    Synthesizer,
    VoiceError,
    VoiceTimeout,
    VoiceUnreachable,
)
from .clean import has_words
from .pauses import SENTENCE_PAUSE_S, later, silence
from .phrase import say
from .spoken import Spoken, spoken_form

__all__ = ["FallbackVoice", "Link", "ServiceState"]

_log = logging.getLogger(__name__)

RETRY_S = 60.0
"""How long an engine that cannot be reached is left alone."""

_TRIAL_S = 15.0
"""How long one response may try it then, while all others still pass it over."""

_FADE = VOICE_RATE // 200
"""Samples in which a sound that breaks off fades, so that it does not click."""


class ServiceState:
    """Whether an engine can be reached. Shared by all sessions, so that one waits for a connection
    that fails, not each."""

    def __init__(self, name: str = "") -> None:
        self._name = name
        self._retry_at_s: float | None = None

    def may_try(self, now_s: float) -> bool:
        """True while it can be reached, and for one caller at each retry."""
        if self._retry_at_s is None:
            return True
        if now_s < self._retry_at_s:
            return False
        self._retry_at_s = now_s + _TRIAL_S
        return True

    @property
    def is_down(self) -> bool:
        """It could not be reached when it was last tried."""
        return self._retry_at_s is not None

    def reached(self) -> None:
        if self._retry_at_s is not None:
            self._retry_at_s = None
            _log.info("The voice %s can be reached again.", self._name)

    def unreachable(self, now_s: float, error: VoiceUnreachable) -> None:
        if self._retry_at_s is None:
            _log.warning("%s Other voices speak for it.", error)
        self._retry_at_s = now_s + RETRY_S


@dataclass(slots=True)
class Link:
    """One engine of a session's voice."""

    synthesizer: Synthesizer
    state: ServiceState = field(default_factory=ServiceState)
    retry_at_s: float = 0.0
    """For this session."""

    def may_try(self, now_s: float) -> bool:
        return now_s >= self.retry_at_s and self.state.may_try(now_s)

    def failed(self, error: VoiceError, now_s: float) -> None:
        if isinstance(error, VoiceUnreachable):
            self.state.unreachable(now_s, error)
            return
        self.state.reached()
        if isinstance(error, VoiceTimeout):
            self.retry_at_s = now_s + RETRY_S
        _log.info("%s", error)


class FallbackVoice:
    """A `Voice` of one session, by engines in order, at least one."""

    def __init__(
        self, links: Sequence[Link], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._links = links
        self._clock = clock

    def for_response(self) -> FallbackVoice:
        return _ResponseVoice(self._links, clock=self._clock)

    async def speak(self, text: str) -> Speech:
        async with aclosing(self.for_response().speak(text)) as parts:
            async for part in parts:
                yield part


class _ResponseVoice(FallbackVoice):
    """A `Voice` of one response: an engine that failed in it is not gone back to."""

    def __init__(
        self, links: Sequence[Link], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(links, clock=clock)
        self._left = list(links)

    def for_response(self) -> FallbackVoice:
        return self

    async def speak(self, text: str) -> Speech:
        spoken = spoken_form(text)
        if not has_words(spoken.text):
            return
        attempt = _Attempt()
        errors: list[VoiceError] = []
        while True:
            link = self._next()
            try:
                async with aclosing(attempt.speak(link, text, spoken)) as parts:
                    async for part in parts:
                        yield part
                if attempt.sounds:
                    return
            except VoiceError as error:
                errors.append(error)
                if not attempt.sounds:
                    link.failed(error, self._clock())
            if len(self._left) == 1:
                break
            self._left.remove(link)
            if attempt.sounds:
                yield attempt.broken_off()
            attempt = _Attempt(attempt)
        if errors:
            raise errors[0] if len(errors) == 1 else VoiceError(" ".join(map(str, errors)))

    def _next(self) -> Link:
        """The first engine that may be tried; if none may, the first."""
        now_s = self._clock()
        for index, link in enumerate(self._left):
            if link.may_try(now_s):
                del self._left[:index]  # the voice does not change back within a response
                break
        return self._left[0]


class _Attempt:
    """One engine says a phrase, of which another may have said the beginning."""

    def __init__(self, before: _Attempt | None = None) -> None:
        self.sounds = False
        self._seconds: float = before._seconds if before is not None else 0.0
        self._words: int = before._words if before is not None else 0
        self._last = np.float32(0)

    async def speak(self, link: Link, text: str, spoken: Spoken) -> Speech:
        start_s, said_words = self._seconds, self._words
        async with aclosing(say(link.synthesizer, text, spoken)) as parts:
            async for part in parts:
                if isinstance(part, tuple):
                    fresh = part[said_words:]  # those said before have their times
                    said_words = max(said_words - len(part), 0)
                    if fresh:
                        self._words += len(fresh)
                        yield later(fresh, start_s)
                    continue
                if not self.sounds:
                    self.sounds = True
                    link.state.reached()
                self._seconds += len(part) / VOICE_RATE
                self._last = part[-1]
                yield part

    def broken_off(self) -> Samples:
        """What follows the sound so far: it fades, and there is a pause."""
        fade = np.linspace(self._last, 0, _FADE, dtype=np.float32)
        rest = np.concatenate([fade, silence(SENTENCE_PAUSE_S)])
        self._seconds += len(rest) / VOICE_RATE
        return rest
