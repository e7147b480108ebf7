"""One response of the upstream on its way to the client.

The upstream is faster than the client plays. Parts wait here, so that the connection is always read
and an interruption is noticed: audio up to `MAX_WAITING_S`, then the response fails.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from wsavatar.dialogue.base import Response, Samples
from wsavatar.dialogue.trace import TurnTrace
from wsavatar.protocol.events import CancelReason

from .user_audio import RATE

__all__ = [
    "MAX_PARTS",
    "MAX_WAITING_S",
    "Call",
    "Cancelled",
    "Cut",
    "Done",
    "Failed",
    "Item",
    "Speech",
]

_log = logging.getLogger(__name__)

MAX_WAITING_S = 600.0
MAX_PARTS = 65_536
"""Parts that wait, whatever they are."""
_STALLED_S = 30.0
"""Longest time between two parts of a response."""


@dataclass(frozen=True, slots=True)
class Item:
    """What follows belongs to this item."""

    item_id: str


@dataclass(frozen=True, slots=True)
class Call:
    """More of the arguments of a function's call."""

    call_id: str
    name: str
    delta: str


@dataclass(frozen=True, slots=True)
class Done:
    incomplete: Literal["max_output_tokens", "content_filter"] | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The upstream ended it."""

    reason: CancelReason | None


@dataclass(frozen=True, slots=True)
class Cut:
    """An item that the user has not heard to its end."""

    item_id: str
    content_index: int
    heard_ms: int


@dataclass(slots=True)
class _Spoken:
    """The audio of one item so far; ``start_ms``: where it begins in the response's."""

    item_id: str
    content_index: int
    start_ms: float
    ms: float = 0.0
    heard_ms: int | None = None


Part = Item | Samples | str | Call | Done | Failed | Cancelled


class Speech:
    """`put` never waits; `run` gives the parts to the response. ``id``: the response's."""

    def __init__(self, response_id: str, max_s: float, *, stalled_s: float = _STALLED_S) -> None:
        self.id = response_id
        self.response: Response | None = None
        self.in_conversation = True
        self.ended = False
        """The upstream has said all of it, or nobody wants more."""
        self.stopped = False
        """The client wants no more of it."""
        self.trace: TurnTrace | None = None
        self._max_samples = int(min(max_s, MAX_WAITING_S) * RATE)
        self._stalled_s = stalled_s
        self._waiting: deque[Part] = deque()
        self._arrived = asyncio.Event()
        self._samples = 0
        self._spoken: list[_Spoken] = []
        self._given_up: Callable[[], None] = lambda: None

    def put(self, part: Part) -> None:
        """Add a part. What comes after the end is dropped."""
        if self.ended:
            return
        if isinstance(part, Done | Failed | Cancelled):
            self.ended = True
            if isinstance(part, Cancelled):
                self._waiting.clear()
        elif len(self._waiting) >= MAX_PARTS:
            part = self._give_up("The upstream sends more than can wait for the client.")
        self._add(part)

    def stop(self) -> None:
        """The client wants no more of it."""
        self.ended = self.stopped = True
        self._waiting.clear()
        self._add(Cancelled(None))

    def audio(self, item_id: str, content_index: int, samples: Samples) -> None:
        """Add audio of an item: float32 mono at 24 kHz."""
        if self.trace is not None:
            self.trace.mark("first_sound")
        room = self._max_samples - self._samples
        if not self._spoken or self._spoken[-1].item_id != item_id:
            self._spoken.append(_Spoken(item_id, content_index, 1000 * self._samples / RATE))
        self._spoken[-1].ms += 1000 * len(samples) / RATE
        self._samples += len(samples)
        if room > 0:
            self.put(samples[:room])
        if len(samples) > room and not self.ended:
            max_s = self._max_samples / RATE
            self._add(self._give_up(f"Cut off: a response may last {max_s:g} s."))

    def cuts(self, heard_ms: int, *, grows: bool = False) -> list[Cut]:
        """Items that end later than the user has heard; each is named again only if it is cut
        shorter. ``heard_ms``: a position of the response's audio; ``grows``: the upstream may have
        made more of the last item."""
        cuts = []
        for one in self._spoken:
            heard = min(max(0, heard_ms - round(one.start_ms)), int(one.ms))
            is_whole = heard == int(one.ms) and not (grows and one is self._spoken[-1])
            if is_whole or (one.heard_ms is not None and heard >= one.heard_ms):
                continue
            one.heard_ms = heard
            cuts.append(Cut(one.item_id, one.content_index, heard))
        return cuts

    async def run(
        self,
        begin: Callable[[], Response],
        given_up: Callable[[], None],
        quiet: Awaitable[None] | None = None,
    ) -> None:
        """Say it, to its end or until the response is over. The first step begins it, once all is
        ``quiet``. ``given_up``: the upstream is to stop."""
        self._given_up = given_up
        try:
            if quiet is not None:
                await quiet
            if self.stopped and self.response is None:
                return
            response = self.response or begin()
            self.response = response
            while not response.over:
                if await self._give(response, await self._next()):
                    return
        except Exception:  # the task's boundary
            _log.exception("response %s could not be said", self.id)
            if self.response is not None:
                await self.response.fail("internal_error", "The response could not be said.")

    def _add(self, part: Part) -> None:
        self._waiting.append(part)
        self._arrived.set()

    async def _next(self) -> Part:
        while not self._waiting:
            self._arrived.clear()
            try:
                async with asyncio.timeout(self._stalled_s):
                    await self._arrived.wait()
            except TimeoutError:
                why = f"The upstream sent no more of its answer for {self._stalled_s:g} s."
                return self._give_up(why, "upstream_timeout")
        return self._waiting.popleft()

    async def _give(self, response: Response, part: Part) -> bool:
        """Returns whether it was the last."""
        match part:
            case str():
                await response.text(part)
            case Item():
                response.next_item(part.item_id)
            case Call():
                await response.arguments(part.call_id, part.name, part.delta)
            case Done():
                await response.done(part.incomplete)
            case Failed():
                await response.fail(part.code, part.message)
            case Cancelled():
                response.cancel(part.reason)
            case _:
                await response.audio(part)
        return isinstance(part, Done | Failed | Cancelled)

    def _give_up(self, message: str, code: str = "response_too_long") -> Failed:
        self.ended = True
        self._given_up()
        return Failed(code, message)
