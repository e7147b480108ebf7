"""Listening, admission and shutdown: the WebSocket and the page on one port.

The server listens first and loads the model on a thread, so the page opens at once. Until the model
is loaded, and when every device has failed, ``/readyz`` is 503 and a WebSocket is closed with 1013
and the reason. This module does not know what a session says.

Compression (permessage-deflate) is off: JPEG does not compress, and deflating base64 would take
milliseconds of the event loop for each frame.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from wsavatar.avatar_jobs.maker import Listing
from wsavatar.config import Settings
from wsavatar.errors import WsavatarError, without_folders
from wsavatar.metrics import Metrics
from wsavatar.render.load import Load
from wsavatar.resources import resource_dir
from wsavatar.serve import assembly
from wsavatar.serve.admission import Admission
from wsavatar.serve.connection import SERVER_HEADER, HttpConnection
from wsavatar.serve.http import Reply, Site
from wsavatar.serve.sessions import Sessions
from wsavatar.serve.site import ENDPOINT, build_site
from wsavatar.serve.tls import TlsError, tls_context
from wsavatar.serve.websocket import Goodbye
from wsavatar.session.avatar_list import list_updated
from wsavatar.session.engine import Engine
from wsavatar.session.session import Session

__all__ = ["ENDPOINT", "AvatarServer", "ListenError", "LoadError", "add_arguments", "run"]

_log = logging.getLogger(__name__)

_CLOSE_TIMEOUT_S = 5.0
_OPEN_TIMEOUT_S = 60.0
"""Limit for a request with its answer; long enough for a video to a slow phone."""
_WRITE_LIMIT = 64 * 1024
"""Bytes that may wait below the outbox. Small, so that late frames are dropped and not sent."""

_PREPARED = 8
"""Avatars that are prepared once the server is ready; others are prepared at first use."""

LOADING = "load"
"""What the names of threads begin with that load something, for which an end does not wait."""

LoadEngine = Callable[[Settings, Callable[[str], None]], Engine]


class ListenError(WsavatarError, OSError):
    """Listening on the address failed; the message says what to do."""


class LoadError(WsavatarError, RuntimeError):
    """Loading the model or the avatars failed; the message says what to do."""


class AvatarServer:
    """One server. ``load`` builds the engine; it is called on a thread, with a progress function.

    >>> async with AvatarServer(settings, load) as server:  # doctest: +SKIP
    ...     await server.ready()
    """

    def __init__(self, settings: Settings, load: LoadEngine, frontend: Path | None = None) -> None:
        self._settings = settings
        self._load = load
        self.metrics = Metrics()
        self.progress = "starting"
        self._engine: Engine | None = None
        self._ready: asyncio.Future[Engine] = asyncio.get_running_loop().create_future()
        self._sessions = Sessions(settings.server.idle_timeout_s, self.metrics)
        self._admission = Admission(settings)
        self._site: Site = build_site(
            frontend or resource_dir("frontend"),
            self.metrics,
            lambda: self._engine,
            lambda: self.progress,
            settings,
            self._admission.may_change_avatars,
        )
        self._closing = False
        self._dropped: asyncio.Task[None] | None = None
        self._preparing: asyncio.Task[None] | None = None
        self.metrics.watch_queues(self._depths)

    @property
    def engine(self) -> Engine | None:
        """The loaded engine, or None while it loads."""
        return self._engine

    @property
    def port(self) -> int:
        """The port of the server, also if the setting is 0."""
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    async def ready(self) -> Engine:
        """Wait until sessions are accepted. Raises LoadError."""
        return await asyncio.shield(self._ready)

    # -- starting and stopping --------------------------------------------------------------------

    async def __aenter__(self) -> AvatarServer:
        settings = self._settings.server
        tls = tls_context(settings.tls_cert, settings.tls_key)
        try:
            self._server = await serve(
                self._handle,
                settings.host,
                settings.port,
                process_request=self._process_request,
                select_subprotocol=_select_subprotocol,
                compression=None,
                max_size=settings.max_message_bytes,
                max_queue=16,
                write_limit=_WRITE_LIMIT,
                ping_interval=None,  # `websocket.carry` asks, and knows when an answer is due
                open_timeout=_OPEN_TIMEOUT_S,
                close_timeout=_CLOSE_TIMEOUT_S,
                server_header=SERVER_HEADER,
                create_connection=HttpConnection,
                ssl=tls,
            )
        except OSError as error:
            raise ListenError(_listen_problem(error, settings.host, settings.port)) from error
        self._loading = asyncio.create_task(self._load_engine(), name="load")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop: refuse new connections and close all with 1001, within the grace time."""
        self._closing = True
        self._server.close(close_connections=False)
        self._loading.cancel()
        grace_s = self._settings.server.shutdown_grace_s
        goodbye = Goodbye(1001, "the server stops")
        self._sessions.end(goodbye)
        connections = list(self._server.connections)
        closing = [asyncio.create_task(_say_goodbye(one, goodbye)) for one in connections]
        try:
            async with asyncio.timeout(grace_s):
                if closing:
                    await asyncio.wait(closing)
                await self._server.wait_closed()
                await self._sessions.all_closed()
        except TimeoutError:
            _log.warning(
                "not ended in %g s: %d connections, %d sessions",
                grace_s,
                sum(not one.done() for one in closing),
                len(self._sessions),
            )
            for connection in connections:
                connection.transport.abort()
            for task in closing:
                task.cancel()
        await asyncio.gather(self._loading, *closing, return_exceptions=True)
        if self._engine is not None:
            if self._engine.maker is not None:
                await self._engine.maker.close()
            for task in filter(None, (self._preparing, self._dropped)):
                task.cancel()
                await asyncio.wait({task}, timeout=grace_s)
            if self._engine.videos is not None:
                await self._engine.videos.close()
            self._engine.preparing.shutdown(wait=False, cancel_futures=True)
            self._engine.avatars.close()
            await self._engine.renderer.close()
            if self._engine.speech is not None:
                await self._engine.speech.close()
        if self._ready.done() and not self._ready.cancelled():
            self._ready.exception()  # the error was logged
        gc.unfreeze()

    async def _load_engine(self) -> None:
        loop = asyncio.get_running_loop()

        def progress(text: str) -> None:
            if self._closing:
                raise LoadError("stopped")
            loop.call_soon_threadsafe(self._report_progress, text)

        try:
            engine = await _on_daemon_thread(lambda: self._load(self._settings, progress))
            await self._start(engine)
        except Exception as error:  # a model's files may raise anything
            if not isinstance(error, LoadError):
                _log.debug("loading failed", exc_info=True)
            self.progress = f"failed: {without_folders(str(error))}"
            self._ready.set_exception(LoadError(str(error) or type(error).__name__))
            return
        self._engine = engine
        self.metrics.watch_renderer(engine.renderer.stats)
        engine.renderer.capacity.on_change(self._tell_capacity)
        if engine.maker is not None:
            engine.maker.on_change(self._tell_avatars)
            preparing = engine.maker.prepare(_PREPARED)
            self._preparing = asyncio.create_task(preparing, name="prepare avatars")
        if engine.dropped is not None:
            self._dropped = asyncio.create_task(engine.dropped.run(), name="dropped files")
        # To collect garbage among all that the libraries made would stop every session for 0.3 s.
        gc.freeze()
        self._report_progress("ready")
        self._ready.set_result(engine)

    async def _start(self, engine: Engine) -> None:
        """Start what works for all sessions. Where that fails or is cancelled, nothing goes on."""
        await engine.renderer.start()
        if engine.speech is None:
            return
        self._report_progress("starting the speech engines")
        try:
            await engine.speech.start()
        except BaseException:
            await engine.renderer.close()
            await engine.speech.close()
            raise

    def _report_progress(self, text: str) -> None:
        self.progress = without_folders(text)  # clients read it
        _log.info("%s", text)

    # -- requests ---------------------------------------------------------------------------------

    async def _process_request(
        self, connection: ServerConnection, request: Request
    ) -> Response | None:
        """Answer plain HTTP; None continues with the WebSocket handshake."""
        if request.path.partition("?")[0] != ENDPOINT or request.method != "GET":
            headers = {name.lower(): value for name, value in request.headers.raw_items()}
            asked = (request.method, request.path, headers)
            if self._site.is_at_hand(request.path):
                return _to_response(self._site.reply(*asked))
            return _to_response(await asyncio.to_thread(self._site.reply, *asked))
        if not self._admission.may_enter(request.headers):
            self.metrics.refused.labels("unauthorized").inc()
            response = connection.respond(HTTPStatus.UNAUTHORIZED, "A valid token is needed.\n")
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        if not self._admission.is_welcome_origin(request.headers):
            self.metrics.refused.labels("origin").inc()
            return connection.respond(HTTPStatus.FORBIDDEN, "This origin may not connect.\n")
        return None

    # -- connections ------------------------------------------------------------------------------

    async def _handle(self, connection: ServerConnection) -> None:
        """Handle one WebSocket from admission to its close."""
        assert connection.request is not None
        query = parse_qs(urlsplit(connection.request.path).query)
        resumes = "resume" in query
        refusal = self._refusal(resumes=resumes)
        if refusal is not None:
            self.metrics.refused.labels(refusal[0]).inc()
            await _say_goodbye(connection, Goodbye(1013, refusal[1]))
            return
        assert self._engine is not None
        _keep_backlog_in_outbox(connection)
        if resumes:
            token, received = query["resume"][0], query.get("received", [""])[0]
            goodbye = await self._sessions.resume(connection, token, received)
        else:
            avatar_id = query.get("avatar", [None])[0]
            session = Session(
                self._engine,
                self._settings,
                self.metrics,
                avatar_id=avatar_id,
                may_change_avatars=self._admission.may_change_avatars(_host(connection)),
            )
            goodbye = await self._sessions.begin(connection, session)
        if goodbye.code is not None:
            await _say_goodbye(connection, goodbye)

    def _refusal(self, *, resumes: bool) -> tuple[str, str] | None:
        """Why no connection is possible now, as label and reason; None if one is.

        ``resumes``: of a session that is open already, and has its place.
        """
        if self._closing:
            return "closing", "the server stops"
        if self._engine is None:
            return "loading", f"not ready yet: {self.progress}"
        if resumes:
            return None
        if all(self._engine.renderer.health().values()):
            return "devices", "no device renders frames now; try again later"
        limit = self._settings.server.max_sessions
        if len(self._sessions) >= limit:
            return "full", f"all {limit} sessions are in use; try again later"
        return None

    def _tell_capacity(self, load: Load) -> None:
        for session in self._sessions:
            session.tell_capacity(load)

    def _tell_avatars(self, listing: Listing) -> None:
        event = list_updated(listing)
        for session in self._sessions:
            session.tell(event)

    def _depths(self) -> dict[str, float]:
        total: dict[str, float] = {}
        for session in self._sessions:
            for name, depth in session.depths().items():
                total[name] = total.get(name, 0) + depth
        return total


