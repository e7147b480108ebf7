"""Server events: typed, built by keyword, turned into compact JSON by ``to_json``.

The shapes are the Realtime API's; `wsavatar.protocol` says which are ours. These classes are also
what the AsyncAPI document is generated from.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from .base import Bytes, StrictObject, new_id
from .errors import ErrorType, ProtocolError
from .items import ConversationItem
from .responses import ResponseObject
from .session_config import SessionConfig, SessionObject

__all__ = [
    "AvatarCapacity",
    "AvatarSwitchToIdle",
    "AvatarSwitchToSpeaking",
    "ContentPart",
    "ContentPartAdded",
    "ContentPartDone",
    "ConversationItemAdded",
    "ConversationItemDeleted",
    "ConversationItemDone",
    "ConversationItemRetrieved",
    "ConversationItemTruncated",
    "ErrorDetails",
    "ErrorEvent",
    "InputAudioBufferCleared",
    "InputAudioBufferCommitted",
    "OutputAudioDelta",
    "OutputAudioDone",
    "OutputItemAdded",
    "OutputItemDone",
    "OutputTranscriptDelta",
    "OutputTranscriptDone",
    "ResponseCreated",
    "ResponseDone",
    "ServerEvent",
    "SessionCreated",
    "SessionUpdated",
    "SpeechStarted",
    "SpeechStopped",
    "VideoDelta",
    "VideoDone",
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
    message: str
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


# -- responses ------------------------------------------------------------------------------------


class ResponseCreated(ServerEvent):
    """A response begins."""

    type: Literal["response.created"] = "response.created"
    response: ResponseObject


class ResponseDone(ServerEvent):
    """A response is over: its status, and its items as they ended."""

    type: Literal["response.done"] = "response.done"
    response: ResponseObject


class OutputItemAdded(ServerEvent):
    """A response begins an item."""

    type: Literal["response.output_item.added"] = "response.output_item.added"
    response_id: str
    output_index: int = 0
    item: ConversationItem


class OutputItemDone(ServerEvent):
    """An item of a response has ended."""

    type: Literal["response.output_item.done"] = "response.output_item.done"
    response_id: str
    output_index: int = 0
    item: ConversationItem


class _OfPart(ServerEvent):
    """What every event about one part of one item says."""

    response_id: str
    item_id: str
    output_index: int = 0
    content_index: int = 0


class ContentPart(StrictObject):
    """A part of what the avatar says."""

    type: Literal["audio"] = "audio"
    transcript: str


class ContentPartAdded(_OfPart):
    """An item of a response begins a part."""

    type: Literal["response.content_part.added"] = "response.content_part.added"
    part: ContentPart


class ContentPartDone(_OfPart):
    """A part has ended."""

    type: Literal["response.content_part.done"] = "response.content_part.done"
    part: ContentPart


class OutputAudioDelta(_OfPart):
    """Audio in the session's output format."""

    type: Literal["response.output_audio.delta"] = "response.output_audio.delta"
    delta: Bytes


class OutputAudioDone(_OfPart):
    """All audio of a part was sent."""

    type: Literal["response.output_audio.done"] = "response.output_audio.done"


class OutputTranscriptDelta(_OfPart):
    """More of the text that the audio says."""

    type: Literal["response.output_audio_transcript.delta"] = (
        "response.output_audio_transcript.delta"
    )
    delta: str


class OutputTranscriptDone(_OfPart):
    """The whole text of a part."""

    type: Literal["response.output_audio_transcript.done"] = "response.output_audio_transcript.done"
    transcript: str


# -- frames ---------------------------------------------------------------------------------------


Region = Annotated[
    tuple[int, int, int, int],
    # JSON Schema's draft 7, which AsyncAPI builds on, has no other way to say four integers.
    WithJsonSchema({"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4}),
]


class VideoDelta(ServerEvent):
    """One frame, to be shown while the response's audio at ``pts_ms`` is heard.

    ``region`` is [x, y, width, height] in the avatar's pixels, whatever ``max_width`` made of the
    JPEG.
    """

    type: Literal["response.video.delta"] = "response.video.delta"
    response_id: str
    output_index: int = 0
    codec: Literal["jpeg"] = "jpeg"
    frame_index: int
    pts_ms: float
    region: Region
    generation: int
    delta: Bytes


class VideoDone(ServerEvent):
    """All frames of a response were sent or dropped."""

    type: Literal["response.video.done"] = "response.video.done"
    response_id: str
    output_index: int = 0
    frames_sent: int
    frames_dropped: int


class _AvatarSwitch(ServerEvent):
    turn_id: str
    generation: int
    frame_index: int
    cycle_index: int


class AvatarSwitchToSpeaking(_AvatarSwitch):
    """The avatar begins to speak.

    ``frame_index`` is the response's first frame, ``cycle_index`` the frame of the idle cycle that
    it was painted on.
    """

    type: Literal["session.avatar.switch_to_speaking"] = "session.avatar.switch_to_speaking"


class AvatarSwitchToIdle(_AvatarSwitch):
    """The avatar is at rest again.

    ``frame_index`` is the first frame that will not come; the idle cycle continues at
    ``cycle_index``.
    """

    type: Literal["session.avatar.switch_to_idle"] = "session.avatar.switch_to_idle"


class AvatarCapacity(ServerEvent):
    """The server has more frames to make than it can: sent when that begins and when it ends.

    While ``over``, some frames are dropped; audio is not. Rates are those of the whole server.
    """

    type: Literal["avatar.capacity"] = "avatar.capacity"
    over: bool
    frames_per_s_wanted: float
    frames_per_s_made: float
