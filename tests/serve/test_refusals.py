"""Refused requests over a real socket: each gets an explanation, and other clients go on."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator

import pytest

from tests.helpers import fake_engine, running, served_well
from wsavatar.serve.connection import RequestCheck
from wsavatar.serve.server import AvatarServer

REFUSED: dict[str, tuple[bytes, int, str]] = {
    "a body": (
        b"POST /v1/realtime HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
        405,
        "POST is not allowed",
    ),
    "a body in chunks": (
        b"PUT /api/avatars HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        405,
        "PUT is not allowed",
    ),
    "a long body": (
        b"POST /x HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000),
        405,
        "POST is not allowed",
    ),
    "no body, no upgrade": (b"POST /v1/realtime HTTP/1.1\r\n\r\n", 405, "POST is not allowed"),
    "an unknown method": (b"BREW /pot HTTP/1.1\r\n\r\n", 405, "BREW is not allowed"),
    "a body with GET": (
        b"GET /healthz HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}",
        501,
        "body with GET is not supported",
    ),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "Use HTTP/1.1"),
    "HTTP/1.0 for a WebSocket": (
        b"GET /v1/realtime HTTP/1.0\r\nUpgrade: websocket\r\n\r\n",
        505,
        "HTTP/1.0",
    ),
    "HTTP/0.9": (b"GET /\r\n", 400, "no HTTP request line"),
    "a header without a colon": (
        b"GET / HTTP/1.1\r\nnonsense\r\n\r\n",
        400,
        "header line cannot be read",
    ),
    "lines that end in LF": (b"GET / HTTP/1.1\nHost: x\n\n", 400, "end in CRLF"),
    "a path that is not ASCII": (b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n", 400, "The path"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01" + bytes(512), 400, "TLS on a port without TLS"),
    "noise": (bytes(range(128, 256)) * 8, 400, "not an HTTP/1.1 request"),
    "a long path": (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", 414, "8192 bytes"),
    "a long header": (b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 431, "8192 bytes"),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 200 + b"\r\n", 431, "128 headers"),
}


@pytest.fixture
async def server() -> AsyncIterator[AvatarServer]:
    async with running(fake_engine()) as started:
        yield started


async def exchange(server: AvatarServer, request: bytes) -> tuple[int, str]:
    """Status and body of the answer to these bytes; the server then closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body.decode()


@pytest.mark.parametrize("name", REFUSED)
async def test_each_gets_a_status_and_a_sentence(
    server: AvatarServer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that cannot be served gets the reason; the log has no traceback."""
    request, status, sentence = REFUSED[name]
    with caplog.at_level(logging.INFO):
        answer = await exchange(server, request)
        await served_well(server)
    assert answer[0] == status
    assert sentence in answer[1]
    assert [record for record in caplog.records if record.exc_info] == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_http_1_0_is_answered(server: AvatarServer) -> None:
    """Old probes of load balancers get their answer."""
    assert (await exchange(server, b"GET /healthz HTTP/1.0\r\n\r\n"))[0] == 200


async def test_a_client_that_closes_within_its_request_affects_nobody(
    server: AvatarServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a request, then the end of the stream or a reset: no traceback, and others go on."""
    for part in (
        b"",
        b"GE",
        b"GET / HTTP/1.1\r\nHos",
        b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{",
    ):
        for linger in (b"", b"\x01\x00\x00\x00\x00\x00\x00\x00"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
                client.sendall(part)
                if linger:  # close() sends a reset
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    await served_well(server)
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("name", REFUSED)
def test_the_answer_does_not_depend_on_how_the_request_arrives(name: str) -> None:
    """Byte by byte or at once, the same request gets the same answer."""
    request = REFUSED[name][0][:30_000]
    at_once = RequestCheck().refusal(request)
    check, found = RequestCheck(), None
    for byte in request:
        if not check.done:
            found = check.refusal(bytes([byte]))
    assert found == at_once


def test_data_after_a_request_is_not_checked() -> None:
    """Frames that a client sends right behind its handshake are no part of the request."""
    check = RequestCheck()
    assert check.refusal(b"GET /v1/realtime HTTP/1.1\r\n\r\n" + bytes(500)) is None
    assert check.done
