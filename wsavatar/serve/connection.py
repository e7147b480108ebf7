"""The server's side of one TCP connection: every request gets an answer, refused ones too.

The websockets library reads GET without a body. It answers a request that is too long, and closes
on any other that it cannot read (a POST with a body, TLS on a port without it, noise) without a
word. This module finds those and answers them. It knows nothing of paths or sessions.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Response
from websockets.server import ServerProtocol

__all__ = ["SERVER_HEADER", "HttpConnection", "RequestCheck"]

SERVER_HEADER = "wsavatar"
_REQUEST_LINE = re.compile(rb"([A-Za-z]{1,32}) [^ ]+ HTTP/([0-9])(?:\.[0-9])?")
_BODY = re.compile(rb"^(?:transfer-encoding|content-length)[ \t]*:", re.IGNORECASE | re.MULTILINE)


class RequestCheck:
    """Checks a request while it arrives, with another protocol object, and finds what is wrong.

    Holds at most what the library takes as a request's head (128 lines of 8 KiB).
    """

    def __init__(self) -> None:
        self._protocol = ServerProtocol()
        self._head = bytearray()
        self.done = False
        """The request was read, or refused: nothing more is to be checked."""

    def refusal(self, data: bytes) -> tuple[HTTPStatus, str] | None:
        """Status and sentence for a request that the library would drop in silence, or None."""
        self._head += data
        if self._head and not self._head[:1].isalpha():
            # No request begins so. Without a line's end the library would wait for more of it.
            return self._refuse(HTTPStatus.BAD_REQUEST, _NOT_HTTP)
        self._protocol.receive_data(data)
        if self._protocol.events_received():
            self.done = True
        elif self._protocol.handshake_exc is not None:
            if any(self._protocol.data_to_send()):  # it has an answer: the line is too long
                self.done = True
            else:
                return self._refuse(*_explain(bytes(self._head)))
        return None

    def _refuse(self, status: HTTPStatus, sentence: str) -> tuple[HTTPStatus, str]:
        self.done = True
        return status, sentence


class HttpConnection(ServerConnection):
    """A connection that answers what it refuses. Pass it to `serve` as ``create_connection``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._check = RequestCheck()

    def data_received(self, data: bytes) -> None:
        if not self._check.done and (refusal := self._check.refusal(data)) is not None:
            self.protocol.send_response(self._response(*refusal))
            data = b""  # the protocol now discards what still comes, and sends the response
        super().data_received(data)

    def _response(self, status: HTTPStatus, sentence: str) -> Response:
        response = self.protocol.reject(status, f"{sentence}\n")
        response.headers["Server"] = SERVER_HEADER
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            response.headers["Allow"] = "GET, HEAD, OPTIONS"
        return response


_NOT_HTTP = "This is not an HTTP/1.1 request. TLS on a port without TLS looks like this, too."


def _explain(head: bytes) -> tuple[HTTPStatus, str]:
    """Status and explanation for a request that cannot be read."""
    lines = head.partition(b"\n")
    match = _REQUEST_LINE.fullmatch(lines[0].rstrip(b"\r"))
    if match is None:
        return HTTPStatus.BAD_REQUEST, "The first line is no HTTP request line."
    method = match[1].decode()
    if match[2] != b"1":
        return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "Use HTTP/1.1."
    if method not in ("GET", "HEAD", "OPTIONS"):
        return HTTPStatus.METHOD_NOT_ALLOWED, f"{method} is not allowed; use GET."
    if _BODY.search(lines[2]):
        return HTTPStatus.NOT_IMPLEMENTED, f"A body with {method} is not supported; leave it out."
    return (
        HTTPStatus.BAD_REQUEST,
        "The path or a header line cannot be read: write name: value, in ASCII; lines end in CRLF.",
    )
