"""Server events: typed, built by keyword, turned into compact JSON by ``to_json``.

The shapes are the Realtime API's; `wsavatar.protocol` says which are ours. Frames and audio, of
which there are many, put their JSON together by hand.
"""

from __future__ import annotations

import base64
import secrets
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .errors import ProtocolError
from .session_config import SessionConfig

__all__ = [
    "AvatarSwitchToIdle",
    "AvatarSwitchToSpeaking",
    "ContentPartAdded",
    "ContentPartDone",
    "ConversationItemAdded",
    "ConversationItemDeleted",
    "ConversationItemDone",
    "ConversationItemRetrieved",
    "ConversationItemTruncated",
    "ErrorEvent",
    "InputAudioBufferCleared",
    "InputAudioBufferCommitted",
    "InputTranscriptionCompleted",
    "InputTranscriptionDelta",
    "InputTranscriptionFailed",
    "OutputAudioDelta",
    "OutputAudioDone",
    "OutputItemAdded",
    "OutputItemDone",
    "OutputTranscriptDelta",
    "OutputTranscriptDone",
    "RateLimitsUpdated",
    "ResponseCreated",
    "ResponseDone",
    "ServerEvent",
    "SessionCreated",
    "SessionUpdated",
    "SpeechStarted",
    "SpeechStopped",
    "VideoDelta",
    "VideoDone",
    "assistant_item",
    "new_id",
    "response_object",
    "user_item",
]

Json = dict[str, Any]


def new_id(prefix: str) -> str:
    """An id that no other event, item or response of any session has: ``item_3f9c…``."""
    return f"{prefix}_{secrets.token_hex(10)}"


class ServerEvent(BaseModel):
    """What every server event has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str
    event_id: str = Field(default_factory=lambda: new_id("event"))

    def to_json(self) -> str:
        """Compact JSON, one text message."""
        return self.model_dump_json()


class SessionCreated(ServerEvent):
    type: Literal["session.created"] = "session.created"
    session: Json

    @classmethod
    def of(cls, config: SessionConfig, session_id: str) -> SessionCreated:
        return cls(session=config.to_wire(session_id))


class SessionUpdated(ServerEvent):
    type: Literal["session.updated"] = "session.updated"
    session: Json

    @classmethod
    def of(cls, config: SessionConfig, session_id: str) -> SessionUpdated:
        return cls(session=config.to_wire(session_id))


class ErrorEvent(ServerEvent):
    type: Literal["error"] = "error"
    error: Json

    @classmethod
    def of(cls, error: ProtocolError) -> ErrorEvent:
        """The answer to a client event that could not be taken."""
        return cls(
            error={
                "type": error.type,
                "code": error.code,
                "message": error.message,
                "param": error.param,
                "event_id": error.event_id,
            }
        )


class RateLimitsUpdated(ServerEvent):
    type: Literal["rate_limits.updated"] = "rate_limits.updated"
    rate_limits: list[Json]


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
    item: Json


class ConversationItemDone(ServerEvent):
    type: Literal["conversation.item.done"] = "conversation.item.done"
    previous_item_id: str | None = None
    item: Json


class ConversationItemRetrieved(ServerEvent):
    type: Literal["conversation.item.retrieved"] = "conversation.item.retrieved"
    item: Json


class ConversationItemDeleted(ServerEvent):
    type: Literal["conversation.item.deleted"] = "conversation.item.deleted"
    item_id: str


class ConversationItemTruncated(ServerEvent):
    type: Literal["conversation.item.truncated"] = "conversation.item.truncated"
    item_id: str
    content_index: int
    audio_end_ms: int


class InputTranscriptionDelta(ServerEvent):
    type: Literal["conversation.item.input_audio_transcription.delta"] = (
        "conversation.item.input_audio_transcription.delta"
    )
    item_id: str
    content_index: int = 0
    delta: str


class InputTranscriptionCompleted(ServerEvent):
    type: Literal["conversation.item.input_audio_transcription.completed"] = (
        "conversation.item.input_audio_transcription.completed"
    )
    item_id: str
    content_index: int = 0
    transcript: str
    usage: Json
    """``{"type": "duration", "seconds": …}``"""


class InputTranscriptionFailed(ServerEvent):
    type: Literal["conversation.item.input_audio_transcription.failed"] = (
        "conversation.item.input_audio_transcription.failed"
    )
    item_id: str
    content_index: int = 0
    error: Json


# -- responses ------------------------------------------------------------------------------------


class ResponseCreated(ServerEvent):
    """``response`` as `response_object` makes it."""

    type: Literal["response.created"] = "response.created"
    response: Json


class ResponseDone(ServerEvent):
    type: Literal["response.done"] = "response.done"
    response: Json


class OutputItemAdded(ServerEvent):
    type: Literal["response.output_item.added"] = "response.output_item.added"
    response_id: str
    output_index: int = 0
    item: Json


class OutputItemDone(ServerEvent):
    type: Literal["response.output_item.done"] = "response.output_item.done"
    response_id: str
    output_index: int = 0
    item: Json


class _OfPart(ServerEvent):
    """What every event about one part of one item says."""

    response_id: str
    item_id: str
    output_index: int = 0
    content_index: int = 0


class ContentPartAdded(_OfPart):
    """``part``: ``{"type": "audio", "transcript": ""}``"""

    type: Literal["response.content_part.added"] = "response.content_part.added"
    part: Json


class ContentPartDone(_OfPart):
    type: Literal["response.content_part.done"] = "response.content_part.done"
    part: Json


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


# -- the objects inside ---------------------------------------------------------------------------

ItemStatus = Literal["in_progress", "completed", "incomplete"]
ResponseStatus = Literal["in_progress", "completed", "cancelled", "failed", "incomplete"]


def user_item(item_id: str, *, status: ItemStatus = "completed", text: str | None = None) -> Json:
    """A user's message: what they said (``text`` None), or wrote."""
    part: Json = {"type": "input_audio", "transcript": None}
    if text is not None:
        part = {"type": "input_text", "text": text}
    return _item(item_id, "user", status, [part])


def assistant_item(item_id: str, *, status: ItemStatus, transcript: str | None = None) -> Json:
    """What the avatar says. ``transcript`` None: nothing in it yet."""
    parts: list[Json] = []
    if transcript is not None:
        parts = [{"type": "output_audio", "transcript": transcript}]
    return _item(item_id, "assistant", status, parts)


def _item(item_id: str, role: str, status: str, content: list[Json]) -> Json:
    head = {"id": item_id, "object": "realtime.item", "type": "message"}
    return head | {"status": status, "role": role, "content": content}


def response_object(
    response_id: str,
    *,
    generation: int,
    status: ResponseStatus,
    output: list[Json] | None = None,
    reason: Literal["turn_detected", "client_cancelled"] | None = None,
    error: ProtocolError | None = None,
    metadata: Json | None = None,
    audio_output: Json | None = None,
) -> Json:
    """The ``response`` of ``response.created`` and ``response.done``.

    ``reason`` says why one was cancelled, ``error`` why one failed; ``audio_output`` is
    ``{"format": …, "voice": …}``.
    """
    details: Json | None = None
    if reason is not None:
        details = {"type": status, "reason": reason}
    elif error is not None:
        details = {"type": status, "error": {"type": error.type, "code": error.code}}
        details["error"]["message"] = error.message
    return {
        "id": response_id,
        "object": "realtime.response",
        "status": status,
        "status_details": details,
        "output": output or [],
        "output_modalities": ["audio"],
        "audio": {"output": audio_output or {}},
        "metadata": metadata,
        "usage": None,
        "generation": generation,
    }
