"""The connection to the upstream, made again when it ends. Knows what was sent, for errors."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from wsavatar.config import UpstreamSettings
from wsavatar.protocol.events import new_id

from .address import Address, address_of
from .errors import UpstreamError
from .line import Line, connected

__all__ = ["Connection", "Listener", "Purpose", "Sent"]

_log = logging.getLogger(__name__)

Json = dict[str, Any]
Purpose = Literal["setup", "configure", "respond", "commit", "item", "own"]
"""What an event was for. ``setup``: a new connection's configuration; ``own``: no client's wish."""

_DELAYS_S = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Before each new attempt; the last one again and again."""
_MAX_SENT = 512
"""Events whose refusal is still understood."""


@dataclass(frozen=True, slots=True)
class Sent:
    """An event of ours. ``event_id``: of the client's event that it is for."""

    purpose: Purpose
    event_id: str | None


class Listener(Protocol):
    """Who uses the connection. No method waits."""

    def opened(self) -> None:
        """There is a connection: send what it has to begin with."""

    def received(self, event: Json) -> None: ...

    def lost(self, error: UpstreamError, *, was_ready: bool) -> None:
        """There is none any more, or an attempt to make one failed."""


class Connection:
    """Call `start` once, and `close`."""

    def __init__(
        self,
        settings: UpstreamSettings,
        listener: Listener,
        *,
        delay: Callable[[int], float] | None = None,
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._delay = delay or _delay_s
        self._line: Line | None = None
        self._address: Address | None = None
        self._starting: asyncio.Future[None] | None = None
        self._ready = False
        self._wanted = asyncio.Event()
        self._sent: OrderedDict[str, Sent] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self.problem: UpstreamError | None = None
        """Why there is no connection."""
        self.last_words: UpstreamError | None = None
        """What the upstream says is wrong before it is ready: then it often hangs up."""

    @property
    def is_open(self) -> bool:
        return self._line is not None

    @property
    def is_ready(self) -> bool:
        """Whether the upstream has taken the configuration."""
        return self._ready

    async def start(self) -> None:
        """Connect. Raises UpstreamError; except for a missing setting, it is tried again later."""
        try:
            self._address = address_of(self._settings, os.environ)
        except UpstreamError as error:
            self.problem = error
            raise
        self._task = asyncio.create_task(self._run(self._address), name="upstream")
        self._starting = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(2 * self._settings.timeout_s):
                await self._starting
        except TimeoutError:
            raise UpstreamError(
                "upstream_timeout",
                f"The upstream {self._address.place} does not begin a session.",
            ) from None
        finally:
            self._starting = None

    def ready(self, problem: UpstreamError | None = None) -> bool:
        """The upstream has answered the configuration. ``problem``: it refused it.

        Returns whether `start` tells of it.
        """
        self._ready = True
        self.problem = self.last_words = None
        return self._started(problem)

    def send(
        self, event: Json, purpose: Purpose | None = None, event_id: str | None = None
    ) -> None:
        """Queue an event; without a connection it is dropped. ``purpose`` None: audio, of which no
        event is refused alone. ``event_id``: of the client's event that it is for."""
        if self._line is None:
            return
        if purpose is not None:
            own_id = new_id("event")
            event = {**event, "event_id": own_id}
            self._sent[own_id] = Sent(purpose, event_id)
            if len(self._sent) > _MAX_SENT:
                self._sent.popitem(last=False)
        self._line.send(event)

    def sent(self, event_id: object) -> Sent | None:
        """The event of ours that an error names."""
        return self._sent.pop(event_id, None) if isinstance(event_id, str) else None

    async def room(self) -> None:
        """Wait while the upstream has much to take."""
        if self._line is not None:
            await self._line.room()

    def wake(self) -> None:
        """The connection is wanted now: do not wait for the next attempt."""
        self._wanted.set()

    def without_secrets(self, text: str) -> str:
        return self._address.without_secrets(text) if self._address is not None else text

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _started(self, problem: UpstreamError | None) -> bool:
        if self._starting is None or self._starting.done():
            return False
        if problem is None:
            self._starting.set_result(None)
        else:
            self._starting.set_exception(problem)
        return True

    async def _run(self, address: Address) -> None:
        attempt = 0
        while True:
            self._wanted.clear()
            ended = await self._use(address)
            was_ready, self._ready = self._ready, False
            self.problem = problem = self.last_words or ended
            level = logging.INFO if was_ready else logging.WARNING
            _log.log(level, "upstream %s: %s", address.place, problem.code)
            self._started(problem)
            self._listener.lost(problem, was_ready=was_ready)
            attempt = 0 if was_ready else attempt + 1
            await self._pause(attempt, lasting=problem.lasting)

    async def _use(self, address: Address) -> UpstreamError:
        """Connect, and pass on what comes; returns why it ended."""
        self.last_words = None
        try:
            async with connected(address, self._settings.timeout_s) as line:
                self._line = line
                _log.info("upstream %s: connected", address.place)
                self._listener.opened()
                async for event in line.events():
                    self._listener.received(event)
                    await asyncio.sleep(0)  # a burst of audio leaves turns to others
        except UpstreamError as error:
            return error
        except Exception as error:  # the task's boundary; its text may have what somebody said
            _log.error("upstream %s: %s", address.place, type(error).__name__)
            _log.debug("upstream %s", address.place, exc_info=True)
            return UpstreamError("internal_error", "The upstream's events could not be handled.")
        finally:
            self._line = None
            self._sent.clear()
        raise AssertionError("a connection ends with an error")

    async def _pause(self, attempt: int, *, lasting: bool) -> None:
        """Wait for the next attempt: until it is wanted, or, unless the problem is ``lasting``, for
        the delay; never shorter than the first one, however often a client asks."""
        least_s, most_s = self._delay(min(attempt, 1)), self._delay(attempt)
        await asyncio.sleep(min(least_s, most_s))
        try:
            async with asyncio.timeout(None if lasting else max(0.0, most_s - least_s)):
                await self._wanted.wait()
        except TimeoutError:
            pass


def _delay_s(attempt: int) -> float:
    """Spread, so that not all sessions come back at once."""
    return _DELAYS_S[min(attempt, len(_DELAYS_S) - 1)] * random.uniform(0.8, 1.2)
