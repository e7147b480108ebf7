"""Uses an engine once: on a sentence that eSpeak NG speaks."""

from __future__ import annotations

import time
from contextlib import aclosing

import numpy as np
from numpy.typing import NDArray

from wsavatar.dialogue.engine import EngineError
from wsavatar.dialogue.tts.base import VOICE_RATE, VoiceError
from wsavatar.dialogue.tts.espeak import EspeakVoice
from wsavatar.media.audio import resample

from .base import ASR_RATE
from .growing import Read

__all__ = ["SENTENCE", "check_with"]

SENTENCE = "My name is Robert, and I live in Berlin."


async def check_with(read: Read) -> str:
    """What the engine understood, and how long that took. Raises EngineError."""
    samples = await _spoken()
    started = time.perf_counter()
    text = await read(samples, language="en", prompt="", on_text=lambda _: None)
    seconds = time.perf_counter() - started
    if not text.strip():
        raise EngineError("engine_failed", "It understood nothing of a sentence that was spoken.")
    length_s = len(samples) / ASR_RATE
    return f"understood {text.strip()[:100]!r} in {seconds:.2f} s, of {length_s:.1f} s of speech"


async def _spoken() -> NDArray[np.float32]:
    parts = []
    try:
        async with aclosing(EspeakVoice().speak(SENTENCE)) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, np.ndarray):
                    parts.append(chunk)
    except VoiceError as error:
        raise EngineError("engine_failed", f"No sentence to try it on: {error}") from error
    return resample(np.concatenate(parts), VOICE_RATE, ASR_RATE)
