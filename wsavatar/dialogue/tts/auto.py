"""The online voice where it can be reached, the offline voice where it cannot."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import aclosing

from .base import Chunks, Voice, VoiceError, VoiceTimeout, VoiceUnreachable
from .edge import EdgeVoice
from .espeak import EspeakVoice

__all__ = ["AutoVoice", "ServiceState"]

_log = logging.getLogger(__name__)

RETRY_S = 60.0
"""How long a service that cannot be reached is left alone."""

_TRIAL_S = 15.0
"""How long one response may try it then, while all others still use the offline voice."""


class ServiceState:
    """Whether the online service can be reached. Shared by all sessions, so that one waits for a
    connection that fails, not each."""

    def __init__(self) -> None:
        self._retry_at_s: float | None = None

    def may_try(self, now_s: float) -> bool:
        """True while the service can be reached, and for one caller at each retry."""
        if self._retry_at_s is None:
            return True
        if now_s < self._retry_at_s:
            return False
        self._retry_at_s = now_s + _TRIAL_S
        return True

    def reached(self) -> None:
        if self._retry_at_s is not None:
            self._retry_at_s = None
            _log.info("The online voice can be reached again.")

    def unreachable(self, now_s: float, error: VoiceUnreachable) -> None:
        if self._retry_at_s is None:
            _log.warning("%s Speaking with the offline voice (eSpeak NG).", error)
        self._retry_at_s = now_s + RETRY_S


_SERVICE = ServiceState()


class AutoVoice:
    """A `Voice` of one session, which speaks online, or else offline.

    A failure changes the voice of those whom it concerns: a service that cannot be reached, of
    every session for `RETRY_S`; one that was reached and sent nothing in time, of this session for
    as long; a text or a voice name that gets no audio, of this response.
    """

    def __init__(
        self,
        name: str = "",
        *,
        online: Voice | None = None,
        offline: Voice | None = None,
        service: ServiceState = _SERVICE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._online = online or EdgeVoice(name, connect_s=2.0, audio_s=4.0)
        self._offline = offline or EspeakVoice(name)
        self._service = service
        self._clock = clock
        self._retry_at_s = 0.0

    def for_response(self) -> _ResponseVoice:
        return _ResponseVoice(self)

    async def speak(self, text: str) -> Chunks:
        async with aclosing(self.for_response().speak(text)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def online(self, text: str) -> Chunks:
        """Nothing at all means that the text is the offline voice's. A voice that fails in the
        middle of a phrase raises `VoiceError`: half a phrase in each voice is no use to anyone."""
        now_s = self._clock()
        if now_s < self._retry_at_s or not self._service.may_try(now_s):
            return
        begun = False
        try:
            async with aclosing(self._online.speak(text)) as chunks:
                async for chunk in chunks:
                    if len(chunk) == 0:
                        continue
                    if not begun:
                        begun = True
                        self._service.reached()
                    yield chunk
        except VoiceError as error:
            if begun:
                raise
            self._note(error)

    async def offline(self, text: str) -> Chunks:
        async with aclosing(self._offline.speak(text)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _note(self, error: VoiceError) -> None:
        if isinstance(error, VoiceUnreachable):
            self._service.unreachable(self._clock(), error)
            return
        self._service.reached()
        if isinstance(error, VoiceTimeout):
            self._retry_at_s = self._clock() + RETRY_S
        _log.info("%s This response is spoken by the offline voice.", error)


class _ResponseVoice:
    """A `Voice` of one response: once it is offline, it stays so."""

    def __init__(self, session: AutoVoice) -> None:
        self._session = session
        self._fell_back = False

    def for_response(self) -> _ResponseVoice:
        return self

    async def speak(self, text: str) -> Chunks:
        if not self._fell_back:
            self._fell_back = True
            async with aclosing(self._session.online(text)) as chunks:
                async for chunk in chunks:
                    self._fell_back = False
                    yield chunk
            if not self._fell_back:
                return
        async with aclosing(self._session.offline(text)) as chunks:
            async for chunk in chunks:
                yield chunk
