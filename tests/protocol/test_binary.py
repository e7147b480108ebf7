"""Binary messages: exact bytes in both directions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wsavatar.protocol import binary

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "binary_messages.json").read_text())


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: row["name"])
def test_golden_messages_are_read(row: dict[str, Any]) -> None:
    """Every field of a golden message is found, and nothing of its payload is lost."""
    message, fields = binary.unpack(bytes.fromhex(row["hex"])), row["fields"]
    assert (message.type, message.flags) == (fields["type"], fields["flags"])
    assert (message.generation, message.index) == (fields["generation"], fields["index"])
    assert message.pts_us == fields["pts_us"]
    assert message.region == tuple(fields[key] for key in "xywh")
    assert message.payload.hex() == fields["payload_hex"]


@pytest.mark.parametrize("row", [r for r in GOLDEN if r["fields"]["flags"] < 3], ids=str)
def test_golden_messages_are_written(row: dict[str, Any]) -> None:
    """The bytes we send are the golden ones, bit for bit."""
    fields = row["fields"]
    head = fields["generation"], fields["index"], fields["pts_us"]
    payload = bytes.fromhex(fields["payload_hex"])
    if fields["type"] == binary.MessageType.AUDIO:
        packed = binary.pack_audio(*head, payload)
    else:
        codec = binary.CODECS[fields["flags"]]
        packed = binary.pack_frame(*head, tuple(fields[key] for key in "xywh"), payload, codec)
        assert binary.unpack(packed).codec == codec
    assert packed.hex() == row["hex"]


def test_generation_wraps_at_16_bits() -> None:
    """Generation 65537 is 1 in a binary message: compared for equality, never for order."""
    packed = binary.pack_frame(65_537, 0, 0, (0, 0, 2, 2), b"")
    assert binary.unpack(packed).generation == 1


@pytest.mark.parametrize("message", [b"", b"\x01" * 23, b"\x07" + bytes(23)])
def test_bytes_that_are_no_message_are_refused(message: bytes) -> None:
    """Too short, or of no known type: a BinaryError, never a wrong frame."""
    with pytest.raises(binary.BinaryError):
        binary.unpack(message)


@pytest.mark.parametrize(
    ("index", "pts_us", "region"),
    [
        (-1, 0, (0, 0, 1, 1)),
        (1 << 32, 0, (0, 0, 1, 1)),
        (0, -1, (0, 0, 1, 1)),
        (0, 0, (0, 0, 1, 65536)),
    ],
)
def test_fields_that_do_not_fit_are_refused(
    index: int, pts_us: int, region: tuple[int, int, int, int]
) -> None:
    """A field is never cut off to fit its place."""
    with pytest.raises(binary.BinaryError):
        binary.pack_frame(0, index, pts_us, region, b"")
