"""Events about the list of avatars: making one of a client's file, renaming, deleting.

Those of the client and of the server; `wsavatar.protocol` defines their meaning.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from .base import Base64, Bytes, Id, Ours, StrictObject, refuse
from .errors import ErrorMessage, ErrorType
from .server_events import ServerEvent

__all__ = [
    "MAX_PIECE_BYTES",
    "WINDOW_BYTES",
    "AvatarCreate",
    "AvatarCreateAppend",
    "AvatarCreateCancel",
    "AvatarCreateCommit",
    "AvatarCreateError",
    "AvatarCreateFailed",
    "AvatarCreateProgress",
    "AvatarCreateReady",
    "AvatarCreateReceived",
    "AvatarCreated",
    "AvatarDelete",
    "AvatarDeleted",
    "AvatarList",
    "AvatarListUpdated",
    "AvatarRename",
    "AvatarRenamed",
    "AvatarRequestEvent",
    "ListedAvatar",
]

MAX_PIECE_BYTES = 64 * 1024
"""Of a file in one ``avatar.create.append``, before base64."""
WINDOW_BYTES = 256 * 1024
"""Of a file that a client may have sent and that was not acknowledged."""


def _readable(name: str) -> str:
    if name and not (name.strip() and name.isprintable()):
        raise refuse("invalid_value", "Should be text that can be read, in one line.")
    return name


_Name = Annotated[str, Field(max_length=100), AfterValidator(_readable)]


class AvatarRequestEvent(Ours):
    """What a client sends about the list of avatars; it is not about the conversation."""


class AvatarCreate(AvatarRequestEvent):
    """Make an avatar of a photo or a video, which follows in pieces.

    ``size``: its bytes. ``id``, ``name``: empty: made of the file's name. ``face``: which of
    several, from 1, the largest first.
    """

    type: Literal["avatar.create"]
    file_name: Annotated[str, Field(min_length=1, max_length=255)]
    size: Annotated[int, Field(ge=1)]
    name: _Name = ""
    id: Annotated[str, Field(pattern="^([a-z0-9][a-z0-9_-]{0,63})?$")] = ""
    face: Annotated[int, Field(ge=1, le=99)] | None = None


class AvatarCreateAppend(AvatarRequestEvent):
    """The next piece of the file. ``offset``: bytes of the file before it."""

    type: Literal["avatar.create.append"]
    upload_id: Id
    offset: Annotated[int, Field(ge=0)]
    data: Base64


class AvatarCreateCommit(AvatarRequestEvent):
    """The file is complete: make the avatar."""

    type: Literal["avatar.create.commit"]
    upload_id: Id


class AvatarCreateCancel(AvatarRequestEvent):
    """Make no avatar, and delete the file."""

    type: Literal["avatar.create.cancel"]
    upload_id: Id


class AvatarRename(AvatarRequestEvent):
    """Give an avatar that a client made another name."""

    type: Literal["avatar.rename"]
    avatar_id: Id
    name: Annotated[_Name, Field(min_length=1)]


class AvatarDelete(AvatarRequestEvent):
    """Delete an avatar that a client made."""

    type: Literal["avatar.delete"]
    avatar_id: Id


class AvatarList(AvatarRequestEvent):
    """Ask for the list of avatars: ``avatar.list.updated`` answers."""

    type: Literal["avatar.list"]


# -- from the server ------------------------------------------------------------------------------


class ListedAvatar(StrictObject):
    """An avatar of the list. ``removable``: a client made it. ``urls``: as in ``/api/avatars``."""

    id: str
    name: str
    width: int
    height: int
    fps: float
    frame_count: int
    removable: bool
    urls: dict[str, str]


class AvatarCreateReady(ServerEvent):
    """Send the file: pieces of at most ``max_piece_bytes``, and not more than ``window_bytes``
    beyond what was acknowledged."""

    type: Literal["avatar.create.ready"] = "avatar.create.ready"
    upload_id: str
    max_piece_bytes: int
    window_bytes: int


class AvatarCreateReceived(ServerEvent):
    """So many bytes of the file are there."""

    type: Literal["avatar.create.received"] = "avatar.create.received"
    upload_id: str
    received_bytes: int


class AvatarCreateProgress(ServerEvent):
    """How far the avatar is. ``total`` 0: unknown."""

    type: Literal["avatar.create.progress"] = "avatar.create.progress"
    upload_id: str
    stage: Literal["wait", "look", "follow", "write", "prepare"]
    done: int
    total: int


class AvatarCreated(ServerEvent):
    """The avatar is ready. ``notes``: what its user should know, a sentence each; ``preview``: a
    JPEG of what the model sees of it."""

    type: Literal["avatar.created"] = "avatar.created"
    upload_id: str
    avatar: ListedAvatar
    notes: list[str]
    preview: Bytes


class AvatarCreateError(StrictObject):
    type: ErrorType = "invalid_request_error"
    code: str
    message: ErrorMessage
    param: str | None = None


class AvatarCreateFailed(ServerEvent):
    """There will be no avatar, and the file is deleted."""

    type: Literal["avatar.create.failed"] = "avatar.create.failed"
    upload_id: str
    error: AvatarCreateError


class AvatarRenamed(ServerEvent):
    """The client's ``avatar.rename`` was carried out."""

    type: Literal["avatar.renamed"] = "avatar.renamed"
    avatar_id: str
    name: str


class AvatarDeleted(ServerEvent):
    """The client's ``avatar.delete`` was carried out."""

    type: Literal["avatar.deleted"] = "avatar.deleted"
    avatar_id: str


class AvatarListUpdated(ServerEvent):
    """The avatars as they are now, by name. ``default``: a new session's; null: there is none."""

    type: Literal["avatar.list.updated"] = "avatar.list.updated"
    avatars: list[ListedAvatar]
    default: str | None
