"""Server events about a response: its items and parts, audio, text, calls of functions, frames.

The shapes are the Realtime API's; `wsavatar.protocol` says which are ours.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema

from .base import Bytes, StrictObject
from .items import ConversationItem
from .responses import ResponseObject
from .server_events import ServerEvent

__all__ = [
    "AudioContent",
    "AudioTimestampDelta",
    "AudioTimestampDone",
    "AvatarSwitchToIdle",
    "AvatarSwitchToSpeaking",
    "AvatarTurn",
    "ContentPart",
    "ContentPartAdded",
    "ContentPartDone",
    "FunctionCallArgumentsDelta",
    "FunctionCallArgumentsDone",
    "OutputAudioDelta",
    "OutputAudioDone",
    "OutputItemAdded",
    "OutputItemDone",
    "OutputTextDelta",
    "OutputTextDone",
    "OutputTranscriptDelta",
    "OutputTranscriptDone",
    "ResponseCreated",
    "ResponseDone",
    "TextContent",
    "VideoDelta",
    "VideoDone",
]


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


class AudioContent(StrictObject):
    """What the avatar says, in writing."""

    type: Literal["audio"] = "audio"
    transcript: str


class TextContent(StrictObject):
    """What the avatar writes."""

    type: Literal["text"] = "text"
    text: str


ContentPart = Annotated[AudioContent | TextContent, Field(discriminator="type")]
"""A part of an answer. Here its type is "audio" or "text"; in the item that has it,
"output_audio" or "output_text", as the Realtime API has it."""


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


class OutputTextDelta(_OfPart):
    """More of an answer in text."""

    type: Literal["response.output_text.delta"] = "response.output_text.delta"
    delta: str


class OutputTextDone(_OfPart):
    """The whole text of a part."""

    type: Literal["response.output_text.done"] = "response.output_text.done"
    text: str


class AudioTimestampDelta(_OfPart):
    """When a word of the audio is heard, from the response's beginning.

    ``estimated``: by the text's length, since the voice does not say when its words are.
    """

    type: Literal["response.audio_timestamp.delta"] = "response.audio_timestamp.delta"
    audio_offset_ms: int
    audio_duration_ms: int
    text: str
    timestamp_type: Literal["word"] = "word"
    estimated: bool


class AudioTimestampDone(_OfPart):
    """No more words of a part."""

    type: Literal["response.audio_timestamp.done"] = "response.audio_timestamp.done"


# -- calls of functions ---------------------------------------------------------------------------


class _OfCall(ServerEvent):
    response_id: str
    item_id: str
    output_index: int
    call_id: str


class FunctionCallArgumentsDelta(_OfCall):
    """More of the arguments' JSON."""

    type: Literal["response.function_call_arguments.delta"] = (
        "response.function_call_arguments.delta"
    )
    delta: str


class FunctionCallArgumentsDone(_OfCall):
    """All arguments, as JSON in a string."""

    type: Literal["response.function_call_arguments.done"] = "response.function_call_arguments.done"
    name: str
    arguments: str


# -- frames ---------------------------------------------------------------------------------------


Region = Annotated[
    tuple[int, int, int, int],
    # JSON Schema's draft 7, which AsyncAPI builds on, has no other way to say four integers.
    WithJsonSchema({"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4}),
]


class VideoDelta(ServerEvent):
    """One frame, to be shown while the response's audio at ``pts_ms`` is heard.

    ``region`` is [x, y, width, height] in the avatar's pixels, whatever ``max_width`` made of the
    picture; ``codec`` is its format.
    """

    type: Literal["response.video.delta"] = "response.video.delta"
    response_id: str
    output_index: int = 0
    codec: Literal["jpeg", "webp", "png"] = "jpeg"
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


class AvatarTurn(ServerEvent):
    """How long an answer took, in milliseconds from the end of the user's speech, or from the
    request where nothing was spoken.

    Sent once a response: when the client reports that it plays, else at the response's end. Null:
    the stage was not reached, or does not exist in this mode.
    """

    type: Literal["avatar.turn"] = "avatar.turn"
    response_id: str
    turn_end_ms: int | None = None
    transcript_ms: int | None = None
    first_token_ms: int | None = None
    first_sound_ms: int | None = None
    first_frame_ms: int | None = None
    first_heard_ms: int | None = None
