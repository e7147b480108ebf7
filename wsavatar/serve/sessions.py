"""The sessions of one server, and the sockets that carry them, one at a time each.

A session whose connection is lost waits for its client's next one. This module does not know what a
session says, nor who may connect.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator

from wsavatar.metrics import Metrics
from wsavatar.protocol.events import ProtocolError
from wsavatar.serve.websocket import Goodbye, Socket, carry, flush
from wsavatar.session.outbox import OutboxOverflow
from wsavatar.session.replay import ReplayError
from wsavatar.session.session import Session

__all__ = ["CANNOT_RESUME", "TAKEN_OVER", "LastingSession", "Sessions"]

_log = logging.getLogger(__name__)

TAKEN_OVER = 4000
"""Close code: another connection goes on with the session."""
CANNOT_RESUME = 4004
"""Close code: the session has ended, or too much was missed. The client begins a new one."""

_MAX_DIGITS = 15
_CRASHED = Goodbye(1011, "internal error")
_ENDED = Goodbye(CANNOT_RESUME, "the session has ended; begin a new one")


class _Carrier:
    """One socket's turn at a session."""

    def __init__(self) -> None:
        self.stopped: asyncio.Future[Goodbye] = asyncio.get_running_loop().create_future()
        self.gone = asyncio.Event()  # the session has no more to do with this socket
        self.is_lost = False  # the connection broke: the client may come back

    def stop(self, goodbye: Goodbye) -> None:
        if not self.stopped.done():
            self.stopped.set_result(goodbye)

    async def until_stopped(self, carrying: Coroutine[None, None, Goodbye], name: str) -> Goodbye:
        task = asyncio.create_task(carrying, name=name)
        try:
            await asyncio.wait({task, self.stopped}, return_when=asyncio.FIRST_COMPLETED)
            return self.stopped.result() if self.stopped.done() else task.result()
        finally:
            task.cancel()
            await asyncio.wait({task})


class LastingSession:
    """A session from its start to its end. `hold` it once; then `resume` over other sockets.

    It ends when its client leaves, or is lost and does not come back.
    """

    def __init__(
        self, session: Session, on_closed: Callable[[], None], *, idle_timeout_s: float
    ) -> None:
        self.session = session
        self._on_closed = on_closed
        self._idle_timeout_s = idle_timeout_s
        self._carrier: _Carrier | None = None
        self._came = asyncio.Event()  # a socket has come, or the session is to end
        self._ending: Goodbye | None = None
        self._closed = asyncio.Event()

    async def hold(self, socket: Socket) -> Goodbye:
        """Start the session and carry it; returns when this socket is to be closed."""
        try:
            await self.session.start()
        except ProtocolError as error:  # no such avatar or mode
            self.session.refuse(error)
            await flush(socket, self.session)
            await self._close()
            return Goodbye(1008, error.message)
        except Exception:
            _log.exception("%s: crashed", self.session.id)
            await self._close()
            return _CRASHED
        except BaseException:
            await self._close()
            raise
        self._life = asyncio.create_task(self._live(), name=f"{self.session.id} life")
        return await self._carry(socket)

    async def resume(self, socket: Socket, received: int) -> Goodbye:
        """Carry the session by this socket from now on; its client has so many messages."""
        try:
            self.session.outbox.replay.check(received)
            return await self._carry(socket, received)
        except ReplayError as error:
            goodbye = Goodbye(CANNOT_RESUME, f"{error}; begin a new session")
            if error.is_lost:
                self.end(goodbye)
            return goodbye

    @property
    def is_ending(self) -> bool:
        return self._ending is not None

    def end(self, goodbye: Goodbye) -> None:
        """End the session; its socket is to be closed so."""
        self._ending = self._ending or goodbye
        self._came.set()
        if self._carrier is not None:
            self._carrier.stop(self._ending)

    async def closed(self) -> None:
        """Wait for the session's end."""
        await self._closed.wait()

    async def _carry(self, socket: Socket, received: int | None = None) -> Goodbye:
        carrier = _Carrier()
        before, self._carrier = self._carrier, carrier
        self._came.set()
        goodbye = _CRASHED
        try:
            if before is not None:
                before.stop(Goodbye(TAKEN_OVER, "another connection goes on with the session"))
                await before.gone.wait()
            if self._ending is not None:
                return self._ending
            if carrier.stopped.done():  # a third socket has come
                return carrier.stopped.result()
            if received is not None:
                self.session.resume(received)
                _log.info("%s: resumed", self.session.id)
            carrying = carry(socket, self.session, idle_timeout_s=self._idle_timeout_s)
            goodbye = await carrier.until_stopped(carrying, f"{self.session.id} carry")
        except ReplayError:
            raise
        except Exception:
            _log.exception("%s: crashed", self.session.id)
        finally:
            carrier.is_lost = goodbye.is_lost and self.session.resumption.is_possible
            self.session.disconnected()
            if self._carrier is carrier and not carrier.is_lost:
                self._ending = self._ending or _ENDED
            carrier.gone.set()
        if self._ending is not None:
            await self.closed()
        return goodbye

    async def _live(self) -> None:
        """Run the session until it has ended, and close it."""
        goodbye = _ENDED
        try:
            async with asyncio.TaskGroup() as tasks:
                workers = [
                    tasks.create_task(self.session.run(), name=f"{self.session.id} events"),
                    tasks.create_task(
                        self.session.overflowed(), name=f"{self.session.id} overflow"
                    ),
                    tasks.create_task(
                        self.session.avatars.run(), name=f"{self.session.id} avatars"
                    ),
                ]
                await self._until_left()
                for worker in workers:
                    worker.cancel()
        except* OutboxOverflow as group:
            goodbye = Goodbye(1008, "the client does not read")
            _log.warning("%s: %s", self.session.id, group.exceptions[0])
        except* Exception:
            goodbye = _CRASHED
            _log.exception("%s: crashed", self.session.id)
        finally:
            self.end(goodbye)
            await self._close()

    async def _until_left(self) -> None:
        """Wait until the client has left, or is lost and does not come back in time."""
        while self._ending is None:
            carrier = self._carrier
            if carrier is None:  # the first one comes at once
                await self._came.wait()
                continue
            await carrier.gone.wait()
            if self._carrier is not carrier or self._ending is not None:
                continue
            wait_s = self.session.resumption.within_s
            _log.info("%s: connection lost, waits %g s", self.session.id, wait_s)
            self._came.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._came.wait()
            except TimeoutError:
                break
        self._ending = self._ending or _ENDED

    async def _close(self) -> None:
        await self.session.close()
        self._on_closed()
        self._closed.set()


