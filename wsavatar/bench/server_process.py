"""Runs ``serve`` in a process of its own on a free port, and waits until it is ready."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import URLError

from wsavatar.bench.report import BenchError

__all__ = ["ServerProcess", "child_environment", "fetch_json", "free_port"]

START_S = 600.0
"""A first start may compile kernels and prepare avatars."""
_STOP_S = 20.0
_NOT_GIVEN = range(20_000, 32_000)
"""Ports below those that Linux, macOS and Windows give to connections."""
_SERVE = "import sys; from wsavatar.cli import main; sys.exit(main(['serve', *sys.argv[1:]]))"


class ServerProcess:
    """``serve`` with ``arguments`` on 127.0.0.1, as a context manager. Its output goes to ``log``.

    Raises BenchError with the end of the log if it does not become ready.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._arguments = list(arguments)
        self._log = log
        self._say = say
        self.port = free_port()

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The WebSocket address of sessions."""
        return f"ws://127.0.0.1:{self.port}/v1/realtime"

    def __enter__(self) -> Self:
        address = ["--host", "127.0.0.1", "--port", str(self.port)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, *self._arguments, *address],
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_S
        told = ""
        while True:
            if self._process.poll() is not None or time.monotonic() > deadline:
                end = self._log.read_text(errors="replace")[-3000:]
                raise BenchError(f"the server did not become ready; its log ends:\n{end}")
            state = fetch_json(f"{self.http}/readyz")
            if state.get("ready"):
                return
            if state.get("progress", told) != told:
                told = state["progress"]
                self._say(f"server: {told}")
            time.sleep(0.1)

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def fetch_json(url: str, token: str = "") -> dict[str, Any]:
    """A JSON object over HTTP, of an error response too; {} without one."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as got:
            body = got.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    except (URLError, OSError):
        return {}
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def child_environment() -> dict[str, str]:
    """This process's environment, with this package on the path."""
    source = str(Path(__file__).parents[2])
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def free_port() -> int:
    """A port for a process that is about to start.

    It is none of those that the system gives to whoever asks for any, so that nobody is given it
    before the process has it.
    """
    for port in random.sample(_NOT_GIVEN, len(_NOT_GIVEN)):
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise BenchError("no port is free")
