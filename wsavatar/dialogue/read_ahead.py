"""Reads a generator ahead, so that who makes its items and who uses them work at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Generic, NoReturn, TypeVar

__all__ = ["ReadAhead"]

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """A generator, read by a task of its own, at most ``items`` ahead of `__anext__`.

    Waiting for an item may be cancelled and begun again: nothing is lost. `close` ends the source.
    An error of the source is raised where its item would have been.
    """

    def __init__(self, source: AsyncGenerator[T, None], items: int) -> None:
        self._queue: asyncio.Queue[T | None] = asyncio.Queue(items)
        self._task = asyncio.create_task(self._read(source), name="read ahead")

    def __aiter__(self) -> ReadAhead[T]:
        return self

    async def __anext__(self) -> T:
        if self._task.done() and self._queue.empty():
            self._end()
        item = await self._queue.get()
        if item is None:
            self._end()
        return item

    async def close(self) -> None:
        """Stop reading, and wait until the source has ended."""
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.exception()  # raised before, or not wanted any more

    def _end(self) -> NoReturn:
        if not self._task.cancelled() and (error := self._task.exception()) is not None:
            raise error
        raise StopAsyncIteration

    async def _read(self, source: AsyncGenerator[T, None]) -> None:
        try:
            async for item in source:
                await self._queue.put(item)
        finally:
            await source.aclose()
            if not self._queue.full():
                self._queue.put_nowait(None)
