"""Events about finished videos: ordering one, how far it is, where to fetch it.

Those of the client and of the server; `wsavatar.protocol` defines their meaning.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .base import Base64, Id, OtherBackground, Ours, StrictObject, refuse
from .errors import ErrorMessage, ErrorType
from .server_events import ServerEvent

__all__ = [
    "AvatarRender",
    "AvatarRenderCancel",
    "AvatarRenderCreated",
    "AvatarRenderDone",
    "AvatarRenderError",
    "AvatarRenderFailed",
    "AvatarRenderProgress",
    "VideoRequestEvent",
]

MAX_RENDER_CHARS = 20_000
MAX_PICTURE_BYTES = 2 * 1024 * 1024


class VideoRequestEvent(Ours):
    """What a client sends about videos; it is not about the conversation."""


class AvatarRender(VideoRequestEvent):
    """Make a video of the avatar that says ``text``, or the audio of a user's item ``item_id``.

    ``avatar``, ``voice``, ``background``: empty: the session's; of an MP4, which cannot be
    transparent, then the avatar's own. ``picture``: a JPEG, PNG or WebP of the client's own, in
    base64, in place of ``background``; scaled to cover, and forgotten with the video.
    """

    type: Literal["avatar.render"]
    text: Annotated[str, Field(max_length=MAX_RENDER_CHARS)] = ""
    item_id: Annotated[str, Field(max_length=512)] = ""
    avatar: Annotated[str, Field(max_length=64)] = ""
    voice: Annotated[str, Field(max_length=1000)] = ""
    format: Literal["mp4", "webm"] = "mp4"
    background: OtherBackground = ""
    picture: Base64 = b""

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        if self.picture and self.background:
            text = "A picture is a background: leave background out."
            raise refuse("invalid_value", text, field="picture")
        if len(self.picture) > MAX_PICTURE_BYTES:
            text = f"A picture may have {MAX_PICTURE_BYTES >> 20} MiB; scale it down."
            raise refuse("too_long", text, field="picture")
        if self.background == "transparent" and self.format == "mp4":
            text = "An MP4 cannot be transparent: ask for the format 'webm'."
            raise refuse("invalid_value", text, field="format")
        return self


class AvatarRenderCancel(VideoRequestEvent):
    """Make that video no longer."""

    type: Literal["avatar.render.cancel"]
    render_id: Id


# -- from the server ------------------------------------------------------------------------------


class AvatarRenderCreated(ServerEvent):
    """The order was taken; the video is made when its turn comes."""

    type: Literal["avatar.render.created"] = "avatar.render.created"
    render_id: str


class AvatarRenderProgress(ServerEvent):
    """How many frames are made. ``frames_total`` null: not known before the text was spoken."""

    type: Literal["avatar.render.progress"] = "avatar.render.progress"
    render_id: str
    frames_done: int
    frames_total: int | None


class AvatarRenderDone(ServerEvent):
    """The video is finished. ``url``: where to fetch it, relative to the page's, for
    ``expires_in_s`` seconds."""

    type: Literal["avatar.render.done"] = "avatar.render.done"
    render_id: str
    url: str
    bytes: int
    frames: int
    duration_ms: int
    expires_in_s: float


class AvatarRenderError(StrictObject):
    type: ErrorType = "invalid_request_error"
    code: str
    message: ErrorMessage


class AvatarRenderFailed(ServerEvent):
    """There will be no video. ``code`` ``cancelled``: the client wanted that."""

    type: Literal["avatar.render.failed"] = "avatar.render.failed"
    render_id: str
    error: AvatarRenderError
