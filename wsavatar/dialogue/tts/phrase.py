"""One phrase by one engine: without the silence around it, and with its words' times."""

from __future__ import annotations

from contextlib import aclosing

import numpy as np

from .base import VOICE_RATE, Samples, Speech, Synthesizer, WordTime
from .pauses import Trim
from .spoken import Spoken
from .words import WordClock, estimated

__all__ = ["say"]


async def say(synthesizer: Synthesizer, text: str, spoken: Spoken) -> Speech:
    """The phrase, and the words of ``text``, as it is written; ``spoken``: as it is read.

    Of an engine that does not time words they come when its sound is complete, whose length then
    is known: at an assumed pace they would be wrong by seconds at the end of a long phrase.
    """
    trim, clock = Trim(), WordClock(text)
    waiting: list[WordTime] = []  # until it is known how much silence is before the first sound
    samples = 0
    sounds: list[Samples] = []
    async with aclosing(synthesizer.speak(spoken.text)) as parts:
        async for part in parts:
            if isinstance(part, WordTime):
                waiting.append(part)
            elif len(sound := trim.push(part)):
                samples += len(sound)
                if not synthesizer.times_words:
                    sounds.append(sound)
                yield sound
            if trim.begun:
                lead_s = trim.dropped / VOICE_RATE
                for time in waiting:
                    at, start_s = spoken.origin(time.at), time.start_s - lead_s
                    if words := clock.told(at, start_s, time.duration_s):
                        yield words
                waiting.clear()
    if not trim.begun:
        return
    if len(sound := trim.flush()):
        samples += len(sound)
        yield sound
    if synthesizer.times_words:
        words = clock.finish(samples / VOICE_RATE)
    else:
        words = estimated(text, np.concatenate(sounds), VOICE_RATE)
    if words:
        yield words
