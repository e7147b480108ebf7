"""Mode parrot: after a turn the avatar repeats it.

The turn ends by voice activity, or, without turn detection, by the client's commit and
``response.create``. User speech interrupts the avatar.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from wsavatar.media.audio import resample

from .base import Dialogue, DialogueConfig, DialogueSession, ResponseRequest, Samples
from .conversation import Recording
from .engines import Engines
from .listener import Listener
from .live import PLAYBACK_STALLED, LiveSpeech
from .requests import repeated, unmet
from .speaker import Speaker
from .trace import TurnTrace
from .transcriber import Transcriber
from .turn_buffer import MAX_TURN_S, TurnBuffer
from .turns import TurnAudio, TurnBegan

__all__ = ["Parrot", "trim_silence"]


class Parrot(Dialogue):
    """Mode parrot."""

    def __init__(self, session: DialogueSession, config: DialogueConfig, engines: Engines) -> None:
        self._session = session
        self._config = config
        self._speaker = Speaker(session, engines.voice, config)
        self._listener = Listener(session, config)
        self._transcriber = Transcriber(
            session, engines.recognizer, config, on_failed=partial(engines.failed, "asr")
        )
        self._turn = TurnBuffer(config.input_rate)
        self._long: LiveSpeech | None = None  # the answer to a turn in progress

    async def heard(self, samples: Samples) -> None:
        self._transcriber.hear(samples)
        for event in self._listener.push(samples, while_speaking=self._speaks):
            self._transcriber.follow(event, self._listener.silent_ms)
            if isinstance(event, TurnBegan):
                self._long = None
                if self._config.settings.interrupt_response:
                    self._session.interrupt()
                    await self._speaker.stop()
            elif isinstance(event, TurnAudio):
                self._turn.add(event.samples)
                if self._turn.is_full:
                    await self._say_part()
            else:
                await self._turn_is_over()

    async def cleared(self) -> None:
        self._listener.clear()
        self._transcriber.clear()
        self._turn.take()
        await self._end_long()

    async def committed(self, item_id: str) -> None:
        self._transcriber.commit(item_id)
        self._turn.take()

    async def create_response(self, request: ResponseRequest) -> None:
        said = repeated(request, self._session.conversation)
        if problem := unmet(request, "parrot"):
            await self._speaker.fail("unsupported_parameter", problem, request)
        elif not said:
            problem = "Nothing was said yet that could be said back."
            await self._speaker.fail("nothing_to_answer", problem, request)
        else:
            trimmed = [trim_silence(one) if isinstance(one, Recording) else one for one in said]
            await self._speaker.say(trimmed, replace(request, trace=TurnTrace.of_turn()))

    async def speak(self, text: str) -> None:
        await self._speaker.say((text,), ResponseRequest(trace=TurnTrace.of_turn()))

    async def configure(self, config: DialogueConfig) -> None:
        self._config = config
        self._listener.configure(config)
        self._transcriber.configure(config)
        self._speaker.configure(config)
        if not self._listener.detects:
            self._turn.take()
            await self._end_long()
        self._turn.change_rate(config.input_rate)

    async def close(self) -> None:
        self._listener.clear()
        await self._transcriber.close()
        await self._speaker.stop()

    @property
    def _speaks(self) -> bool:
        return self._speaker.busy or self._session.speaking

    async def _say_part(self) -> None:
        """The turn is long: its audio becomes an item, and the answer starts."""
        self._listener.stop_turn()
        part = self._commit()
        self._listener.start_turn()
        if part is None:
            return
        if self._long is None and self._config.may_answer(self._speaks):
            self._long = LiveSpeech(part.rate, 2 * MAX_TURN_S)
            await self._speaker.say((self._long,))
        await self._push_long(part)

    async def _turn_is_over(self) -> None:
        part = self._commit()
        if self._long is not None:
            if part is not None:
                await self._push_long(part)
            await self._end_long()
        elif part is not None and self._config.may_answer(self._speaks):
            trace = TurnTrace.of_turn(self._listener.silent_ms)
            await self._speaker.say((trim_silence(part),), ResponseRequest(trace=trace))

    def _commit(self) -> Recording | None:
        """The turn so far as an item; None if the client has committed it."""
        turn = self._turn.take()
        if turn is not None:
            self._transcriber.commit(self._session.commit(turn))
        return turn

    async def _push_long(self, part: Recording) -> None:
        if self._long is None:
            return
        await self._long.push(resample(part.samples, part.rate, self._long.rate))
        if self._long.stalled:
            await self._speaker.abort("playback_stalled", PLAYBACK_STALLED)
            self._long = None

    async def _end_long(self) -> None:
        long, self._long = self._long, None
        if long is not None:
            await long.end()


_WINDOW_S = 0.02
_MARGIN_S = 0.2
_FLOOR = 10 ** (-60 / 20)


def trim_silence(recording: Recording) -> Recording:
    """Trim the silence at the ends of a recording to 0.2 s.

    Silence is 40 dB below the loudest 20 ms, or below -60 dBFS. A silent recording is kept.
    """
    samples, window = recording.samples, int(recording.rate * _WINDOW_S)
    margin = int(recording.rate * _MARGIN_S)
    whole = len(samples) - len(samples) % window
    if not whole:
        return recording
    levels = np.sqrt(np.mean(samples[:whole].reshape(-1, window) ** 2, axis=1))
    loud = np.flatnonzero(levels > max(float(levels.max()) / 100, _FLOOR))
    if not len(loud):
        return recording
    start = max(int(loud[0]) * window - margin, 0)
    return Recording(samples[start : (int(loud[-1]) + 1) * window + margin], recording.rate)
