"""Connects a session to a WebSocket: passes messages in, and sends the outbox.

It knows the end, the timeout and the failures of a socket, not the content of messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from websockets.exceptions import ConnectionClosed, ConnectionClosedOK

from wsavatar.errors import WsavatarError
from wsavatar.session.session import Session

__all__ = ["Goodbye", "Socket", "carry", "flush"]

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
    """How the socket is to be closed. ``code`` None: the client has closed it already.

    ``is_lost``: the connection broke, and the client may want to go on.
    """

    code: int | None
    reason: str = ""
    is_lost: bool = False


async def carry(socket: Socket, session: Session, *, idle_timeout_s: float) -> Goodbye:
    """Attach a socket to a running session until the socket ends; the session goes on."""
    goodbye = Goodbye(None)
    try:
        async with asyncio.TaskGroup() as tasks:
            workers = [
                tasks.create_task(session.outbox.run(socket.send), name=f"{session.id} sender"),
                tasks.create_task(_keep_alive(socket, session), name=f"{session.id} keepalive"),
            ]
            goodbye = await _read(socket, session, idle_timeout_s)
            await _flushed(session)
            for worker in workers:
                worker.cancel()
    except* ConnectionClosed as group:
        left = any(isinstance(error, ConnectionClosedOK) for error in group.exceptions)
        goodbye = Goodbye(None, is_lost=not left)
    except* PeerLost:
        goodbye = Goodbye(1011, "no answer to a ping", is_lost=True)
    return goodbye


async def _read(socket: Socket, session: Session, idle_timeout_s: float) -> Goodbye:
    """Read until nothing was received for the idle timeout, and the client awaits nothing."""
    while True:
        try:
            async with asyncio.timeout(idle_timeout_s):
                message = await socket.recv()
        except TimeoutError:
            if session.playing or session.makes_videos:
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


async def flush(socket: Socket, session: Session) -> None:
    """Send queued messages without reading."""
    sender = asyncio.create_task(session.outbox.run(socket.send), name=f"{session.id} sender")
    await _flushed(session)
    sender.cancel()
    await asyncio.wait([sender])
