"""Bounded queue of a client's events, and of what else is handled in their order.

Full: `put` waits, so the connection stops reading and the client's sending is blocked. Nothing is
lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from wsavatar.protocol.events import AvatarSpeak, ClientEvent, ResponseCreate
from wsavatar.session.later_background import BackgroundFound

__all__ = ["MAX_EVENTS", "Inbox", "Pending"]

MAX_EVENTS = 16_384
"""Packets of 10 ms of everything that `max_buffer_s` allows, and more."""


@dataclass(slots=True, eq=False)
class Pending:
    """A queued event. ``size``: its bytes, or those of its audio."""

    event: ClientEvent | bytes | BackgroundFound
    size: int = 0
    revoked: bool = False
    """A cancel followed this request: its response is cancelled at its start."""
    done: bool = False
    """It is a cancel that was carried out on arrival."""


class Inbox:
    """A queue bounded by its bytes and by its number of events."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._pending: deque[Pending] = deque()
        self._size = 0
        self._changed = asyncio.Condition()

    @property
    def size(self) -> int:
        """Bytes of all that is queued."""
        return self._size

    @property
    def is_full(self) -> bool:
        """`put` waits."""
        return not self._has_space()

    async def put(self, pending: Pending) -> None:
        async with self._changed:
            await self._changed.wait_for(self._has_space)
            self._pending.append(pending)
            self._size += pending.size
            self._changed.notify_all()

    async def take(self) -> Pending:
        """The oldest event, once there is one."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._pending))
            pending = self._pending.popleft()
            self._size -= pending.size
            self._changed.notify_all()
            return pending

    def revoke_requests(self) -> int:
        """Revoke every queued request for a response; returns their number."""
        waiting = [
            one
            for one in self._pending
            if isinstance(one.event, ResponseCreate | AvatarSpeak) and not one.revoked
        ]
        for one in waiting:
            one.revoked = True
        return len(waiting)

    def _has_space(self) -> bool:
        return self._size < self._max_size and len(self._pending) < MAX_EVENTS
