"""Mode mirror: microphone audio drives the face while it streams, and is sent back.

With turn detection a response starts with speech (including the prefix padding) and continues
without a gap until a long pause; silence costs nothing. Without it, a response lasts from the first
sample to the client's commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wsavatar.config import DialogueSettings
from wsavatar.media.audio import Resampler

from .base import Dialogue, DialogueConfig, DialogueSession, ResponseRequest, Samples
from .conversation import Recording
from .engines import Engines
from .listener import Listener
from .live import PLAYBACK_STALLED, LiveSpeech
from .requests import repeated, unmet
from .speaker import Speaker
from .transcriber import Transcriber
from .turns import TurnAudio, TurnBegan

__all__ = ["HANGOVER_MS", "MAX_BEHIND_S", "Mirror"]

HANGOVER_MS = 1500
"""Minimum pause that ends a response of the mirror. Longer than in other modes, so that speech with
short pauses is one response; nobody waits for an answer."""
MAX_BEHIND_S = 120.0
"""Maximum live speech that waits, in addition to the audio that the client has."""


class Mirror(Dialogue):
    """Mode mirror."""

    def __init__(self, session: DialogueSession, config: DialogueConfig, engines: Engines) -> None:
        self._session = session
        self._config = config
        self._speaker = Speaker(session, engines.voice, config)
        self._listener = Listener(session, config, _silence_ms)
        self._transcriber = Transcriber(
            session, engines.recognizer, config, on_failed=partial(engines.failed, "asr")
        )
        self._live: LiveSpeech | None = None  # what is mirrored
        self._last: LiveSpeech | None = None  # the same, or what was mirrored before
        self._to_live: Resampler  # from the rate now to the rate that the response began with
        self._said_text = False  # the newest response is a text
        self._skips_turn = False  # this turn is not mirrored: a text goes on
        self._mirrored: str | None = None  # the newest item, mirrored already

    async def heard(self, samples: Samples) -> None:
        self._transcriber.hear(samples)
        if not self._listener.detects:
            if not self._says_text:  # without turns nothing interrupts a text
                await self._echo(samples)
            return
        for event in self._listener.push(samples, while_speaking=self._says_text):
            self._transcriber.follow(event, self._listener.silent_ms)
            if isinstance(event, TurnBegan):
                await self._begin_turn()
            elif isinstance(event, TurnAudio):
                if not self._skips_turn:
                    await self._echo(event.samples)
            else:
                await self._end()
                self._mirrored = self._session.commit(None)
                self._transcriber.commit(self._mirrored)

    async def cleared(self) -> None:
        """End the response; mirrored audio was sent already."""
        self._listener.clear()
        self._transcriber.clear()
        await self._end()

    async def committed(self, item_id: str) -> None:
        """The item was mirrored already. Without turn detection this ends the response."""
        self._transcriber.commit(item_id)
        self._mirrored = item_id
        if not self._listener.detects:
            await self._end()

    async def create_response(self, request: ResponseRequest) -> None:
        newest = self._session.conversation.last_user_entry()
        done = request.input is None and newest is not None and newest.id == self._mirrored
        said = () if done else repeated(request, self._session.conversation)
        if problem := unmet(request, "mirror"):
            await self._speaker.fail("unsupported_parameter", problem, request)
        elif not said:
            problem = "A mirror speaks while it hears; there is nothing to add."
            await self._speaker.fail("nothing_to_answer", problem, request)
        else:
            await self._say_in_place(said, request)

    async def speak(self, text: str) -> None:
        """Replaces the mirrored response until the next speech."""
        await self._say_in_place((text,), None)

    async def configure(self, config: DialogueConfig) -> None:
        detected, self._config = self._listener.detects, config
        self._listener.configure(config)
        self._transcriber.configure(config)
        self._speaker.configure(config)
        if self._listener.detects != detected:
            await self._end()

    async def close(self) -> None:
        self._listener.clear()
        await self._transcriber.close()
        await self._speaker.stop()
        await self._end()

    @property
    def _says_text(self) -> bool:
        return self._said_text and (self._speaker.busy or self._session.speaking)

    async def _say_in_place(
        self, said: Sequence[str | Recording], request: ResponseRequest | None
    ) -> None:
        """Say this instead of the mirrored audio, for the rest of a turn too."""
        self._said_text = self._skips_turn = True
        if not self._listener.detects:
            self._live = None  # after the text, new audio is mirrored
        await self._speaker.say(said, request)

    async def _begin_turn(self) -> None:
        self._skips_turn = self._says_text and not self._config.settings.interrupt_response
        if self._says_text and not self._skips_turn:
            self._session.interrupt()
            await self._speaker.stop()
            self._said_text = False
        self._live = None

    async def _echo(self, samples: Samples) -> None:
        """Mirror these. A cancelled response is kept, silent, until the turn ends."""
        if self._live is None:
            await self._begin_live()
        assert self._live is not None
        if self._to_live.from_rate != self._config.input_rate:  # changed in the middle of a turn
            await self._live.push(self._to_live.flush())
            self._to_live = Resampler(self._config.input_rate, self._live.rate)
        await self._live.push(self._to_live.push(samples))
        if self._live.stalled:
            await self._speaker.abort("playback_stalled", PLAYBACK_STALLED)
            if not self._listener.detects:
                self._live = None  # nobody ends a turn here: try anew

    async def _begin_live(self) -> None:
        """A new response; or the last one, where the client sends faster than it plays."""
        goes_on = self._last is not None and not self._said_text and not self._speaker.is_over
        if goes_on and self._last is not None and await self._last.resume():
            self._live = self._last
        else:
            self._said_text = False
            self._live = self._last = LiveSpeech(self._config.input_rate, MAX_BEHIND_S)
            await self._speaker.say((self._live,))
        self._to_live = Resampler(self._config.input_rate, self._live.rate)

    async def _end(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            await live.push(self._to_live.flush())
            await live.end()


def _silence_ms(settings: DialogueSettings) -> int:
    return max(settings.vad_silence_ms, HANGOVER_MS)
