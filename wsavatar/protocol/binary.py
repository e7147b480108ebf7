"""Binary messages from the server: a 24-byte header and a payload.

Knows bytes and bounds; not who sends them. `wsavatar.protocol` defines the layout.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from wsavatar.errors import WsavatarError

__all__ = [
    "CODECS",
    "HEADER",
    "BinaryError",
    "BinaryMessage",
    "MessageType",
    "pack_audio",
    "pack_frame",
    "unpack",
]

HEADER = struct.Struct("<BBHIQHHHH")

Region = tuple[int, int, int, int]


class BinaryError(WsavatarError, ValueError):
    """Bytes that are not a message, or fields that do not fit the header."""


CODECS = ("jpeg", "webp", "png")
"""By the two lowest bits of a frame's flags."""


class MessageType(IntEnum):
    FRAME = 1
    AUDIO = 2


@dataclass(frozen=True, slots=True)
class BinaryMessage:
    """One decoded message. ``index``: frame number (FRAME) or sample offset (AUDIO)."""

    type: MessageType
    flags: int
    generation: int
    index: int
    pts_us: int
    region: Region
    payload: bytes

    @property
    def codec(self) -> str:
        """A frame's format."""
        return CODECS[min(self.flags & 3, len(CODECS) - 1)]


def pack_frame(
    generation: int,
    index: int,
    pts_us: int,
    region: Region,
    picture: bytes,
    codec: str = CODECS[0],
) -> bytes:
    """One frame, in one of `CODECS`. ``generation`` may be any size: it wraps at 65536 here."""
    flags = CODECS.index(codec)
    return _pack(MessageType.FRAME, generation, index, pts_us, region, picture, flags)


def pack_audio(generation: int, sample_offset: int, pts_us: int, samples: bytes) -> bytes:
    """Audio already encoded in the session's output format, from ``sample_offset`` on."""
    return _pack(MessageType.AUDIO, generation, sample_offset, pts_us, (0, 0, 0, 0), samples)


def unpack(message: bytes) -> BinaryMessage:
    """Decode a message. Raises `BinaryError` if it is too short or of no known type."""
    if len(message) < HEADER.size:
        raise BinaryError(f"a message has {HEADER.size} bytes of header, this is {len(message)}")
    kind, flags, generation, index, pts_us, *region = HEADER.unpack_from(message)
    try:
        message_type = MessageType(kind)
    except ValueError:
        raise BinaryError(f"unknown message type {kind}") from None
    x, y, w, h = region
    payload = bytes(message[HEADER.size :])
    return BinaryMessage(message_type, flags, generation, index, pts_us, (x, y, w, h), payload)


def _pack(
    kind: MessageType,
    generation: int,
    index: int,
    pts_us: int,
    region: Region,
    payload: bytes,
    flags: int = 0,
) -> bytes:
    try:
        header = HEADER.pack(kind, flags, generation & 0xFFFF, index, pts_us, *region)
    except struct.error as error:
        raise BinaryError(
            f"out of range: index {index}, pts_us {pts_us}, region {region}: {error}"
        ) from None
    return header + payload
