"""A small thread pool that does not keep the process from ending.

`concurrent.futures` waits for every call at the end of the process, and a call to a device that
hangs does not return.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from wsavatar.machine import yield_to_others

__all__ = ["Threads"]

_log = logging.getLogger(__name__)


class Threads:
    """``count`` threads of low priority. The caller bounds the number of queued calls."""

    def __init__(self, count: int, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True)
            for number in range(count)
        ]

    def start(self) -> None:
        """Raises RuntimeError if the system has no more threads."""
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[..., None], *args: Any) -> None:
        """Queue a call for one of the threads. Its exceptions are logged."""
        self._calls.put(lambda: call(*args))

    def join(self, timeout_s: float) -> bool:
        """Drop queued calls and wait for running ones. Returns whether all ended. Blocks."""
        while not self._calls.empty():
            self._calls.get()
        for _ in self._threads:
            self._calls.put(None)
        end_s = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, end_s - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        yield_to_others()
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception:
                _log.exception("%s: a call failed", threading.current_thread().name)
