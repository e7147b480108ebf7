"""Speech for clients that need a microphone: sentences of the offline voice, as WAV files."""

from __future__ import annotations

import asyncio
import wave
from pathlib import Path

import numpy as np

from wsavatar.config import TtsSettings
from wsavatar.dialogue.tts import create_voice

__all__ = ["RATE", "spoken", "write_wav"]

RATE = 24_000


def spoken(text: str) -> bytes:
    """The sentence in PCM16 mono at RATE."""

    async def speak() -> np.ndarray:
        voice = create_voice(TtsSettings(engines=("espeak",)))
        parts = [part async for part in voice.speak(text)]
        return np.concatenate([part for part in parts if isinstance(part, np.ndarray)])

    return (asyncio.run(speak()) * 32767).astype("<i2").tobytes()


def write_wav(path: Path, pcm: bytes) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(pcm)
    return path
