"""Interfaces between a dialogue, which decides what the avatar says, and its session.

A dialogue knows nothing of frames, sockets or JSON. The session calls `Dialogue`, one method at a
time, in the order of the client's events; the dialogue acts through `DialogueSession`. A new mode
is a class in this package and a line in `registry`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from wsavatar.config import DialogueSettings
from wsavatar.protocol.events import CancelReason, ProtocolError

from .conversation import Conversation, Entry, Recording
from .echo_delay import EchoReference
from .trace import TurnTrace

__all__ = [
    "SPEECH_RATE",
    "Dialogue",
    "DialogueConfig",
    "DialogueSession",
    "Persona",
    "Response",
    "ResponseRequest",
    "Samples",
    "TranscriptionRequest",
    "Word",
]

SPEECH_RATE = 24_000
"""Samples per second of synthesised speech."""

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Persona:
    """Who the avatar is, as its ``avatar.json`` says; empty: not said."""

    language: str = ""
    """As "en"."""
    instructions: str = ""
    greeting: str = ""
    """Said when a conversation begins."""


@dataclass(frozen=True, slots=True)
class TranscriptionRequest:
    """How the client wants the user's speech transcribed. Empty: as the server has it."""

    language: str = ""
    prompt: str = ""
    model: str = ""
    """In the mode "upstream" only: elsewhere it is the server's recogniser."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a response: its place in the response's audio, in seconds.

    ``estimated``: by the text's length; the engine did not say.
    """

    text: str
    start_s: float
    duration_s: float
    estimated: bool


@dataclass(frozen=True, slots=True)
class DialogueConfig:
    """A session's configuration for its dialogue; `configure` passes each new one."""

    settings: DialogueSettings
    """The server's settings with the client's changes of turn detection."""
    input_rate: int
    """Samples per second of the audio for `Dialogue.heard`."""
    voice: str = ""
    """A name; empty: the engine's default voice."""
    transcription: TranscriptionRequest | None = None
    """The client wants to know what the user said. None: it does not."""
    persona: Persona = Persona()
    instructions: str = ""
    tools: tuple[Any, ...] = ()
    tool_choice: Any = "auto"
    max_output_tokens: int | Literal["inf"] = "inf"
    modality: Literal["audio", "text"] = "audio"
    """Of responses that nobody asks for by `Dialogue.create_response`."""
    semantic: bool = False
    """A turn ends by what was said too (``semantic_vad``)."""
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    """How soon such a turn ends."""
    passed_on: Mapping[str, Any] = field(default_factory=dict)
    """What a client has set that only another server can follow, as in a ``session.update``."""

    def may_answer(self, speaks: bool) -> bool:
        """Whether a turn that is over is answered at once. ``speaks``: the avatar does."""
        settings = self.settings
        return settings.create_response and (settings.interrupt_response or not speaks)


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
    live: bool = False
    """Its audio arrives while it is said."""
    trace: TurnTrace | None = None
    """Where the response's stages are marked."""


