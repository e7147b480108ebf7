"""What one response is on the wire: its audio, its frames, and what the client asked for it.

Pure. Knows the session's configuration and a request; not how a response is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from wsavatar.dialogue.base import ResponseRequest
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
    """None: the client gets no frames."""
    binary: bool
    output_modality: Literal["audio", "text"]
    max_output_tokens: Any
    metadata: dict[str, str] | None
    in_conversation: bool

    @classmethod
    def of(
        cls, config: wire.SessionConfig, request: ResponseRequest, rate: int, *, with_video: bool
    ) -> ResponseFormat:
        """The session's configuration with the request's changes."""
        output, video = config.audio.output, config.avatar.video
        wanted = None
        if with_video and video.encoding != "none":
            fps = Fraction(video.fps)
            wanted = VideoFormat(fps, video.region, video.quality, video.max_width)
        tokens = request.max_output_tokens
        return cls(
            audio=request.output_format or output.format,
            voice=request.voice or output.voice,
            rate=rate,
            video=wanted,
            binary=video.encoding == "binary",
            output_modality=request.modality,
            max_output_tokens=config.max_output_tokens if tokens is None else tokens,
            metadata=dict(request.metadata) if request.metadata is not None else None,
            in_conversation=request.in_conversation,
        )
