"""What was given to a client's socket and may not have arrived, for its next connection.

Messages are numbered as they are given to the socket, from 1. A client counts the messages that it
gets; its next connection says how many, and the rest is sent again, with the numbers that follow.
Pure. Knows neither sockets nor what a message says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from wsavatar.errors import WsavatarError

__all__ = ["FRAME_BYTES", "KEPT_S", "MESSAGE_BYTES", "Replay", "ReplayError"]

MESSAGE_BYTES = 8 * 1024 * 1024
"""Of events and audio that are kept. Full: the oldest are forgotten."""
FRAME_BYTES = 4 * 1024 * 1024
"""Of frames that are kept. Full: the oldest are not sent again."""
KEPT_S = 60.0
"""Longer than it takes to notice that a client does not answer. What is older is forgotten."""

_OVERHEAD_BYTES = 200  # of an entry, so that many small ones are bounded too

Item = TypeVar("Item")


class ReplayError(WsavatarError):
    """The rest cannot be sent again. ``is_lost``: it was forgotten; else the number is wrong."""

    def __init__(self, message: str, *, is_lost: bool) -> None:
        super().__init__(message)
        self.is_lost = is_lost


@dataclass(slots=True)
class _Sent(Generic[Item]):
    item: Item | None
    """None: it has a number and is not sent again."""
    size: int
    is_frame: bool
    at_s: float


class Replay(Generic[Item]):
    """The newest messages. Until `keep` is called they are only counted."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._keeps = False
        self._forgotten = 0  # messages before the first kept one
        self._kept: deque[_Sent[Item]] = deque()
        self._frames: deque[_Sent[Item]] = deque()  # of the kept ones, those with a frame
        self._message_bytes = self._frame_bytes = 0

    @property
    def count(self) -> int:
        """Messages that were given to a socket so far."""
        return self._forgotten + len(self._kept)

    def keep(self) -> None:
        """Keep what is sent from now on."""
        self._keeps = True

    def add(self, item: Item | None, size: int = 0, *, is_frame: bool = False) -> None:
        """A message is given to the socket. ``item`` None: it is not to be sent again."""
        if not self._keeps:
            self._forgotten += 1
            return
        taken = size + _OVERHEAD_BYTES if item is not None else 0
        sent = _Sent(item, taken, is_frame, self._clock())
        self._kept.append(sent)
        if is_frame:
            self._frames.append(sent)
            self._frame_bytes += sent.size
        else:
            self._message_bytes += sent.size
        self._trim()

    def discard(self, stale: Callable[[Item], bool]) -> None:
        """Do not send these again."""
        for sent in self._kept:
            if sent.item is not None and stale(sent.item):
                self._empty(sent)

    def check(self, received: int) -> None:
        """Raises ReplayError if what follows this many messages cannot be sent again."""
        self._trim()
        if not 0 <= received <= self.count:
            raise ReplayError(f"{self.count} messages were sent, not {received}", is_lost=False)
        if received < self._forgotten:
            missing = self._forgotten - received
            raise ReplayError(f"too much was missed: {missing} messages are gone", is_lost=True)

    def resume(self, received: int) -> tuple[list[Item], list[Item], int]:
        """Go on after this many messages: what arrived, what did not, and how many frames are not
        sent again. Nothing is kept then: what did not arrive gets new numbers. Raises ReplayError.
        """
        self.check(received)
        arrived_count = received - self._forgotten
        kept = list(self._kept)
        arrived = [one.item for one in kept[:arrived_count] if one.item is not None]
        missed = [one.item for one in kept[arrived_count:] if one.item is not None]
        gone = sum(one.is_frame and one.item is None for one in kept[arrived_count:])
        self._kept.clear()
        self._frames.clear()
        self._message_bytes = self._frame_bytes = 0
        self._forgotten = received
        return arrived, missed, gone

    def _trim(self) -> None:
        oldest_s = self._clock() - KEPT_S
        while self._frame_bytes > FRAME_BYTES:
            self._empty(self._frames.popleft())
        while self._kept and (self._message_bytes > MESSAGE_BYTES or self._kept[0].at_s < oldest_s):
            sent = self._kept.popleft()
            self._empty(sent)
            self._forgotten += 1
        while self._frames and self._frames[0].item is None:
            self._frames.popleft()

    def _empty(self, sent: _Sent[Item]) -> None:
        if sent.is_frame:
            self._frame_bytes -= sent.size
        else:
            self._message_bytes -= sent.size
        sent.item, sent.size = None, 0
