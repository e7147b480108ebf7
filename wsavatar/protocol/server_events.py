"""Server events: typed, built by keyword, turned into compact JSON by ``to_json``.

Those about the session, its input and its conversation; `response_events` has those of responses.
The shapes are the Realtime API's; `wsavatar.protocol` says which are ours. These classes are also
what the AsyncAPI document is generated from.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from .base import StrictObject, new_id
from .errors import ErrorMessage, ErrorType, ProtocolError
from .items import ConversationItem
from .session_config import SessionConfig, SessionObject

__all__ = [
    "AvatarCapacity",
    "AvatarResumable",
    "AvatarResumed",
    "ConversationItemAdded",
    "ConversationItemDeleted",
    "ConversationItemDone",
    "ConversationItemRetrieved",
    "ConversationItemTruncated",
    "ErrorDetails",
    "ErrorEvent",
    "InputAudioBufferCleared",
    "InputAudioBufferCommitted",
    "ServerEvent",
    "SessionCreated",
    "SessionUpdated",
    "SpeechStarted",
    "SpeechStopped",
    "TranscriptionCompleted",
    "TranscriptionDelta",
    "TranscriptionError",
    "TranscriptionFailed",
    "TranscriptionUsage",
    "new_id",
]


class ServerEvent(BaseModel):
    """What every server event has."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_serialization_defaults_required=True
    )

    type: str
    event_id: str = Field(default_factory=lambda: new_id("event"))

    def to_json(self) -> str:
        """Compact JSON, one text message."""
        return self.model_dump_json()


class SessionCreated(ServerEvent):
    """The session begins; sent once, at connect."""

    type: Literal["session.created"] = "session.created"
    session: SessionObject

    @classmethod
    def of(cls, config: SessionConfig, session_id: str) -> SessionCreated:
        return cls(session=config.on_wire(session_id))


class SessionUpdated(ServerEvent):
    """The session's configuration after a ``session.update``: what is in force."""

    type: Literal["session.updated"] = "session.updated"
    session: SessionObject

    @classmethod
    def of(cls, config: SessionConfig, session_id: str) -> SessionUpdated:
        return cls(session=config.on_wire(session_id))


class ErrorDetails(StrictObject):
    """``event_id`` is the client's own."""

    type: ErrorType
    code: str
    message: ErrorMessage
    param: str | None = None
    event_id: str | None = None


class ErrorEvent(ServerEvent):
    """A client event was not accepted, or something failed."""

    type: Literal["error"] = "error"
    error: ErrorDetails

    @classmethod
    def of(cls, error: ProtocolError) -> ErrorEvent:
        """The answer to a client event that was not accepted."""
        return cls(
            error=ErrorDetails(
                type=error.type,
                code=error.code,
                message=error.message,
                param=error.param,
                event_id=error.event_id,
            )
        )


# -- the input buffer -----------------------------------------------------------------------------


class InputAudioBufferCommitted(ServerEvent):
    """The input buffer became a user item."""

    type: Literal["input_audio_buffer.committed"] = "input_audio_buffer.committed"
    previous_item_id: str | None = None
    item_id: str


class InputAudioBufferCleared(ServerEvent):
    """The input buffer is empty."""

    type: Literal["input_audio_buffer.cleared"] = "input_audio_buffer.cleared"


class SpeechStarted(ServerEvent):
    """The user speaks.

    ``audio_start_ms`` counts all audio of the session, and includes the prefix padding.
    """

    type: Literal["input_audio_buffer.speech_started"] = "input_audio_buffer.speech_started"
    audio_start_ms: int
    item_id: str


class SpeechStopped(ServerEvent):
    """The user has stopped speaking."""

    type: Literal["input_audio_buffer.speech_stopped"] = "input_audio_buffer.speech_stopped"
    audio_end_ms: int
    item_id: str


# -- the conversation -----------------------------------------------------------------------------


class ConversationItemAdded(ServerEvent):
    """An item joined the conversation."""

    type: Literal["conversation.item.added"] = "conversation.item.added"
    previous_item_id: str | None = None
    item: ConversationItem


class ConversationItemDone(ServerEvent):
    """An item is complete, or will not be completed."""

    type: Literal["conversation.item.done"] = "conversation.item.done"
    previous_item_id: str | None = None
    item: ConversationItem


class ConversationItemRetrieved(ServerEvent):
    """The item that was asked for."""

    type: Literal["conversation.item.retrieved"] = "conversation.item.retrieved"
    item: ConversationItem


class ConversationItemDeleted(ServerEvent):
    """An item was removed."""

    type: Literal["conversation.item.deleted"] = "conversation.item.deleted"
    item_id: str


class ConversationItemTruncated(ServerEvent):
    """An item of the avatar was cut to what was played."""

    type: Literal["conversation.item.truncated"] = "conversation.item.truncated"
    item_id: str
    content_index: int
    audio_end_ms: int


# -- what the user said ---------------------------------------------------------------------------


class _Transcription(ServerEvent):
    """About what the user says in an item. It is sent beside responses, in no fixed order."""

    item_id: str
    content_index: int


class TranscriptionDelta(_Transcription):
    """More of what the user said. Words once sent are not taken back.

    A client that knows avatars gets them while the user speaks, before the item is committed.
    """

    type: Literal["conversation.item.input_audio_transcription.delta"] = (
        "conversation.item.input_audio_transcription.delta"
    )
    delta: str


class TranscriptionUsage(StrictObject):
    """The duration of the item's audio."""

    type: Literal["duration"] = "duration"
    seconds: float


class TranscriptionCompleted(_Transcription):
    """All that the user said in an item."""

    type: Literal["conversation.item.input_audio_transcription.completed"] = (
        "conversation.item.input_audio_transcription.completed"
    )
    transcript: str
    usage: TranscriptionUsage


class TranscriptionError(StrictObject):
    type: ErrorType = "server_error"
    code: str
    message: ErrorMessage
    param: str | None = None


class TranscriptionFailed(_Transcription):
    """What the user said in an item is not known."""

    type: Literal["conversation.item.input_audio_transcription.failed"] = (
        "conversation.item.input_audio_transcription.failed"
    )
    error: TranscriptionError


# -- the server -----------------------------------------------------------------------------------


class AvatarCapacity(ServerEvent):
    """The server has more frames to make than it can: sent when that begins and when it ends.

    While ``over``, some frames are dropped; audio is not. Rates are those of the whole server.
    """

    type: Literal["avatar.capacity"] = "avatar.capacity"
    over: bool
    frames_per_s_wanted: float
    frames_per_s_made: float


class AvatarResumable(ServerEvent):
    """If this connection is lost, another one may go on with the session: ``?resume=``."""

    type: Literal["avatar.resumable"] = "avatar.resumable"
    token: str
    within_s: float


class AvatarResumed(ServerEvent):
    """The first message of a connection that goes on; then comes what the client missed.

    ``received``: how many messages of the client have arrived in this session; it sends the others
    again. ``frames_dropped``: frames that are too late, or were not kept.
    """

    type: Literal["avatar.resumed"] = "avatar.resumed"
    received: int
    frames_dropped: int
