"""The bounded send queue of one client: audio first, oldest frames dropped.

The queue has two classes. *Messages* (events and audio) are sent in order and never dropped: if
more than ``MESSAGE_BYTES`` wait, the client does not read, and its connection is closed. *Frames*
are sent when no message waits; above ``frame_bytes`` the oldest are dropped, because a late frame
is worth less than the next one. Each frame is settled exactly once, as sent or as dropped.

After an interruption `discard` drops the audio and frames of a generation at once.

The queue outlives a connection: `run` may be cancelled, and started again with the next one after
`resume`, which queues again what the client did not get (`replay`).

This module knows neither events nor pictures, and of the socket only a coroutine that sends.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from wsavatar.errors import WsavatarError
from wsavatar.session.replay import Replay

__all__ = ["MESSAGE_BYTES", "OutgoingFrame", "Outbox", "OutboxOverflow", "Settled"]

MESSAGE_BYTES = 16 * 1024 * 1024
"""Maximum of events and audio that wait for a client: minutes of audio in any format."""


class OutboxOverflow(WsavatarError):
    """The client does not read: its queue of events and audio is full."""


Settled = Literal["sent", "slow_client", "late", "cancelled"]
"""What became of a frame: given to the socket, or why it was dropped."""


@dataclass(frozen=True, slots=True)
class OutgoingFrame:
    """A queued frame. It is encoded when sent, so dropping it costs nothing.

    ``settled`` is called once. ``is_late`` is asked after a connection was lost: whether the client
    plays what comes after it.
    """

    generation: int
    size: int
    encode: Callable[[], str | bytes]
    settled: Callable[[Settled], None]
    is_late: Callable[[], bool] = lambda: False


@dataclass(slots=True, eq=False)
class _Message:
    payload: str | bytes
    generation: int | None = None
    sent: Callable[[], None] | None = None
    """Called once, when the socket has taken it."""
    only_now: bool = False
    """It is about this connection: not for the next one."""

    def taken(self) -> None:
        tell, self.sent = self.sent, None
        if tell is not None:
            tell()


Item = TypeVar("Item", bound=_Message | OutgoingFrame)


class Outbox:
    """One client's queue. ``put`` and ``put_frame`` never wait; `run` sends until cancelled."""

    def __init__(
        self,
        *,
        frame_bytes: int,
        message_bytes: int = MESSAGE_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._frame_limit = frame_bytes
        self._message_limit = message_bytes
        # Sent once already, and sent first now, in the same order. As much as the replay keeps.
        self._again: deque[_Message | OutgoingFrame] = deque()
        # Full: the connection is closed (OutboxOverflow). Audio is never dropped.
        self._messages: deque[_Message] = deque()
        self._message_bytes = 0
        # Full: the oldest frame is dropped.
        self._frames: deque[OutgoingFrame] = deque()
        self._frame_bytes = 0
        self._replay: Replay[_Message | OutgoingFrame] = Replay(clock)
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def message_bytes(self) -> int:
        """Bytes of queued events and audio."""
        return self._message_bytes

    @property
    def frame_bytes(self) -> int:
        """Bytes of queued frames."""
        return self._frame_bytes

    @property
    def frame_count(self) -> int:
        return len(self._frames)

    @property
    def replay(self) -> Replay[_Message | OutgoingFrame]:
        """What was sent and may not have arrived."""
        return self._replay

    def put(
        self,
        payload: str | bytes,
        *,
        generation: int | None = None,
        sent: Callable[[], None] | None = None,
    ) -> None:
        """Queue an event or audio. ``generation``: it is stale once that is discarded.

        ``sent`` is called once the socket has taken it, and never if it was discarded.
        Raises OutboxOverflow where the client has let too much pile up.
        """
        if self._message_bytes + len(payload) > self._message_limit:
            raise OutboxOverflow(
                f"{self._message_bytes} bytes of events and audio wait for a client that "
                f"does not read"
            )
        self._messages.append(_Message(payload, generation, sent))
        self._message_bytes += len(payload)
        self._notify()

    def put_frame(self, frame: OutgoingFrame) -> None:
        """Queue a frame, dropping the oldest ones until it fits. The newest is always kept."""
        self._frames.append(frame)
        self._frame_bytes += frame.size
        dropped = []
        while self._frame_bytes > self._frame_limit and len(self._frames) > 1:
            dropped.append(self._frames.popleft())
            self._frame_bytes -= dropped[-1].size
        self._notify()
        for old in dropped:
            old.settled("slow_client")

    def discard(self, generation: int) -> None:
        """Drop the audio and frames of an interrupted generation."""
        stale = [frame for frame in self._frames if frame.generation == generation]
        self._frames = deque(f for f in self._frames if f.generation != generation)
        self._frame_bytes = sum(frame.size for frame in self._frames)
        self._messages = deque(m for m in self._messages if m.generation != generation)
        self._message_bytes = sum(len(m.payload) for m in self._messages)
        self._again = deque(one for one in self._again if one.generation != generation)
        self._replay.discard(lambda sent: sent.generation == generation)
        for frame in stale:
            frame.settled("cancelled")

    def resume(self, received: int) -> int:
        """The next connection's client has so many messages: send again what did not arrive.

        Frames that are late by now are dropped. Returns how many frames of those that were sent or
        waited will not be sent. Raises ReplayError; then nothing changes.
        """
        arrived, missed, dropped = self._replay.resume(received)
        for item in arrived:
            if isinstance(item, _Message):
                item.taken()
        again, late_again = _without_late([*missed, *self._again])
        self._again = deque(one for one in again if not _only_now(one))
        waiting, late = _without_late(self._frames)
        self._frames = deque(waiting)
        self._frame_bytes = sum(frame.size for frame in self._frames)
        for frame in late:
            frame.settled("late")
        self._notify()
        return dropped + len(late_again) + len(late)

    def put_first(self, payload: str) -> None:
        """Queue an event about this connection before all others. It is not sent again."""
        self._again.appendleft(_Message(payload, only_now=True))
        self._notify()

    async def run(self, send: Callable[[str | bytes], Awaitable[None]]) -> None:
        """Send the queue, messages before frames, until cancelled or ``send`` fails.

        What was not sent completely may have arrived or not: `resume` knows.
        """
        while True:
            if self._again:
                await self._send(self._again.popleft(), send)
            elif self._messages:
                message = self._messages.popleft()
                self._message_bytes -= len(message.payload)
                await self._send(message, send)
            elif self._frames:
                frame = self._frames.popleft()
                self._frame_bytes -= frame.size
                # Settled before the wait: an interruption during it cannot take it back.
                frame.settled("sent")
                await self._send(frame, send)
            else:
                self._empty.set()
                self._wake.clear()
                await self._wake.wait()

    async def _send(
        self, item: _Message | OutgoingFrame, send: Callable[[str | bytes], Awaitable[None]]
    ) -> None:
        if isinstance(item, OutgoingFrame):
            self._replay.add(item, item.size, is_frame=True)
            await send(item.encode())
        else:
            self._replay.add(None if item.only_now else item, len(item.payload))
            await send(item.payload)
            item.taken()

    async def flushed(self) -> None:
        """Wait until everything queued was given to the socket."""
        await self._empty.wait()

    def _notify(self) -> None:
        self._empty.clear()
        self._wake.set()


def _without_late(items: Iterable[Item]) -> tuple[list[Item], list[Item]]:
    """Split off the frames that are late."""
    kept, late = list[Item](), list[Item]()
    for item in items:
        is_late = isinstance(item, OutgoingFrame) and item.is_late()
        (late if is_late else kept).append(item)
    return kept, late


def _only_now(item: _Message | OutgoingFrame) -> bool:
    return isinstance(item, _Message) and item.only_now
