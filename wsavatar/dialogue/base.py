"""Interfaces between a dialogue, which decides what the avatar says, and its session.

A dialogue knows nothing of frames, sockets or JSON. The session calls `Dialogue`, one method at a
time, in the order of the client's events; the dialogue acts through `DialogueSession`. A new mode
is a class in this package and a line in `registry`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from wsavatar.config import DialogueSettings

from .conversation import Conversation, Entry, Recording

__all__ = [
    "SPEECH_RATE",
    "Dialogue",
    "DialogueConfig",
    "DialogueSession",
    "Response",
    "ResponseRequest",
    "Samples",
]

SPEECH_RATE = 24_000
"""Samples per second of synthesised speech."""

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class DialogueConfig:
    """A session's configuration for its dialogue; `configure` passes each new one."""

    settings: DialogueSettings
    """The server's settings with the client's changes: turn detection, voice."""
    input_rate: int
    """Samples per second of the audio for `Dialogue.heard`."""
    instructions: str = ""
    tools: tuple[Any, ...] = ()
    tool_choice: Any = "auto"


@dataclass(frozen=True, slots=True)
class ResponseRequest:
    """Parameters of one response. None: as in the session's configuration."""

    input: tuple[Entry, ...] | None = None
    """Items to answer instead of the conversation."""
    instructions: str | None = None
    tools: tuple[Any, ...] | None = None
    tool_choice: Any = None
    modality: Literal["audio", "text"] = "audio"
    max_output_tokens: int | Literal["inf"] | None = None
    voice: str | None = None
    output_format: Any = None
    """Audio format of this response (`wsavatar.protocol.session_config.AudioFormat`)."""
    metadata: Mapping[str, str] | None = None
    in_conversation: bool = True
    """Whether the response becomes an item of the conversation."""


class Response(Protocol):
    """A response in progress. After its end, all methods do nothing."""

    @property
    def id(self) -> str: ...

    @property
    def over(self) -> bool: ...

    async def audio(self, samples: Samples) -> None:
        """Say float32 mono samples at the response's rate. Waits while the client has enough."""

    async def text(self, delta: str) -> None:
        """Add to the transcript: the words of the following audio."""

    async def done(self) -> None:
        """The speech is complete; all of it is still delivered."""

    async def fail(self, code: str, message: str, *, at_once: bool = False) -> None:
        """It cannot be said: the response ends with status ``failed`` and this reason.

        What was said before is still delivered, unless ``at_once``.
        """


class DialogueSession(Protocol):
    """The session as its dialogue uses it."""

    @property
    def conversation(self) -> Conversation: ...

    @property
    def heard_ms(self) -> int:
        """Milliseconds of microphone audio passed to dialogues so far."""

    @property
    def speaking(self) -> bool:
        """Whether the avatar speaks: a response is in progress or still played."""

    def respond(
        self, request: ResponseRequest | None = None, *, rate: int = SPEECH_RATE
    ) -> Response:
        """Start a response whose audio has ``rate`` samples per second.

        One response is in progress at a time: an earlier one is cancelled.
        """

    def interrupt(self) -> None:
        """User speech interrupts the avatar: stop the response in progress or still played."""

    def speech_started(self, audio_start_ms: int) -> None: ...

    def speech_stopped(self, audio_end_ms: int) -> None: ...

    def commit(self, audio: Recording | None) -> str:
        """End a turn: add a user item, and empty the input buffer.

        ``audio`` None: the item has no audio. Returns the item's id.
        """


class Dialogue(Protocol):
    """One session's conversation. Methods are called one at a time, in the order of events."""

    async def heard(self, samples: Samples) -> None:
        """Microphone audio: float32 mono at `DialogueConfig.input_rate`."""

    async def cleared(self) -> None:
        """`input_audio_buffer.clear`: drop audio that is not committed yet."""

    async def committed(self, item_id: str) -> None:
        """The client committed the input buffer as this item."""

    async def create_response(self, request: ResponseRequest) -> None:
        """`response.create`: answer now."""

    async def speak(self, text: str) -> None:
        """`avatar.speak`: say this text."""

    async def configure(self, config: DialogueConfig) -> None:
        """Change the configuration. Conversation and timeline are kept."""

    async def close(self) -> None:
        """End of the session or change of its mode: stop every task of this dialogue."""
