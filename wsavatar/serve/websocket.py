"""Connects a session to a WebSocket: passes messages in, and sends the outbox.

It knows the end, the timeout and the failures of a socket, not the content of messages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from websockets.exceptions import ConnectionClosed

from wsavatar.errors import WsavatarError
from wsavatar.protocol.events import ProtocolError
from wsavatar.session.outbox import OutboxOverflow
from wsavatar.session.session import Session

__all__ = ["Goodbye", "Socket", "carry", "hold"]

_log = logging.getLogger(__name__)

_FLUSH_S = 1.0
PING_INTERVAL_S = 20.0
PING_TIMEOUT_S = 20.0


class PeerLost(WsavatarError):
    """The peer does not answer any more."""


class Socket(Protocol):
    """The part of a WebSocket connection that is used."""

    async def recv(self) -> str | bytes: ...

    async def send(self, message: str | bytes) -> None: ...

    async def ping(self) -> Awaitable[float]:
        """Returns what is done once the peer has answered."""


@dataclass(frozen=True, slots=True)
class Goodbye:
    """How the socket is to be closed. ``code`` None: the client has closed it already."""

    code: int | None
    reason: str = ""


async def hold(socket: Socket, session: Session, *, idle_timeout_s: float) -> Goodbye:
    """Start a session, connect it to the socket until that ends, and close the session."""
    goodbye = Goodbye(1011, "internal error")
    try:
        async with asyncio.TaskGroup() as tasks:
            try:
                await session.start()
            except ProtocolError as error:  # no such avatar or mode
                session.refuse(error)
                goodbye = Goodbye(1008, error.message)
                await _flush(socket, session)
            else:
                running = tasks.create_task(session.run(), name=f"{session.id} events")
                goodbye = await carry(socket, session, idle_timeout_s=idle_timeout_s)
                running.cancel()
    except* ConnectionClosed:
        goodbye = Goodbye(None)
    except* Exception:
        goodbye = Goodbye(1011, "internal error")
        _log.exception("%s: crashed", session.id)
    finally:
        await session.close()
    return goodbye


async def carry(socket: Socket, session: Session, *, idle_timeout_s: float) -> Goodbye:
    """Attach a socket to a running session until the socket ends; the session goes on."""
    goodbye = Goodbye(None)
    try:
        async with asyncio.TaskGroup() as tasks:
            workers = [
                tasks.create_task(session.outbox.run(socket.send), name=f"{session.id} sender"),
                tasks.create_task(session.overflowed(), name=f"{session.id} overflow"),
                tasks.create_task(_keep_alive(socket, session), name=f"{session.id} keepalive"),
            ]
            goodbye = await _read(socket, session, idle_timeout_s)
            await _flushed(session)
            for worker in workers:
                worker.cancel()
    except* ConnectionClosed:
        goodbye = Goodbye(None)
    except* PeerLost:
        goodbye = Goodbye(1011, "no answer to a ping")
    except* OutboxOverflow as group:
        goodbye = Goodbye(1008, "the client does not read")
        _log.warning("%s: %s", session.id, group.exceptions[0])
    return goodbye


async def _read(socket: Socket, session: Session, idle_timeout_s: float) -> Goodbye:
    """Read until nothing was received for the idle timeout while the avatar is silent."""
    while True:
        try:
            async with asyncio.timeout(idle_timeout_s):
                message = await socket.recv()
        except TimeoutError:
            if session.playing:
                continue
            return Goodbye(1000, f"idle: nothing was received for {idle_timeout_s:g} s")
        await session.receive(message)


async def _keep_alive(socket: Socket, session: Session) -> None:
    """Raises PeerLost where a ping is not answered.

    While the session takes no more, nothing is read, and an answer may wait behind the audio that
    the peer has sent: then its silence means nothing.
    """
    while True:
        await asyncio.sleep(PING_INTERVAL_S)
        answer = asyncio.ensure_future(await socket.ping())
        while not answer.done():
            took_all = not session.is_full
            await asyncio.wait([answer], timeout=PING_TIMEOUT_S)
            if not answer.done() and took_all and not session.is_full:
                raise PeerLost


async def _flushed(session: Session) -> None:
    try:
        async with asyncio.timeout(_FLUSH_S):
            await session.outbox.flushed()
    except TimeoutError:
        pass  # the socket is being closed; a slow client loses the rest


async def _flush(socket: Socket, session: Session) -> None:
    """Send queued messages without reading."""
    sender = asyncio.create_task(session.outbox.run(socket.send), name=f"{session.id} sender")
    await _flushed(session)
    sender.cancel()
    await asyncio.wait([sender])
