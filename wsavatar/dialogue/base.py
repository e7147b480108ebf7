"""What a dialogue is: it hears a session's audio and decides what the avatar says.

A dialogue knows nothing of frames, sockets or JSON. It talks to the session through `Stage`; the
session turns what it says into events, a speech timeline and frames. Adding a mode is one class
here and one registry line.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

__all__ = ["SPEECH_RATE", "Dialogue", "Response", "Stage"]

SPEECH_RATE = 24_000
"""Samples per second of everything a dialogue says; the session resamples for its client."""


class Response(Protocol):
    """One thing the avatar says, being said. After it was cancelled all methods are no-ops."""

    @property
    def id(self) -> str: ...

    @property
    def cancelled(self) -> bool: ...

    async def audio(self, samples: np.ndarray) -> None:
        """Say float32 mono samples at SPEECH_RATE. Waits while the client has enough in hand."""

    async def text(self, delta: str) -> None:
        """Add to the transcript of what is said."""

    async def done(self) -> None:
        """Nothing more will be said. Frames still in the making are delivered."""

    async def fail(self, code: str, message: str) -> None:
        """It cannot be said: the response ends with status ``failed`` and an error event."""


class Stage(Protocol):
    """What a session offers its dialogue."""

    async def respond(self, item_id: str | None = None) -> Response:
        """Begin a response, cancelling the one in progress, if any."""

    async def speech_started(self, audio_start_ms: int) -> None: ...

    async def speech_stopped(self, audio_end_ms: int) -> None: ...

    async def commit(self) -> str:
        """Commit the input buffer as a user item; returns the item's id."""

    async def cancel(self) -> None:
        """Interrupt the response in progress, if any."""


class Dialogue(Protocol):
    """One session's conversation. Methods are called one at a time, in the order of events."""

    async def heard(self, samples: np.ndarray) -> None:
        """The client's audio as it arrives: float32 mono at 16 kHz."""

    async def committed(self, item_id: str, samples: np.ndarray) -> None:
        """The input buffer was committed by the client (float32 mono at 16 kHz, all of it)."""

    async def create_response(self, text: str | None) -> None:
        """`response.create`: answer now. ``text``: what the last user item said in writing."""

    async def speak(self, text: str) -> None:
        """`avatar.speak`: say this text."""

    async def close(self) -> None:
        """The session is over: stop every task of yours."""
