"""Parrot: when a turn is over, the avatar says back what was heard.

The turn ends by voice activity, or, without turn detection, by the client's commit and
``response.create``. Who speaks while it speaks interrupts it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsavatar.config import DialogueSettings

from .base import Stage
from .speaker import Speaker
from .tts import Voice
from .turns import TurnAudio, TurnBegan, Turns
from .vad import VAD_RATE, VoiceActivity

__all__ = ["MAX_TURN_S", "Parrot", "trim_silence"]

MAX_TURN_S = 60.0
"""Who speaks longer is answered in parts: the turn is taken to end here, and the next to begin."""

Array = NDArray[np.float32]


class Parrot:
    """A `Dialogue`."""

    def __init__(self, stage: Stage, settings: DialogueSettings, voice: Voice) -> None:
        self._stage = stage
        self._settings = settings
        self._speaker = Speaker(stage, voice, settings.max_response_s)
        self._turn: list[Array] = []
        self._turn_samples = 0
        self._last: tuple[str, Array] | None = None  # the newest spoken item
        self._turns: Turns | None = None
        if settings.turn_detection:
            vad = VoiceActivity(
                settings.vad_threshold, settings.vad_prefix_padding_ms, settings.vad_silence_ms
            )
            self._turns = Turns(vad, settings.vad_prefix_padding_ms)

    async def heard(self, samples: Array) -> None:
        if self._turns is None:
            return  # the client commits
        for event in self._turns.push(samples):
            if isinstance(event, TurnBegan):
                await self._stage.speech_started(event.audio_start_ms)
                if self._settings.interrupt_response:
                    await self._stage.cancel()
                    await self._speaker.stop()
            elif isinstance(event, TurnAudio):
                self._turn.append(event.samples)
                self._turn_samples += len(event.samples)
                if self._turn_samples > MAX_TURN_S * VAD_RATE:
                    await self._turn_is_over()
            else:
                await self._stage.speech_stopped(event.audio_end_ms)
                await self._turn_is_over()

    async def committed(self, item_id: str, samples: Array) -> None:
        self._take_turn()
        self._last = item_id, samples

    async def create_response(self, text: str | None) -> None:
        if text and text.strip():
            await self._speaker.say_text(text)
        elif self._last is not None:
            await self._say_last()
        else:
            await self._speaker.fail(
                "nothing_to_answer", "Nothing was said yet that could be said back."
            )

    async def speak(self, text: str) -> None:
        await self._speaker.say_text(text)

    async def close(self) -> None:
        await self._speaker.stop()

    async def _turn_is_over(self) -> None:
        turn = self._take_turn()
        if not turn:
            return  # the client has committed it meanwhile
        item_id = await self._stage.commit()
        self._last = item_id, np.concatenate(turn)
        if not self._settings.create_response:
            return
        if self._speaker.busy and not self._settings.interrupt_response:
            return  # what is being said goes on; the item stands in the conversation
        await self._say_last()

    def _take_turn(self) -> list[Array]:
        turn, self._turn, self._turn_samples = self._turn, [], 0
        return turn

    async def _say_last(self) -> None:
        assert self._last is not None
        item_id, samples = self._last
        await self._speaker.say_recording(trim_silence(samples), item_id)


_WINDOW = VAD_RATE // 50
_MARGIN = VAD_RATE // 5
_FLOOR = 10 ** (-60 / 20)


def trim_silence(samples: Array) -> Array:
    """16 kHz audio without most of the silence at its ends; 0.2 s of it stays on either side.

    Silence is 40 dB below the loudest 20 ms, or below -60 dBFS; if all is silence, all stays.
    """
    whole = len(samples) - len(samples) % _WINDOW
    if not whole:
        return samples
    levels = np.sqrt(np.mean(samples[:whole].reshape(-1, _WINDOW) ** 2, axis=1))
    loud = np.flatnonzero(levels > max(float(levels.max()) / 100, _FLOOR))
    if not len(loud):
        return samples
    start = max(int(loud[0]) * _WINDOW - _MARGIN, 0)
    return samples[start : (int(loud[-1]) + 1) * _WINDOW + _MARGIN]
