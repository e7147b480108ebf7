"""Server events: typed, built by keyword, turned into compact JSON by ``to_json``.

The shapes are the Realtime API's; `wsavatar.protocol` says which are ours. Frames and audio, of
which there are many, put their JSON together by hand.
"""

from __future__ import annotations

import base64
from typing import Literal

from pydantic import Field

from .base import StrictObject, new_id
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


class ServerEvent(StrictObject):
    """What every server event has."""

    type: str
    event_id: str = Field(default_factory=lambda: new_id("event"))

    def to_json(self) -> str:
        """Compact JSON, one text message."""
        return self.model_dump_json()


class SessionCreated(ServerEvent):
    type: Literal["session.created"] = "session.created"
    session: SessionObject

    @classmethod
    def of(cls, config: SessionConfig, session_id: str) -> SessionCreated:
        return cls(session=config.on_wire(session_id))


class SessionUpdated(ServerEvent):
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
    type: Literal["error"] = "error"
    error: ErrorDetails

    @classmethod
    def of(cls, error: ProtocolError) -> ErrorEvent:
        """The answer to a client event that could not be taken."""
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
    type: Literal["input_audio_buffer.committed"] = "input_audio_buffer.committed"
    previous_item_id: str | None = None
    item_id: str


class InputAudioBufferCleared(ServerEvent):
    type: Literal["input_audio_buffer.cleared"] = "input_audio_buffer.cleared"


class SpeechStarted(ServerEvent):
    """``audio_start_ms`` counts all audio of the session, prefix padding included."""

    type: Literal["input_audio_buffer.speech_started"] = "input_audio_buffer.speech_started"
    audio_start_ms: int
    item_id: str


class SpeechStopped(ServerEvent):
    type: Literal["input_audio_buffer.speech_stopped"] = "input_audio_buffer.speech_stopped"
    audio_end_ms: int
    item_id: str


# -- the conversation -----------------------------------------------------------------------------


class ConversationItemAdded(ServerEvent):
    type: Literal["conversation.item.added"] = "conversation.item.added"
    previous_item_id: str | None = None
    item: ConversationItem


class ConversationItemDone(ServerEvent):
    type: Literal["conversation.item.done"] = "conversation.item.done"
    previous_item_id: str | None = None
    item: ConversationItem


class ConversationItemRetrieved(ServerEvent):
    type: Literal["conversation.item.retrieved"] = "conversation.item.retrieved"
    item: ConversationItem


class ConversationItemDeleted(ServerEvent):
    type: Literal["conversation.item.deleted"] = "conversation.item.deleted"
    item_id: str


class ConversationItemTruncated(ServerEvent):
    type: Literal["conversation.item.truncated"] = "conversation.item.truncated"
    item_id: str
    content_index: int
    audio_end_ms: int


# -- responses ------------------------------------------------------------------------------------


class ResponseCreated(ServerEvent):
    """``response`` as `response_object` makes it."""

    type: Literal["response.created"] = "response.created"
    response: ResponseObject


class ResponseDone(ServerEvent):
    type: Literal["response.done"] = "response.done"
    response: ResponseObject


class OutputItemAdded(ServerEvent):
    type: Literal["response.output_item.added"] = "response.output_item.added"
    response_id: str
    output_index: int = 0
    item: ConversationItem


class OutputItemDone(ServerEvent):
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
    type: Literal["response.content_part.added"] = "response.content_part.added"
    part: ContentPart


class ContentPartDone(_OfPart):
    type: Literal["response.content_part.done"] = "response.content_part.done"
    part: ContentPart


class OutputAudioDelta(_OfPart):
    """``audio``: bytes in the session's output format; base64 on the wire, as ``delta``."""

    type: Literal["response.output_audio.delta"] = "response.output_audio.delta"
    audio: bytes

    def to_json(self) -> str:
        return (
            f'{{"type":"{self.type}","event_id":"{self.event_id}",'
            f'"response_id":"{self.response_id}","item_id":"{self.item_id}",'
            f'"output_index":{self.output_index},"content_index":{self.content_index},'
            f'"delta":"{base64.b64encode(self.audio).decode("ascii")}"}}'
        )


class OutputAudioDone(_OfPart):
    type: Literal["response.output_audio.done"] = "response.output_audio.done"


class OutputTranscriptDelta(_OfPart):
    type: Literal["response.output_audio_transcript.delta"] = (
        "response.output_audio_transcript.delta"
    )
    delta: str


class OutputTranscriptDone(_OfPart):
    type: Literal["response.output_audio_transcript.done"] = "response.output_audio_transcript.done"
    transcript: str


# -- frames ---------------------------------------------------------------------------------------


class VideoDelta(ServerEvent):
    """One frame. ``jpeg``: its bytes; base64 on the wire, as ``delta``."""

    type: Literal["response.video.delta"] = "response.video.delta"
    response_id: str
    output_index: int = 0
    frame_index: int
    pts_ms: float
    region: tuple[int, int, int, int]
    generation: int
    jpeg: bytes

    def to_json(self) -> str:
        x, y, w, h = self.region
        return (
            f'{{"type":"{self.type}","event_id":"{self.event_id}",'
            f'"response_id":"{self.response_id}","output_index":{self.output_index},'
            f'"codec":"jpeg","frame_index":{self.frame_index},"pts_ms":{self.pts_ms:.10g},'
            f'"region":[{x},{y},{w},{h}],"generation":{self.generation},'
            f'"delta":"{base64.b64encode(self.jpeg).decode("ascii")}"}}'
        )


class VideoDone(ServerEvent):
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
    type: Literal["session.avatar.switch_to_speaking"] = "session.avatar.switch_to_speaking"


class AvatarSwitchToIdle(_AvatarSwitch):
    type: Literal["session.avatar.switch_to_idle"] = "session.avatar.switch_to_idle"


class AvatarCapacity(ServerEvent):
    """The server has more frames to make than it can: sent when that begins and when it ends.

    While ``over``, some frames are dropped; audio is not. Rates are those of the whole server.
    """

    type: Literal["avatar.capacity"] = "avatar.capacity"
    over: bool
    frames_per_s_wanted: float
    frames_per_s_made: float
