"""The WebSocket to the avatar's server: connects, and connects again; messages in, messages out.

Does not know what messages mean.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import ssl
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from wsavatar.protocol.binary import BinaryError, BinaryMessage, unpack

__all__ = ["Connection", "Message"]

_log = logging.getLogger(__name__)

FIRST_DELAY_S = 0.25
MAX_DELAY_S = 8.0
OPEN_TIMEOUT_S = 10.0

Message = dict[str, Any] | BinaryMessage


class Connection:
    """Keeps a session open. `run` it in a task; cancel that to close.

    ``on_message`` gets every message, ``on_lost`` is called when an open connection ends. A new
    connection is a new session, whose first event is ``session.created``.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        tls: ssl.SSLContext | None,
        on_message: Callable[[Message], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._tls = tls
        self._on_message = on_message
        self._on_lost = on_lost
        self._socket: ClientConnection | None = None
        self.problem = "not connected yet"
        """Why there is no connection; empty while there is one."""

    async def run(self) -> None:
        """Connect, and again whenever the connection is lost, until cancelled."""
        delay_s = FIRST_DELAY_S
        while True:
            try:
                async with connect(
                    self._url,
                    additional_headers=self._headers,
                    ssl=self._tls,
                    compression=None,  # JPEG does not compress
                    max_size=None,
                    open_timeout=OPEN_TIMEOUT_S,
                ) as self._socket:
                    self.problem = ""
                    if await self._listen(self._socket):
                        delay_s = FIRST_DELAY_S
                self._tell(f"closed: {self._socket.close_code} {self._socket.close_reason}")
            except (OSError, TimeoutError, WebSocketException) as error:
                self._tell(str(error) or type(error).__name__)
            finally:
                was_open, self._socket = self._socket is not None, None
                if was_open:
                    self._on_lost()
            await asyncio.sleep(delay_s * random.uniform(0.75, 1.25))
            delay_s = min(MAX_DELAY_S, 2 * delay_s)

    async def send(self, message: bytes | dict[str, Any]) -> None:
        """Send audio or an event. Without a connection it is dropped: `on_lost` was called."""
        if self._socket is None:
            return
        try:
            await self._socket.send(message if isinstance(message, bytes) else json.dumps(message))
        except ConnectionClosed:
            pass  # `run` connects again

    async def _listen(self, socket: ClientConnection) -> bool:
        """Hand on messages. Returns whether there were any before the connection was closed."""
        answered = False
        async for data in socket:
            try:
                message = unpack(data) if isinstance(data, bytes) else json.loads(data)
            except (BinaryError, ValueError) as error:
                _log.warning("a message of the avatar's server was left out: %s", error)
                continue
            answered = True
            self._on_message(message)
        return answered

    def _tell(self, problem: str) -> None:
        if problem != self.problem:
            _log.warning("no connection to the avatar's server %s: %s", self._url, problem)
        self.problem = problem
