"""What batches and audio features take on one device, learnt from what it made.

Pure: it reads no clock and knows no frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

__all__ = ["FORGET_AFTER", "BatchCosts", "doublings"]

RECENT = 8
OUTLIERS = 2
"""The slowest of the last `RECENT` batches are ignored: a compilation, a page fault."""
QUICKER = 0.4
"""What takes so much less than each of the last ends what slowed those: all are forgotten.
Else a device that was slow for seconds would for more seconds be given nothing to do, or little."""
FORGET_AFTER = 256
"""Batches after which a size that was not run is unknown again; it may have seemed slow once."""


def doublings(least: int, most: int) -> tuple[int, ...]:
    """``least``, doubled as often as it stays below ``most``, and ``most``."""
    sizes = [least]
    while 2 * sizes[-1] < most:
        sizes.append(2 * sizes[-1])
    return (*sizes, most) if most > least else tuple(sizes)


class BatchCosts:
    """What a batch of each size takes on one device, learnt from the batches it made.

    ``sizes`` are those that the device runs: n frames run as the smallest that holds them. What an
    audio window's features take is counted apart: a batch has them only where it is the first to
    touch a chunk.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        if not sizes or min(sizes) < 1:
            raise ValueError(f"batch sizes are 1 or more, not {list(sizes)}")
        self.sizes = tuple(sorted(set(sizes)))
        self._recent: dict[int, deque[float]] = {size: deque(maxlen=RECENT) for size in self.sizes}
        self._seen = dict.fromkeys(self.sizes, 0)
        self._learnt: dict[int, float] = {}
        self._count = 0
        self._windows_s: deque[float] = deque(maxlen=RECENT)
        self._window_s = 0.0

    def observe_windows(self, windows: int, seconds: float) -> None:
        """The features of so many audio windows, one or more, took ``seconds`` of the device."""
        window_s = seconds / windows
        if _is_over(self._windows_s, window_s):
            self._windows_s.clear()
        self._windows_s.append(window_s)
        self._window_s = sorted(self._windows_s)[len(self._windows_s) // 2]

    @property
    def window_s(self) -> float:
        """What an audio window's features take: the median of the last; 0.0 before any."""
        return self._window_s

    def observe(self, frames: int, seconds: float) -> None:
        """A batch of ``frames`` took ``seconds`` of the device, without its audio features."""
        size, recent = self._size(frames), self._recent
        self._count += 1
        self._seen[size] = self._count
        learnt = dict(self._learnt)
        if _is_over(recent[size], seconds):
            learnt.clear()
            for batches in recent.values():
                batches.clear()
        recent[size].append(seconds)
        learnt[size] = sorted(recent[size])[max(0, len(recent[size]) - 1 - OUTLIERS)]
        for other, seen in self._seen.items():
            if self._count - seen >= FORGET_AFTER:
                recent[other].clear()
                learnt.pop(other, None)
        self._learnt = learnt  # in one step, for readers on another thread

    def estimate(self, frames: int) -> float:
        """What a batch of ``frames`` will take, in seconds; 0.0 before anything was observed.

        The slowest of the last batches of its size but `OUTLIERS`: rather too much, so that where
        batches differ nearly all are in time; what that gains is made use of in the next plan. A
        size never seen is taken to cost in proportion to the next smaller, else as the next larger.
        """
        learnt, size = self._learnt, self._size(frames)
        beyond = max(1.0, frames / size)
        if size in learnt:
            return learnt[size] * beyond
        smaller = max((known for known in learnt if known < size), default=None)
        if smaller is not None:
            return learnt[smaller] * size / smaller * beyond
        return learnt[min(learnt)] if learnt else 0.0

    def typical(self, frames: int) -> float:
        """What a batch of ``frames`` takes as a rule: the median of the last of its size.

        For how much can be made in the long run, where `estimate` would be too cautious.
        """
        recent = sorted(self._recent[self._size(frames)])
        return recent[len(recent) // 2] if recent else self.estimate(frames)

    def _size(self, frames: int) -> int:
        return next((size for size in self.sizes if size >= frames), self.sizes[-1])


def _is_over(slow: Collection[float], seconds: float) -> bool:
    """Whether what slowed the last ones has ended."""
    return bool(slow) and seconds < QUICKER * min(slow)
