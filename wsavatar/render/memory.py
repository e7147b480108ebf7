"""What a device's memory lets pass: which errors it means, and how big a batch may be while it is
short. Pure policy: no clock, no torch.

A batch's memory grows with its size, so the ceiling steps down by halves before the device runs
out, and up again once there is room. Between `HIGH` and `LOW` nothing changes, and after a step
nothing changes for a while: what was given back must show in the next reading first.
"""

from __future__ import annotations

import math

__all__ = ["HIGH", "LOW", "MemoryGuard", "is_out_of_memory"]

HIGH, LOW = 0.9, 0.7
"""Shares of the device's memory in use: above one the ceiling falls, below the other it rises."""
LEAST = 4
"""A full memory lowers the ceiling no further; only what failed at this size does."""
STEP_S = 1.0
HOLD_S = 30.0
"""After an out-of-memory error, or with the ceiling at its least, nothing changes for so long: a
device filled by others would else lose its caches every second, and gain nothing."""

NO_ROOM = (
    "out of memory",
    "allocate memory",  # torch's allocator for CPUs, and the system's own words
    "not enough memory",
    "insufficient memory",  # OpenCV
    "alloc_failed",  # cuBLAS and cuDNN
)
"""What errors say where a device, or this machine, had no room."""


class MemoryGuard:
    """The greatest batch allowed now, as `ceiling`, from ``max_batch_size`` down by halves."""

    def __init__(self, max_batch_size: int) -> None:
        if max_batch_size < 1:
            raise ValueError(f"a batch has 1 frame or more, not {max_batch_size}")
        self.max_batch_size = max_batch_size
        self.ceiling = max_batch_size
        self._settled_s = -math.inf

    def update(self, now_s: float, used: float) -> bool:
        """Take a reading, 0 to 1; 0 where it is not known.

        True: memory is short, and whoever caches on the device should give some of it back.
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
    """Whether a device, or this machine, had no room; no library is imported to ask."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = str(error).lower()
    return any(words in said for words in NO_ROOM)