async def _on_daemon_thread(work: Callable[[], Engine]) -> Engine:
    """Run slow work on a daemon thread, for which the process does not wait at its end."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Engine] = loop.create_future()

    def settle(engine: Engine | None, error: Exception | None) -> None:
        if result.cancelled():
            return
        if engine is not None:
            result.set_result(engine)
        else:
            result.set_exception(error or RuntimeError("nothing was loaded"))

    def run_work() -> None:
        engine: Engine | None = None
        failure: Exception | None = None
        try:
            engine = work()
        except Exception as error:  # raised where the result is awaited
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, engine, failure)

    threading.Thread(target=run_work, name=LOADING, daemon=True).start()
    return await result


def _host(connection: ServerConnection) -> str:
    assert connection.request is not None
    return connection.request.headers.get("Host", "")


def _select_subprotocol(
    connection: ServerConnection, offered: Sequence[Subprotocol]
) -> Subprotocol | None:
    """Choose ``realtime`` if offered. The token is a subprotocol too, and is never echoed."""
    return Subprotocol("realtime") if "realtime" in offered else None


def _to_response(reply: Reply) -> Response:
    headers = Headers({**reply.headers, "Content-Type": reply.content_type})
    headers["Connection"] = "close"
    return Response(reply.status.value, reply.status.phrase, headers, reply.body)


def _keep_backlog_in_outbox(connection: ServerConnection) -> None:
    """Let the kernel accept only what it can send soon, whatever its buffer's size."""
    lowat = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    sock = connection.transport.get_extra_info("socket")
    if lowat is None or sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):  # without it the kernel only buffers more
        sock.setsockopt(socket.IPPROTO_TCP, lowat, _WRITE_LIMIT)


