"""What a client may ask of one response, and what the server says of it.

Knows shapes and limits; not how a response is made.
"""

from __future__ import annotations

from typing import Literal

from .audio_format import AudioFormat, Voice
from .base import (
    ClientObject,
    Ignored,
    MaxOutputTokens,
    Metadata,
    Modality,
    OutputModalities,
    StrictObject,
)
from .errors import ErrorMessage, ProtocolError
from .items import ConversationItem, InputItem, Item
from .tools import Tool, ToolChoice

__all__ = [
    "NO_PROMPTS",
    "CancelReason",
    "IncompleteReason",
    "ResponseAudio",
    "ResponseAudioOutput",
    "ResponseObject",
    "ResponseParams",
    "ResponseStatus",
    "StatusDetails",
    "StatusError",
    "response_object",
]

NO_PROMPTS = "This server stores no prompt templates. Put the text into instructions."

ResponseStatus = Literal["in_progress", "completed", "cancelled", "failed", "incomplete"]
CancelReason = Literal["turn_detected", "client_cancelled"]
IncompleteReason = Literal["max_output_tokens", "content_filter"]


# -- asked ----------------------------------------------------------------------------------------


class ResponseAudioOutput(ClientObject):
    """None: as the session has it."""

    moved = {"speed": "session.audio.output.speed"}

    format: AudioFormat | None = None
    voice: Voice | None = None


class ResponseAudio(ClientObject):
    output: ResponseAudioOutput = ResponseAudioOutput()


class ResponseParams(ClientObject):
    """The ``response`` of ``response.create``. None, or absent: as the session has it.

    ``input`` None takes the conversation as it is; an empty tuple takes nothing of it.
    """

    moved = {
        "modalities": "response.output_modalities",
        "voice": "response.audio.output.voice",
        "output_audio_format": "response.audio.output.format",
        "max_response_output_tokens": "response.max_output_tokens",
        "max_tokens": "response.max_output_tokens",
        "temperature": "",
    }
    unsupported = {"prompt": NO_PROMPTS}

    conversation: Literal["auto", "none"] = "auto"
    input: tuple[InputItem, ...] | None = None
    instructions: str | None = None
    metadata: Metadata | None = None
    output_modalities: OutputModalities | None = None
    max_output_tokens: MaxOutputTokens | None = None
    audio: ResponseAudio = ResponseAudio()
    tools: tuple[Tool, ...] | None = None
    tool_choice: ToolChoice | None = None
    reasoning: Ignored = None
    parallel_tool_calls: Ignored = None


# -- told -----------------------------------------------------------------------------------------


class StatusError(StrictObject):
    type: str
    code: str
    message: ErrorMessage


class StatusDetails(StrictObject):
    """Why a response did not complete: ``reason``, or the ``error`` it failed with."""

    type: Literal["cancelled", "failed", "incomplete"]
    reason: CancelReason | IncompleteReason | None = None
    error: StatusError | None = None


class ResponseObject(StrictObject):
    """The ``response`` of ``response.created`` and ``response.done``.

    ``generation`` is ours: which response a binary message belongs to, modulo 65536. ``usage`` is
    null: this server counts no tokens.
    """

    id: str
    object: Literal["realtime.response"] = "realtime.response"
    status: ResponseStatus
    status_details: StatusDetails | None = None
    output: tuple[ConversationItem, ...] = ()
    conversation_id: str | None = None
    output_modalities: list[Modality] = ["audio"]
    max_output_tokens: MaxOutputTokens = "inf"
    audio: ResponseAudio = ResponseAudio()
    metadata: Metadata | None = None
    usage: None = None
    generation: int


def response_object(
    response_id: str,
    *,
    generation: int,
    status: ResponseStatus,
    output: tuple[Item, ...] = (),
    reason: CancelReason | IncompleteReason | None = None,
    error: ProtocolError | None = None,
    conversation_id: str | None = None,
    output_modalities: list[Modality] | None = None,
    max_output_tokens: MaxOutputTokens = "inf",
    format: AudioFormat | None = None,
    voice: str | None = None,
    metadata: Metadata | None = None,
) -> ResponseObject:
    """A response as it stands.

    ``reason`` says why it was cancelled (None: replaced by another response) or is incomplete,
    ``error`` why it failed.
    """
    details = None
    if status == "cancelled" or status == "failed" or status == "incomplete":
        failure = None
        if error is not None:
            failure = StatusError(type=error.type, code=error.code, message=error.message)
        details = StatusDetails(type=status, reason=reason, error=failure)
    return ResponseObject(
        id=response_id,
        status=status,
        status_details=details,
        output=output,
        conversation_id=conversation_id,
        output_modalities=output_modalities or ["audio"],
        max_output_tokens=max_output_tokens,
        audio=ResponseAudio(output=ResponseAudioOutput(format=format, voice=voice)),
        metadata=metadata,
        generation=generation,
    )
