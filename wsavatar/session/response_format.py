"""What one response is on the wire: its audio, its frames, and what the client asked for it.

Pure. Knows the session's configuration and a request; not how a response is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from wsavatar.dialogue.base import ResponseRequest
from wsavatar.dialogue.trace import TurnTrace
from wsavatar.protocol import events as wire
from wsavatar.render.jobs import VideoFormat

__all__ = ["ResponseFormat"]


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The format of a response, fixed at its start."""

    audio: wire.AudioFormat
    voice: str
    rate: int
    """Samples per second of the speech."""
    video: VideoFormat | None
    """None: the client gets no frames, or the response is in text."""
    binary: bool
    for_avatars: bool
    """Whether the client knows events that the Realtime API does not have."""
    output_modality: Literal["audio", "text"]
    max_output_tokens: Any
    metadata: dict[str, str] | None
    in_conversation: bool
    live: bool
    """Its audio arrives while it is said."""
    trace: TurnTrace | None
    """Where the stages of the turn are marked."""

    @property
    def in_text(self) -> bool:
        """Whether the avatar writes instead of speaking."""
        return self.output_modality == "text"

    @classmethod
    def of(
        cls, config: wire.SessionConfig, request: ResponseRequest, rate: int, *, for_avatars: bool
    ) -> ResponseFormat:
        """The session's configuration with the request's changes."""
        output, video = config.audio.output, config.avatar.video
        wanted = None
        if for_avatars and video.encoding != "none" and request.modality == "audio":
            fps = Fraction(video.fps)
            wanted = VideoFormat(fps, video.region, video.quality, video.max_width, video.codec)
        tokens = request.max_output_tokens
        return cls(
            audio=request.output_format or output.format,
            voice=request.voice or config.voice_name,
            rate=rate,
            video=wanted,
            binary=video.encoding == "binary",
            for_avatars=for_avatars,
            output_modality=request.modality,
            max_output_tokens=config.max_output_tokens if tokens is None else tokens,
            metadata=dict(request.metadata) if request.metadata is not None else None,
            in_conversation=request.in_conversation,
            trace=request.trace,
            live=request.live,
        )