class Response(Protocol):
    """A response in progress. After its end, all methods do nothing."""

    @property
    def id(self) -> str: ...

    @property
    def item_id(self) -> str:
        """Of what the avatar says."""

    @property
    def over(self) -> bool: ...

    @property
    def heard_s(self) -> float:
        """Seconds of its audio that were heard, by the client's reports, else by an estimate."""

    async def audio(self, samples: Samples) -> None:
        """Say float32 mono samples at the response's rate. Waits while the client has enough."""

    async def text(self, delta: str) -> None:
        """Add to the transcript: the words of the following audio. Of a response in text
        (`ResponseRequest.modality`), the text itself."""

    async def words(self, words: Sequence[Word]) -> None:
        """When words of the audio are said, in order; some may be before audio sent already."""

    def next_item(self, item_id: str) -> None:
        """What is said or called next, if it begins an item, has this id."""

    async def arguments(self, call_id: str, name: str, delta: str) -> None:
        """The model calls a function of the client: more of the arguments' JSON.

        A call ends with the next one, or with the response. A response may have calls alone.
        """

    async def done(
        self, incomplete: Literal["max_output_tokens", "content_filter"] | None = None
    ) -> None:
        """The response is complete; all of it is still delivered.

        ``incomplete``: why the model stopped early; then its status is ``incomplete``.
        """

    async def fail(self, code: str, message: str, *, at_once: bool = False) -> None:
        """It cannot be said: the response ends with status ``failed`` and this reason.

        What was said before is still delivered, unless ``at_once``.
        """

    def cancel(self, reason: CancelReason | None) -> None:
        """End it at once, as cancelled. ``reason`` None: another response replaces it."""


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

    @property
    def playing_audio(self) -> Sequence[EchoReference]:
        """What the avatar says that loudspeakers may bring into the microphone now; not what it
        mirrors live."""

    @property
    def event_id(self) -> str | None:
        """The id that the client gave to the event that is being handled, for a later `error`."""

    def respond(
        self,
        request: ResponseRequest | None = None,
        *,
        rate: int = SPEECH_RATE,
        response_id: str | None = None,
        stopped: Callable[[int], None] | None = None,
    ) -> Response:
        """Start a response whose audio has ``rate`` samples per second.

        One response is in progress at a time: an earlier one is cancelled. ``response_id`` None:
        the session makes one. ``stopped(heard_ms)`` is called if the response is stopped before
        its end was heard, by the user, the client or another response: at most that much of its
        audio was heard.
        """

    def error(self, error: ProtocolError) -> None:
        """Tell the client of something that is no answer of the avatar and fails no response."""

    def interrupt(self) -> None:
        """User speech interrupts the avatar: stop the response in progress or still played."""

    def speech_started(self, audio_start_ms: int, item_id: str | None = None) -> None:
        """The user speaks. ``item_id``: of the item that will be committed; None: a new one."""

    def speech_stopped(self, audio_end_ms: int) -> None: ...

    def transcript_delta(self, item_id: str, delta: str) -> None:
        """More of what the user says in an item, which may still be in progress. Words once sent
        are not taken back."""

    def transcribed(self, item_id: str, text: str, seconds: float) -> None:
        """All that the user said in a committed item of so much audio. Kept with the item; sent to
        a client that wants it (`DialogueConfig.transcription`)."""

    def transcription_failed(self, item_id: str, code: str, message: str) -> None:
        """What the user said in an item is not known."""

    @property
    def spoken_item_id(self) -> str | None:
        """The id that `speech_started` announced and the next `commit` uses."""

    def commit(
        self, audio: Recording | None, item_id: str | None = None, *, by_client: bool = False
    ) -> str:
        """End a turn: add a user item, and empty the input buffer.

        ``audio`` None: the item has no audio. ``item_id`` None: `spoken_item_id`, or a new one.
        ``by_client``: it was taken from the buffer, which may have newer audio (`Dialogue.commit`).
        Returns the item's id.
        """


class Dialogue(Protocol):
    """One session's conversation. Methods are called one at a time, in the order of events.

    A mode is a subclass: the methods with a body are those that few modes need.
    """

    async def start(self) -> None:
        """Called once, before the other methods. Raises ProtocolError: the mode does not work now.

        Then it is closed if the client has just chosen the mode; in a new session it goes on.
        """
        return

    async def heard(self, samples: Samples) -> None:
        """Microphone audio: float32 mono at `DialogueConfig.input_rate`."""

    async def cleared(self) -> None:
        """`input_audio_buffer.clear`: drop audio that is not committed yet."""

    async def welcome(self) -> None:
        """The client shows the avatar, and nothing was said yet: greet, if the avatar does."""

    async def cancelled(self) -> bool:
        """`response.cancel`: the client wants silence. A response in progress has ended already.

        True: one was asked for that has not begun, and will be cancelled.
        """
        return False

    async def commit(self, audio: Recording) -> bool:
        """`input_audio_buffer.commit`. True: the dialogue adds the item (`DialogueSession.commit`),
        now or later. False: the session does, and calls `committed`."""
        return False

    async def committed(self, item_id: str) -> None:
        """The client committed the input buffer as this item."""

    async def item_created(self, entry: Entry, previous_id: str | None) -> None:
        """The client added an item after another: None, at the end; ``root``, at the beginning."""
        return

    async def item_deleted(self, item_id: str) -> None:
        """The client removed an item."""
        return

    async def item_truncated(self, item_id: str, heard_ms: int) -> None:
        """The client says how much of an item of the avatar was heard."""
        return

    async def create_response(self, request: ResponseRequest) -> None:
        """`response.create`: answer now."""

    async def speak(self, text: str) -> None:
        """`avatar.speak`: say this text."""

    async def configure(self, config: DialogueConfig) -> None:
        """Change the configuration. Conversation and timeline are kept.

        Raises ProtocolError if it cannot; then nothing changes.
        """

    async def close(self) -> None:
        """End of the session or change of its mode: stop every task of this dialogue."""
