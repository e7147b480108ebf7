"""One phrase by one engine: without the silence around it, and with its words' times."""

from __future__ import annotations

from contextlib import aclosing

from wsavatar.dialogue.base import Word

from .base import VOICE_RATE, Speech, Synthesizer, WordTime
from .pauses import Trim
from .spoken import Spoken
from .words import Pace, WordClock

__all__ = ["say"]


async def say(synthesizer: Synthesizer, text: str, spoken: Spoken, pace: Pace) -> Speech:
    """The phrase, and the words of ``text``, as it is written.

    ``spoken``: as it is read; ``pace``: of an engine that does not time words.
    """
    trim = Trim()
    clock = WordClock(text, None if synthesizer.times_words else pace)
    waiting: list[WordTime] = []  # until it is known how much silence is before the first sound
    samples = 0
    async with aclosing(synthesizer.speak(spoken.text)) as parts:
        async for part in parts:
            words: tuple[Word, ...] = ()
            if isinstance(part, WordTime):
                waiting.append(part)
            elif len(sound := trim.push(part)):
                samples += len(sound)
                yield sound
                words = clock.sounded(samples / VOICE_RATE)
            if trim.begun:
                lead_s = trim.dropped / VOICE_RATE
                for time in waiting:
                    words += clock.told(
                        spoken.origin(time.at), time.start_s - lead_s, time.duration_s
                    )
                waiting.clear()
            if words:
                yield words
    if len(sound := trim.flush()):
        samples += len(sound)
        yield sound
    if trim.begun and (rest := clock.finish(samples / VOICE_RATE)):
        yield rest
