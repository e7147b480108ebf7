"""What the tests of voices share: texts that are said, as one piece of audio; a missing host."""

from __future__ import annotations

import socket
from typing import Any

import numpy as np
import pytest

from wsavatar.dialogue.tts.base import Synthesizer, Voice, WordTime

__all__ = ["NOWHERE", "PANGRAM", "forget_nowhere", "rms", "spoken", "timed"]

NOWHERE = "nowhere.invalid"
PANGRAM = "The quick brown fox jumps over the lazy dog."


def forget_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """`NOWHERE` is not found, and no resolver is asked: it may be slow, or not there."""
    look_up = socket.getaddrinfo

    def look_up_others(host: Any, *arguments: Any, **options: Any) -> Any:
        if host in (NOWHERE, NOWHERE.encode()):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up_others)


async def spoken(voice: Voice | Synthesizer, text: str = PANGRAM) -> np.ndarray:
    """The audio of a phrase."""
    parts = [part async for part in voice.speak(text) if isinstance(part, np.ndarray)]
    return np.concatenate([np.empty(0, np.float32), *parts])


async def timed(synthesizer: Synthesizer, text: str) -> list[WordTime]:
    """The words that an engine times."""
    return [part async for part in synthesizer.speak(text) if isinstance(part, WordTime)]


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples**2)))
