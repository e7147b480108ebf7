"""A background that a client has asked for, and that its avatar cannot have at once.

First the person is looked for in all of the avatar's pictures. The session goes on meanwhile, with
the background that it has, or the avatar's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from wsavatar.avatars.background import ORIGINAL
from wsavatar.protocol.events import ProtocolError
from wsavatar.session.engine import AvatarInfo
from wsavatar.session.selection import Selection

__all__ = ["BackgroundFound", "LaterBackground"]


@dataclass(frozen=True, slots=True)
class BackgroundFound:
    """The background of this name is at hand now."""

    name: str


class LaterBackground:
    """Of one session; `close` it once. ``found`` takes what is to be handled in the events' order;
    ``refused`` why there will be no such background."""

    def __init__(
        self,
        selection: Selection,
        found: Callable[[BackgroundFound], Awaitable[None]],
        refused: Callable[[ProtocolError], None],
    ) -> None:
        self._selection = selection
        self._found = found
        self._refused = refused
        self.name = ""
        """What is waited for; empty: nothing."""
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def until_then(
        self, avatar_id: str, name: str, shown: AvatarInfo, event_id: str | None
    ) -> str:
        """The background to show now: that of this name, if the avatar can have it at once.

        ``shown``: the avatar before the background that is shown. Raises ProtocolError.
        """
        self.forget()
        if await self._selection.is_at_hand(avatar_id, name):
            return name
        self.name = name
        work = self._find(avatar_id, name, event_id)
        self._task = asyncio.create_task(work, name=f"find the person of {avatar_id}")
        self._tasks.add(self._task)
        self._task.add_done_callback(self._tasks.discard)
        return shown.background if avatar_id == shown.id else ORIGINAL

    def forget(self) -> None:
        """Nothing is waited for any more; what was begun for it is kept for the next who asks."""
        self.name = ""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def close(self) -> None:
        self.forget()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _find(self, avatar_id: str, name: str, event_id: str | None) -> None:
        try:
            await self._selection.avatar(avatar_id, background=name)
        except ProtocolError as error:
            self.name = ""
            error.event_id = event_id
            self._refused(error)
        else:
            await self._found(BackgroundFound(name))
