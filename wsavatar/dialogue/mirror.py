"""Mirror: the microphone drives the face as it streams, and comes back on the same timeline.

With turn detection a response begins where speech does (padding first, so that the first sound is
whole) and runs on without a gap until the pause is long; silence costs nothing. Without it, one
response runs from the first sample to the client's commit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsavatar.config import DialogueSettings
from wsavatar.media.audio import Resampler

from .base import SPEECH_RATE, Response, Stage
from .speaker import Speaker
from .tts import Voice
from .turns import TurnAudio, TurnBegan, Turns
from .vad import VAD_RATE, VoiceActivity

__all__ = ["HANGOVER_MS", "Mirror"]

HANGOVER_MS = 1500
"""A mirror waits at least this long before it takes a pause for the end: who speaks on after a
breath should see one unbroken take of themselves, and nobody waits for an answer meanwhile."""

Array = NDArray[np.float32]


class Mirror:
    """A `Dialogue`. Live speech is said from `heard` itself: it cannot run ahead of its source."""

    def __init__(self, stage: Stage, settings: DialogueSettings, voice: Voice) -> None:
        self._stage = stage
        self._settings = settings
        self._speaker = Speaker(stage, voice, settings.max_response_s)
        self._resampler = Resampler(VAD_RATE, SPEECH_RATE)
        self._response: Response | None = None
        self._turns: Turns | None = None
        if settings.turn_detection:
            vad = VoiceActivity(
                settings.vad_threshold,
                settings.vad_prefix_padding_ms,
                max(settings.vad_silence_ms, HANGOVER_MS),
            )
            self._turns = Turns(vad, settings.vad_prefix_padding_ms)

    async def heard(self, samples: Array) -> None:
        if self._turns is None:
            if self._response is None:
                await self._begin()
            await self._echo(samples)
            return
        for event in self._turns.push(samples):
            if isinstance(event, TurnBegan):
                await self._stage.speech_started(event.audio_start_ms)
                await self._begin()
            elif isinstance(event, TurnAudio):
                await self._echo(event.samples)
            else:
                await self._end()
                await self._stage.speech_stopped(event.audio_end_ms)
                await self._stage.commit()

    async def committed(self, item_id: str, samples: Array) -> None:
        """It was said while it was heard: this only ends it."""
        await self._end()

    async def create_response(self, text: str | None) -> None:
        if text and text.strip():
            await self.speak(text)
        else:
            await self._speaker.fail(
                "nothing_to_answer", "A mirror speaks while it hears; there is nothing to add."
            )

    async def speak(self, text: str) -> None:
        """Takes the place of what is mirrored, until speech begins anew."""
        await self._speaker.say_text(text)

    async def close(self) -> None:
        await self._speaker.stop()
        await self._end()

    async def _begin(self) -> None:
        if self._speaker.busy and not self._settings.interrupt_response:
            return  # the text goes on; this turn is not mirrored
        self._resampler.reset()
        response = await self._stage.respond()  # cancels the text that is being said, if any
        await self._speaker.stop()
        self._response = response

    async def _echo(self, samples: Array) -> None:
        # A cancelled response stays in place, mute, until the turn ends.
        if self._response is not None:
            await self._response.audio(self._resampler.push(samples))

    async def _end(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            await response.audio(self._resampler.flush())
            await response.done()
