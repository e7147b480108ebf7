"""What a voice is. Knows nothing of dialogues."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsavatar.errors import WsavatarError

__all__ = ["VOICE_RATE", "Chunks", "Voice", "VoiceError", "VoiceTimeout", "VoiceUnreachable"]

VOICE_RATE = 24_000

Chunks = AsyncGenerator[NDArray[np.float32], None]


class VoiceError(WsavatarError, RuntimeError):
    """A text could not be spoken; the message says why, and what to do."""


class VoiceUnreachable(VoiceError):
    """The voice's service cannot be reached, or refuses connections: no text can be spoken now.

    Never raised for what one text or one voice name can cause.
    """


class VoiceTimeout(VoiceError):
    """The service was reached, but sent no audio in time. Its load or the text may be the cause."""


class Voice(Protocol):
    """Speaks. May be used by many sessions at once."""

    def speak(self, text: str) -> Chunks:
        """A phrase (`text.phrases`) as float32 mono chunks at VOICE_RATE, as they become ready.

        Closing the generator, or cancelling who iterates it, stops the work. Raises `VoiceError`.
        """
        ...

    def for_response(self) -> Voice:
        """The voice for all phrases of one response, so that it does not change between them."""
        ...
