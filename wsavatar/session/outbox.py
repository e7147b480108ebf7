"""The bounded send queue of one client: audio first, oldest frames dropped.

The queue has two classes. *Messages* (events and audio) are sent in order and never dropped: if
more than ``MESSAGE_BYTES`` wait, the client does not read, and its connection is closed. *Frames*
are sent when no message waits; above ``frame_bytes`` the oldest are dropped, because a late frame
is worth less than the next one. Each frame is settled exactly once, as sent or as dropped.

After an interruption `discard` drops the audio and frames of a generation at once.

The queue outlives a connection: `run` may be cancelled and started again with the next one.

This module knows neither events nor pictures, and of the socket only a coroutine that sends.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from wsavatar.errors import WsavatarError

__all__ = ["MESSAGE_BYTES", "OutgoingFrame", "Outbox", "OutboxOverflow"]

MESSAGE_BYTES = 16 * 1024 * 1024
"""Maximum of events and audio that wait for a client: minutes of audio in any format."""


class OutboxOverflow(WsavatarError):
    """The client does not read: its queue of events and audio is full."""


@dataclass(frozen=True, slots=True)
class OutgoingFrame:
    """A queued frame. It is encoded when sent, so dropping it costs nothing.

    ``settled(sent)`` is called once: True when it is given to the socket, False when dropped.
    """

    generation: int
    size: int
    encode: Callable[[], str | bytes]
    settled: Callable[[bool], None]


@dataclass(frozen=True, slots=True)
class _Message:
    payload: str | bytes
    generation: int | None
    sent: Callable[[], None] | None


class Outbox:
    """One client's queue. ``put`` and ``put_frame`` never wait; `run` sends until cancelled."""

    def __init__(
        self,
        *,
        frame_bytes: int,
        message_bytes: int = MESSAGE_BYTES,
    ) -> None:
        self._frame_limit = frame_bytes
        self._message_limit = message_bytes
        # Full: the connection is closed (OutboxOverflow). Audio is never dropped.
        self._messages: deque[_Message] = deque()
        self._message_bytes = 0
        # Full: the oldest frame is dropped.
        self._frames: deque[OutgoingFrame] = deque()
        self._frame_bytes = 0
        self._sending: _Message | None = None
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
            old.settled(False)

    def discard(self, generation: int) -> None:
        """Drop the audio and frames of an interrupted generation."""
        stale = [frame for frame in self._frames if frame.generation == generation]
        self._frames = deque(f for f in self._frames if f.generation != generation)
        self._frame_bytes = sum(frame.size for frame in self._frames)
        self._messages = deque(m for m in self._messages if m.generation != generation)
        self._message_bytes = sum(len(m.payload) for m in self._messages)
        if self._sending is not None and self._sending.generation == generation:
            self._sending = None
        for frame in stale:
            frame.settled(False)

    async def run(self, send: Callable[[str | bytes], Awaitable[None]]) -> None:
        """Send the queue, messages before frames, until cancelled or ``send`` fails.

        A message that was not sent completely stays first in the queue for the next connection; a
        frame does not.
        """
        while True:
            if self._messages:
                self._sending = message = self._messages.popleft()
                self._message_bytes -= len(message.payload)
                try:
                    await send(message.payload)
                except BaseException:
                    if self._sending is message:
                        self._messages.appendleft(message)
                        self._message_bytes += len(message.payload)
                    raise
                finally:
                    self._sending = None
                if message.sent is not None:
                    message.sent()
            elif self._frames:
                frame = self._frames.popleft()
                self._frame_bytes -= frame.size
                # Settled before the wait: an interruption during it cannot take it back.
                frame.settled(True)
                await send(frame.encode())
            else:
                self._empty.set()
                self._wake.clear()
                await self._wake.wait()

    async def flushed(self) -> None:
        """Wait until everything queued was given to the socket."""
        await self._empty.wait()

    def _notify(self) -> None:
        self._empty.clear()
        self._wake.set()
