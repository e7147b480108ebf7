"""The speech of the clients: a recording, or the offline voice. Float32 mono at 24 kHz."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from wsavatar.config import TtsSettings
from wsavatar.dialogue.base import SPEECH_RATE
from wsavatar.dialogue.tts import create_voice
from wsavatar.media.audio import resample
from wsavatar.media.audio_file import read_audio

__all__ = ["synthesised_speech", "recorded_speech"]

SPEECH = (
    "The quick brown fox jumps over the lazy dog. Please call Stella, and ask her to bring these "
    "things with her from the store. Six spoons of fresh snow peas, five thick slabs of blue "
    "cheese, and maybe a snack for her brother Bob. When the sunlight strikes raindrops in the "
    "air, they act as a prism and form a rainbow. We also need a small plastic snake, and a big "
    "toy frog for the kids."
)


def synthesised_speech() -> np.ndarray:
    """Half a minute of speech by the offline voice, float32 mono at 24 kHz. Raises VoiceError."""

    async def speak() -> list[np.ndarray]:
        voice = create_voice(TtsSettings(engines=("espeak",)))
        parts = [part for sentence in SPEECH.split(". ") async for part in voice.speak(sentence)]
        return [part for part in parts if isinstance(part, np.ndarray)]

    return np.concatenate(asyncio.run(speak()))


def recorded_speech(path: Path) -> np.ndarray:
    """The audio of a file as float32 mono at 24 kHz. Raises AudioFileError."""
    track = read_audio(path)
    mono = np.ascontiguousarray(track.samples.mean(axis=1, dtype=np.float32))
    return resample(mono, track.sample_rate, SPEECH_RATE)
