"""The online voice where it answers, the offline one where it does not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from .base import Chunks, Voice, VoiceError
from .edge import EdgeVoice
from .espeak import EspeakVoice

__all__ = ["AutoVoice", "OnlineState"]

_log = logging.getLogger(__name__)

_RETRY_S = 300.0


@dataclass(slots=True)
class OnlineState:
    """What is known of the online service; all sessions share it, so that one waits, not each."""

    down_until_s: float = 0.0
    said: bool = False


_ONLINE = OnlineState()


class AutoVoice:
    """A `Voice`: a phrase's first audio decides. Once the online voice failed, the offline one
    speaks for five minutes before it is tried again; the log says so once."""

    def __init__(
        self,
        name: str = "",
        *,
        online: Voice | None = None,
        offline: Voice | None = None,
        state: OnlineState = _ONLINE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._online = online or EdgeVoice(name, patience_s=2.0)
        self._offline = offline or EspeakVoice(name)
        self._state = state
        self._clock = clock

    async def speak(self, text: str) -> Chunks:
        begun = False
        if self._clock() >= self._state.down_until_s:
            try:
                async with aclosing(self._online.speak(text)) as chunks:
                    async for chunk in chunks:
                        begun = begun or len(chunk) > 0
                        yield chunk
                if begun:
                    return
            except VoiceError as error:
                self._note_failure(error)
                if begun:
                    raise  # half a phrase in one voice and all of it in another helps nobody
        async with aclosing(self._offline.speak(text)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _note_failure(self, error: VoiceError) -> None:
        self._state.down_until_s = self._clock() + _RETRY_S
        if not self._state.said:
            self._state.said = True
            _log.warning("%s Speaking with the offline voice (eSpeak NG).", error)
