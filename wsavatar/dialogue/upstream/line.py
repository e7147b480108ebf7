"""One connection to the upstream: events out and in, and its end in words.

Uses `websockets`, which the server has anyway: the `openai` package would bring an older release of
it, and neither bounds on messages nor a queue that does not wait. Knows no event's meaning.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from wsavatar import __version__

from .address import Address
from .errors import UpstreamError

__all__ = ["MAX_MESSAGE_BYTES", "MAX_WAITING_BYTES", "Line", "connected"]

_log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Largest message that is read: four minutes of audio. One above ends the connection."""
MAX_WAITING_BYTES = 32 * 1024 * 1024
"""Events and audio that wait for the upstream. Full: the connection ends, as if it were lost."""
_ROOM_BYTES = 1024 * 1024
"""Above it, the user's audio waits, and so does who sends it."""
_SEND_S = 10.0
"""An upstream that takes nothing for so long is gone."""
_CLOSE_S = 1.0


class _Connect(connect):
    """Follows no redirect: the headers have a key that is meant for one host."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class Line:
    """`send` never waits; `events` ends with UpstreamError."""

    def __init__(self, socket: ClientConnection, address: Address) -> None:
        self._socket = socket
        self._address = address
        self._waiting: deque[str] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._failure: UpstreamError | None = None

    def send(self, event: dict[str, Any]) -> None:
        """Queue an event. After the connection's end it is dropped."""
        text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
        if self._failure is not None:
            return
        if self._bytes + len(text) > MAX_WAITING_BYTES:
            self._fail("upstream_lost", "does not take what it is sent.")
            return
        self._waiting.append(text)
        self._bytes += len(text)
        if self._bytes > _ROOM_BYTES:
            self._room.clear()
        self._changed.set()

    async def room(self) -> None:
        """Wait while much is queued; not longer than the connection lasts."""
        await self._room.wait()

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """What the upstream sends, without what is no event. Raises UpstreamError at the end."""
        while True:
            try:
                message = await self._socket.recv()
            except ConnectionClosed as error:
                raise self._ended(error) from error
            event = _event(message)
            if event is None:
                _log.debug("%s sent what is no event", self._address.place)
            else:
                yield event

    async def run(self) -> None:
        """Send the queue, until cancelled or the connection ends."""
        try:
            while True:
                while self._waiting:
                    text = self._waiting.popleft()
                    async with asyncio.timeout(_SEND_S):
                        await self._socket.send(text)
                    self._bytes -= len(text)
                    if self._bytes <= _ROOM_BYTES:
                        self._room.set()
                self._changed.clear()
                await self._changed.wait()
        except TimeoutError:
            self._fail("upstream_lost", f"took nothing for {_SEND_S:g} s.")
        except ConnectionClosed:
            pass  # `events` says why
        finally:
            self._room.set()

    def _fail(self, code: str, what: str) -> None:
        self._failure = UpstreamError(code, f"The upstream {self._address.place} {what}")
        self._waiting.clear()
        self._room.set()
        self._socket.transport.abort()

    def _ended(self, error: ConnectionClosed) -> UpstreamError:
        if self._failure is not None:
            return self._failure
        place, received = self._address.place, error.rcvd
        if received is None and error.sent is not None and error.sent.code == 1009:
            reason = f"sent a message of more than {MAX_MESSAGE_BYTES >> 20} MiB"
        elif received is None:
            reason = "is gone"
        else:
            said = self._address.without_secrets(received.reason)[:200]
            reason = f"ended the connection ({received.code}{': ' if said else ''}{said})"
        return UpstreamError("upstream_lost", f"The upstream {place} {reason}.")


@contextlib.asynccontextmanager
async def connected(address: Address, timeout_s: float) -> AsyncIterator[Line]:
    """A connection, while the block lasts. Raises UpstreamError if there is none in time."""
    socket = await _open(address, timeout_s)
    line = Line(socket, address)
    sender = asyncio.create_task(line.run(), name="upstream sender")
    try:
        yield line
    finally:
        sender.cancel()
        await asyncio.wait([sender])
        await socket.close()


async def _open(address: Address, timeout_s: float) -> ClientConnection:
    place = address.place
    try:
        async with asyncio.timeout(timeout_s):
            return await _Connect(
                address.url,
                additional_headers=address.headers,
                user_agent_header=f"wsavatar/{__version__}",
                compression=None,
                max_size=MAX_MESSAGE_BYTES,
                open_timeout=None,
                close_timeout=_CLOSE_S,
            )
    except TimeoutError:
        raise UpstreamError(
            "upstream_timeout", f"The upstream {place} did not answer in {timeout_s:g} s."
        ) from None
    except InvalidStatus as error:
        raise _refused(place, error.response.status_code) from None
    except (OSError, WebSocketException, ImportError, ValueError) as error:
        # The reason names hosts and ports; an exception's text may have the whole address in it.
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UpstreamError(
            "upstream_unreachable",
            f"The upstream {place} cannot be reached: {reason}. Check upstream.url and the "
            "network.",
        ) from None


def _refused(place: str, status: int) -> UpstreamError:
    if status in (401, 403):
        return UpstreamError(
            "upstream_unauthorized",
            f"The upstream {place} refuses the key (HTTP {status}): check upstream.api_key or "
            "OPENAI_API_KEY.",
            lasting=True,
        )
    if status == 429:
        reason = "has too many sessions, or no credit (HTTP 429)."
    elif status >= 500:
        reason = f"has a problem of its own (HTTP {status})."
    else:
        return UpstreamError(
            "upstream_unreachable",
            f"The upstream {place} takes no WebSocket there (HTTP {status}): check upstream.url "
            "and upstream.model.",
            lasting=True,
        )
    return UpstreamError("upstream_unreachable", f"The upstream {place} {reason}")


def _event(message: str | bytes) -> dict[str, Any] | None:
    """The event in a message; None: there is none."""
    if isinstance(message, bytes):
        return None
    try:
        event = json.loads(message)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("type"), str) else None
