"""Reading an async generator ahead of its consumer, in a task. Knows nothing of voices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["read_ahead"]

_CLOSE_S = 0.1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _End:
    """The source is exhausted, or raised ``error``."""

    error: Exception | None = None


async def read_ahead(source: AsyncGenerator[T, None], items: int) -> AsyncGenerator[T, None]:
    """The source's items, read at most ``items`` ahead; its error comes after them.

    Closing it, or cancelling its consumer, stops the source. A source that waits for its peer while
    it is closed (a WebSocket's closing handshake) is cancelled again every `_CLOSE_S`.
    """
    queue: asyncio.Queue[T | _End] = asyncio.Queue(items)
    task = asyncio.create_task(_fill(queue, source), name="read ahead")
    try:
        while not isinstance(item := await queue.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_CLOSE_S)


async def _fill(queue: asyncio.Queue[T | _End], source: AsyncGenerator[T, None]) -> None:
    end = _End()
    try:
        async with aclosing(source):
            async for item in source:
                await queue.put(item)
    except Exception as error:  # the task's boundary: the consumer raises it
        end = _End(error)
    await queue.put(end)