async def _say_goodbye(connection: ServerConnection, goodbye: Goodbye) -> None:
    """Close with code and reason; abort if the peer does not answer."""
    assert goodbye.code is not None
    reason = goodbye.reason.encode()[:120].decode(
        errors="ignore"
    )  # a close frame has at most 123 bytes
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await connection.close(goodbye.code, reason)
    except TimeoutError:
        connection.transport.abort()


def _listen_problem(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is in use: stop the program that has it, "
            f"or take another: --port {port + 1 if port < 65535 else 8765}"
        )
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights: use a port from 1024 up, with --port"
    return f"cannot listen on {host}, port {port}: {error.strerror or error}"


# -- the command ----------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``serve``."""
    parser.add_argument("--host", help="address to listen on; 0.0.0.0: the whole network")
    parser.add_argument("--port", type=int, help="port to listen on; 0: any free port")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Serve until SIGINT or SIGTERM. Returns 1 if loading fails, 2 if listening or TLS fails."""
    given = {name: getattr(args, name) for name in ("host", "port")}
    server = settings.server.model_copy(update={k: v for k, v in given.items() if v is not None})
    if not 0 <= server.port <= 65535:
        print(f"wsavatar: --port must be from 0 to 65535, not {server.port}", file=sys.stderr)
        return 2
    try:
        status = asyncio.run(_serve(settings.model_copy(update={"server": server})))
    except (ListenError, LoadError, TlsError) as error:
        print(f"wsavatar: {error}", file=sys.stderr)
        status = 1 if isinstance(error, LoadError) else 2
    _end_while_loading(status)
    return status


def _end_while_loading(status: int) -> None:
    """End the process here where something is still being loaded: libraries of C++ abort where the
    interpreter ends while a thread is in them."""
    if any(thread.name.startswith(LOADING) for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


async def _serve(settings: Settings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C raises KeyboardInterrupt
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stop.set)
    async with AvatarServer(settings, assembly.load_engine) as server:
        host = settings.server.host
        shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
        scheme = "http" if settings.server.tls_cert is None else "https"
        print(f"wsavatar: {scheme}://{f'[{shown}]' if ':' in shown else shown}:{server.port}")
        stopped = asyncio.create_task(stop.wait(), name="stop")
        ready = asyncio.create_task(server.ready(), name="ready")
        try:
            await asyncio.wait({stopped, ready}, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                ready.result()
                print("wsavatar: ready", flush=True)
            await stopped
            print("wsavatar: stopping", flush=True)
        finally:
            for task in (stopped, ready):
                task.cancel()
            await asyncio.gather(stopped, ready, return_exceptions=True)
    return 0
