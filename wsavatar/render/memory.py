"""Limits the batch size while a device is short of memory. Pure policy: no clock, no torch.

A batch's memory grows with its size, so the limit is halved before the device runs out of memory,
and doubled once memory is free again. Between `HIGH` and `LOW` nothing changes, nor for some time
after a step: released memory must first show in the next reading.
"""

from __future__ import annotations

import math

__all__ = ["HIGH", "LOW", "MemoryGuard", "is_out_of_memory"]

HIGH, LOW = 0.9, 0.7
"""Shares of the device's memory in use: above one the ceiling falls, below the other it rises."""
LEAST = 4
"""Full memory alone does not lower the limit below this; only a failure at this size does."""
STEP_S = 1.0
HOLD_S = 30.0
"""Time without changes after an out-of-memory error or at the lowest limit: otherwise a device that
other programs fill would lose its caches every second, without a gain."""

NO_ROOM = (
    "out of memory",
    "allocate memory",  # torch's CPU allocator, and the system
    "not enough memory",
    "insufficient memory",  # OpenCV
    "alloc_failed",  # cuBLAS and cuDNN
)
"""Texts of out-of-memory errors."""


class MemoryGuard:
    """`ceiling` is the largest batch allowed now: ``max_batch_size``, halved repeatedly."""

    def __init__(self, max_batch_size: int) -> None:
        if max_batch_size < 1:
            raise ValueError(f"a batch has 1 frame or more, not {max_batch_size}")
        self.max_batch_size = max_batch_size
        self.ceiling = max_batch_size
        self._settled_s = -math.inf

    def update(self, now_s: float, used: float) -> bool:
        """Take a reading, 0 to 1; 0 where it is not known.

        Returns True if memory is short and caches on the device should be released.
        """
        if now_s < self._settled_s:
            return False
        if used > HIGH:
            self.ceiling = max(self.ceiling // 2, min(LEAST, self.ceiling))
            self._settled_s = now_s + (STEP_S if self.ceiling > LEAST else HOLD_S)
            return True
        if used < LOW and self.ceiling < self.max_batch_size:
            self.ceiling = min(2 * self.ceiling, self.max_batch_size)
            self._settled_s = now_s + STEP_S
        return False

    def failed(self, now_s: float, frames: int) -> None:
        """A batch of ``frames`` ran out of memory: stay below it, down to one frame."""
        while self.ceiling > 1 and self.ceiling >= frames:
            self.ceiling //= 2
        self._settled_s = now_s + HOLD_S


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means out of memory; imports no library."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = str(error).lower()
    return any(words in said for words in NO_ROOM)
