"""What a client gets when it reads too slowly: all of its audio, and the newest frames."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from wsavatar.session.outbox import Outbox, OutboxOverflow, OutgoingFrame, Settled


class Wire:
    """A socket that takes one message each time it is let to."""

    def __init__(self) -> None:
        self.taken: list[str | bytes] = []
        self.gate = asyncio.Semaphore(0)

    async def send(self, payload: str | bytes) -> None:
        await self.gate.acquire()
        self.taken.append(payload)

    def open(self) -> None:
        for _ in range(10_000):
            self.gate.release()


class Ledger:
    """What became of each frame."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.dropped: list[int] = []

    def frame(self, index: int, *, size: int = 100, generation: int = 1) -> OutgoingFrame:
        def settled(outcome: Settled) -> None:
            (self.sent if outcome == "sent" else self.dropped).append(index)

        return OutgoingFrame(generation, size, lambda: b"frame %d" % index, settled)


@contextlib.asynccontextmanager
async def sending(outbox: Outbox, wire: Wire) -> AsyncIterator[None]:
    task = asyncio.create_task(outbox.run(wire.send), name="outbox")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_messages_are_sent_in_order() -> None:
    """Events reach the client in the order they were made."""
    wire = Wire()
    wire.open()
    outbox = Outbox(frame_bytes=1000)
    async with sending(outbox, wire):
        for text in ("a", "b", "c"):
            outbox.put(text)
        await outbox.flushed()
    assert wire.taken == ["a", "b", "c"]
    assert outbox.message_bytes == 0


async def test_audio_overtakes_waiting_frames() -> None:
    """Audio never waits behind frames that were queued before it."""
    wire, ledger = Wire(), Ledger()
    outbox = Outbox(frame_bytes=1000)
    for index in range(3):
        outbox.put_frame(ledger.frame(index))
    outbox.put("audio")
    wire.open()
    async with sending(outbox, wire):
        await outbox.flushed()
    assert wire.taken == ["audio", b"frame 0", b"frame 1", b"frame 2"]
    assert ledger.sent == [0, 1, 2]


async def test_a_slow_client_loses_its_oldest_frames() -> None:
    """Where more frames wait than may wait, the oldest are dropped, each settled once."""
    wire, ledger = Wire(), Ledger()
    outbox = Outbox(frame_bytes=300)
    for index in range(10):
        outbox.put_frame(ledger.frame(index))
        assert outbox.frame_bytes <= 300
    outbox.put("audio")
    assert ledger.dropped == [0, 1, 2, 3, 4, 5, 6]
    wire.open()
    async with sending(outbox, wire):
        await outbox.flushed()
    assert wire.taken == ["audio", b"frame 7", b"frame 8", b"frame 9"]
    assert sorted(ledger.sent + ledger.dropped) == list(range(10))


async def test_a_frame_larger_than_the_bound_is_still_sent() -> None:
    """The newest frame always stays: a client with a tiny bound sees something."""
    wire, ledger = Wire(), Ledger()
    outbox = Outbox(frame_bytes=300)
    outbox.put_frame(ledger.frame(0))
    outbox.put_frame(ledger.frame(1, size=900))
    wire.open()
    async with sending(outbox, wire):
        await outbox.flushed()
    assert ledger.dropped == [0]
    assert ledger.sent == [1]


async def test_audio_is_never_dropped_but_a_client_that_reads_nothing_is_refused() -> None:
    """Past the hard bound ``put`` raises, and everything accepted before is still there."""
    wire = Wire()
    outbox = Outbox(frame_bytes=300, message_bytes=1000)
    for _ in range(10):
        outbox.put("x" * 100)
    with pytest.raises(OutboxOverflow, match="does not read"):
        outbox.put("y")
    wire.open()
    async with sending(outbox, wire):
        await outbox.flushed()
    assert wire.taken == ["x" * 100] * 10


async def test_an_interruption_forgets_only_its_own_generation() -> None:
    """Stale audio and frames go; events, and what belongs to other responses, stay."""
    wire, ledger = Wire(), Ledger()
    outbox = Outbox(frame_bytes=1000)
    outbox.put("response.created")
    outbox.put("stale audio", generation=1)
    outbox.put_frame(ledger.frame(0, generation=1))
    outbox.put_frame(ledger.frame(1, generation=2))
    outbox.put("fresh audio", generation=2)
    outbox.discard(1)
    assert ledger.dropped == [0]
    assert outbox.frame_bytes == 100
    wire.open()
    async with sending(outbox, wire):
        await outbox.flushed()
    assert wire.taken == ["response.created", "fresh audio", b"frame 1"]
    assert outbox.message_bytes == outbox.frame_bytes == 0


async def test_dropped_frames_are_never_encoded() -> None:
    """Encoding happens at the socket, so a dropped frame costs no base64."""
    wire = Wire()
    outbox = Outbox(frame_bytes=10)
    encoded: list[int] = []

    def encode(index: int) -> bytes:
        encoded.append(index)
        return b""

    for index in range(5):
        outbox.put_frame(
            OutgoingFrame(1, 10, lambda index=index: encode(index), lambda outcome: None)
        )
    wire.open()
    async with sending(outbox, wire):
        await outbox.flushed()
    assert encoded == [4]