class Sessions:
    """All sessions of one server: connected, and waiting for their client."""

    def __init__(self, idle_timeout_s: float, metrics: Metrics) -> None:
        self._idle_timeout_s = idle_timeout_s
        self._metrics = metrics
        self._open: dict[str, LastingSession] = {}  # by the secret that resumes them

    def __len__(self) -> int:
        """Sessions that have a place: not those that are about to end."""
        return sum(not lasting.is_ending for lasting in self._open.values())

    def __iter__(self) -> Iterator[Session]:
        return iter([lasting.session for lasting in self._open.values()])

    async def begin(self, socket: Socket, session: Session) -> Goodbye:
        """Hold a new session; returns how this socket is to be closed."""

        def closed() -> None:
            del self._open[session.resumption.token]
            self._tell(session, "closed")

        lasting = LastingSession(session, closed, idle_timeout_s=self._idle_timeout_s)
        self._open[session.resumption.token] = lasting
        self._metrics.sessions_total.inc()
        self._tell(session, "opened")
        return await lasting.hold(socket)

    async def resume(self, socket: Socket, token: str, received: str) -> Goodbye:
        """Go on with a session; returns how this socket is to be closed.

        ``received``: the number of messages that its client has, as the client wrote it.
        """
        lasting = self._open.get(token)
        if lasting is None or not lasting.session.resumption.is_possible:
            return _ENDED
        if not (received.isascii() and received.isdigit() and len(received) <= _MAX_DIGITS):
            return Goodbye(CANNOT_RESUME, "received must be the number of messages that you have")
        return await lasting.resume(socket, int(received))

    def end(self, goodbye: Goodbye) -> None:
        """End all sessions; their sockets are to be closed so."""
        for lasting in list(self._open.values()):
            lasting.end(goodbye)

    async def all_closed(self) -> None:
        """Wait until every session has ended."""
        for lasting in list(self._open.values()):
            await lasting.closed()

    def _tell(self, session: Session, what: str) -> None:
        self._metrics.sessions.set(len(self))
        _log.info("%s: %s, %d open", session.id, what, len(self))
