"""From a photo or video file of a person to an avatar's folder: `create_avatar`.

It reads the file, finds and follows the face, takes the calmest part of a video or gives a still
picture some life, and writes the folder. It does not know who asks, nor a face model.
"""

from wsavatar.creation.create import create_avatar
from wsavatar.creation.names import free_id
from wsavatar.creation.request import (
    AvatarRequest,
    CancelledError,
    Created,
    Progress,
    UnfitFileError,
)
from wsavatar.creation.source import SourceLimits

__all__ = [
    "AvatarRequest",
    "CancelledError",
    "Created",
    "Progress",
    "SourceLimits",
    "UnfitFileError",
    "create_avatar",
    "free_id",
]
