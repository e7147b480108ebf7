"""What a voice is. Knows nothing of dialogues."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsavatar.errors import WsavatarError

__all__ = ["VOICE_RATE", "Chunks", "Voice", "VoiceError"]

VOICE_RATE = 24_000

Chunks = AsyncGenerator[NDArray[np.float32], None]


class VoiceError(WsavatarError, RuntimeError):
    """A text could not be spoken; the message says why, and what would mend it."""


class Voice(Protocol):
    """Speaks. May be used by many sessions at once."""

    def speak(self, text: str) -> Chunks:
        """A phrase (`text.phrases`) as float32 mono chunks at VOICE_RATE, as they become ready.

        Closing the generator, or cancelling who iterates it, stops the work. Raises `VoiceError`.
        """
        ...
