"""Mode mirror: microphone audio drives the face while it streams, and is sent back.

With turn detection a response starts with speech (including the prefix padding) and continues
without a gap until a long pause; silence costs nothing. Without it, a response lasts from the first
sample to the client's commit.
"""

from __future__ import annotations

from wsavatar.config import DialogueSettings

from .base import DialogueConfig, DialogueSession, Response, ResponseRequest, Samples
from .listener import Listener
from .requests import repeated, unmet
from .speaker import MakeVoice, Speaker
from .turns import TurnAudio, TurnBegan

__all__ = ["HANGOVER_MS", "Mirror"]

HANGOVER_MS = 1500
"""Minimum pause that ends a response of the mirror. Longer than in other modes, so that speech with
short pauses is one response; nobody waits for an answer."""


class Mirror:
    """A `Dialogue`. It speaks from `heard`, because it cannot run ahead of its source."""

    def __init__(
        self, session: DialogueSession, config: DialogueConfig, make_voice: MakeVoice
    ) -> None:
        self._session = session
        self._config = config
        self._speaker = Speaker(session, make_voice, config.settings)
        self._listener = Listener(session, config, _silence_ms)
        self._response: Response | None = None  # the mirrored one
        self._said_text = False  # the newest response says a text
        self._mirrored: str | None = None  # the newest item, mirrored already

    async def heard(self, samples: Samples) -> None:
        if not self._listener.detects:
            if self._response is None:
                await self._begin()
            await self._mirror(samples)
            return
        for event in self._listener.push(samples, while_speaking=self._says_text):
            if isinstance(event, TurnBegan):
                await self._begin()
            elif isinstance(event, TurnAudio):
                await self._mirror(event.samples)
            else:
                await self._end()
                self._mirrored = self._session.commit(None)

    async def cleared(self) -> None:
        """End the response; mirrored audio was sent already."""
        self._listener.clear()
        await self._end()

    async def committed(self, item_id: str) -> None:
        """End the response; the item was mirrored already."""
        self._mirrored = item_id
        await self._end()

    async def create_response(self, request: ResponseRequest) -> None:
        newest = self._session.conversation.last_user_entry()
        done = request.input is None and newest is not None and newest.id == self._mirrored
        said = None if done else repeated(request, self._session.conversation)
        if problem := unmet(request, "mirror"):
            await self._speaker.fail("unsupported_parameter", problem, request)
        elif said is None:
            problem = "A mirror speaks while it hears; there is nothing to add."
            await self._speaker.fail("nothing_to_answer", problem, request)
        else:
            self._said_text = True
            await self._speaker.say(said, request)

    async def speak(self, text: str) -> None:
        """Replaces the mirrored response until the next speech."""
        self._said_text = True
        await self._speaker.say(text)

    async def configure(self, config: DialogueConfig) -> None:
        detected, old, self._config = self._listener.detects, self._config, config
        self._listener.configure(config)
        self._speaker.configure(config.settings)
        if config.input_rate != old.input_rate or self._listener.detects != detected:
            await self._end()

    async def close(self) -> None:
        await self._speaker.stop()
        await self._end()

    @property
    def _says_text(self) -> bool:
        return self._said_text and (self._speaker.busy or self._session.speaking)

    async def _begin(self) -> None:
        if self._says_text:
            if not self._config.settings.interrupt_response:
                return  # the text continues; this turn is not mirrored
            self._session.interrupt()
            await self._speaker.stop()
        self._said_text = False
        self._response = self._session.respond(rate=self._config.input_rate)

    async def _mirror(self, samples: Samples) -> None:
        # A cancelled response is kept, silent, until the turn ends.
        if self._response is not None:
            await self._response.audio(samples)

    async def _end(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            await response.done()


def _silence_ms(settings: DialogueSettings) -> int:
    return max(settings.vad_silence_ms, HANGOVER_MS)
