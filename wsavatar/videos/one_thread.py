"""A thread of low priority for the blocking calls on one file: one at a time, in order.

Where a caller is cancelled its call goes on, and the next one waits for it, such as that which
closes the file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from wsavatar.machine import yield_to_others

__all__ = ["OneThread", "iterated"]

Result = TypeVar("Result")


class OneThread:
    """``call`` runs a function there; ``close`` lets the thread end after the last one."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, name, initializer=yield_to_others)

    async def call(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    def last(self, function: Callable[[], None]) -> None:
        """Run this after the calls in progress, without waiting for it, and close."""
        self._executor.submit(function)
        self.close()

    def close(self) -> None:
        self._executor.shutdown(wait=False)


async def iterated(
    items: Generator[Result, None, None], thread: OneThread
) -> AsyncGenerator[Result, None]:
    """What a blocking generator gives; it runs on ``thread``, which is closed at its end."""
    end = object()
    try:
        while (item := await thread.call(lambda: next(items, end))) is not end:
            yield item  # type: ignore[misc]
    finally:
        thread.last(items.close)
