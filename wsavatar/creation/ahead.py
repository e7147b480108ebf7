"""Makes pictures on a thread of their own, a few before they are asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

__all__ = ["made_ahead"]


def made_ahead(
    pictures: Generator[np.ndarray, None, None], count: int
) -> Generator[np.ndarray, None, None]:
    """The same pictures, in order; up to ``count`` wait. What their making raises is raised.

    All of them are made on one thread, which also closes the generator. Close this one too.
    """
    with ThreadPoolExecutor(1, "make-pictures") as thread:
        waiting = deque(thread.submit(next, pictures, None) for _ in range(count))
        try:
            while (picture := waiting.popleft().result()) is not None:
                waiting.append(thread.submit(next, pictures, None))
                yield picture
        finally:
            for one in waiting:
                one.cancel()
            thread.submit(pictures.close)
