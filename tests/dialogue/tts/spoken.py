"""What the tests of voices share: texts that are said, as one piece of audio."""

from __future__ import annotations

import numpy as np

from wsavatar.dialogue.tts.base import Synthesizer, Voice, WordTime

__all__ = ["PANGRAM", "rms", "spoken", "timed"]

PANGRAM = "The quick brown fox jumps over the lazy dog."


async def spoken(voice: Voice | Synthesizer, text: str = PANGRAM) -> np.ndarray:
    """The audio of a phrase."""
    parts = [part async for part in voice.speak(text) if isinstance(part, np.ndarray)]
    return np.concatenate([np.empty(0, np.float32), *parts])


async def timed(synthesizer: Synthesizer, text: str) -> list[WordTime]:
    """The words that an engine times."""
    return [part async for part in synthesizer.speak(text) if isinstance(part, WordTime)]


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples**2)))
