"""What a dialogue is: it hears a session's microphone and decides what the avatar says.

A dialogue knows nothing of frames, sockets or JSON. The session calls `Dialogue`, one method at a
time, in the order of the client's events; the dialogue acts through `DialogueSession`. Adding a
mode is one class in this package and one line in `registry`.
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
    """What a session asks of its dialogue. A new one comes with each change (`configure`)."""

    settings: DialogueSettings
    """The server's, with what the client changed: turn detection, voice."""
    input_rate: int
    """Samples per second of what `Dialogue.heard` is given."""
    instructions: str = ""
    tools: tuple[Any, ...] = ()
    tool_choice: Any = "auto"


@dataclass(frozen=True, slots=True)
class ResponseRequest:
    """What one response is asked to be. None: as the session's configuration says."""

    input: tuple[Entry, ...] | None = None
    """What to answer in place of the conversation."""
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
    """Whether the answer becomes an item of the conversation."""


class Response(Protocol):
    """One thing the avatar says, being said. Once it is over, all methods do nothing."""

    @property
    def id(self) -> str: ...

    @property
    def over(self) -> bool: ...

    async def audio(self, samples: Samples) -> None:
        """Say float32 mono samples at the response's rate. Waits while the client has enough."""

    async def text(self, delta: str) -> None:
        """Add to the transcript: the words of the audio that follows."""

    async def done(self) -> None:
        """Nothing more will be said. What was said is still delivered."""

    async def fail(self, code: str, message: str) -> None:
        """It cannot be said: the response ends with status ``failed`` and this reason."""


class DialogueSession(Protocol):
    """What a session offers its dialogue."""

    @property
    def conversation(self) -> Conversation: ...

    @property
    def heard_ms(self) -> int:
        """Milliseconds of microphone audio that the session has handed to its dialogues so far."""

    @property
    def speaking(self) -> bool:
        """Whether the avatar speaks: a response is in progress or still being heard."""

    def respond(
        self, request: ResponseRequest | None = None, *, rate: int = SPEECH_RATE
    ) -> Response:
        """Begin a response whose audio has ``rate`` samples per second.

        One response is in progress at a time: an earlier one is cancelled.
        """

    def interrupt(self) -> None:
        """User speech interrupts the avatar: stop what is said or still being heard."""

    def speech_started(self, audio_start_ms: int) -> None: ...

    def speech_stopped(self, audio_end_ms: int) -> None: ...

    def commit(self, audio: Recording | None) -> str:
        """A turn has ended: it becomes a user item, and the input buffer is emptied.

        ``audio`` None: the item is remembered without its audio. Returns the item's id.
        """


class Dialogue(Protocol):
    """One session's conversation. Methods are called one at a time, in the order of events."""

    async def heard(self, samples: Samples) -> None:
        """The microphone as it arrives: float32 mono at `DialogueConfig.input_rate`."""

    async def cleared(self) -> None:
        """`input_audio_buffer.clear`: forget what was heard and is not committed yet."""

    async def committed(self, item_id: str) -> None:
        """The client has committed the input buffer as this item."""

    async def create_response(self, request: ResponseRequest) -> None:
        """`response.create`: answer now."""

    async def speak(self, text: str) -> None:
        """`avatar.speak`: say this text."""

    async def configure(self, config: DialogueConfig) -> None:
        """Go on with another configuration. The conversation and its timeline stay."""

    async def close(self) -> None:
        """The session is over, or its mode changes: stop every task of this dialogue."""
