"""The audio of the turn in progress, until it becomes an item. Pure; finds no turns itself."""

from __future__ import annotations

import numpy as np

from wsavatar.media.audio import resample

from .base import Samples
from .conversation import Recording

__all__ = ["MAX_TURN_S", "TurnBuffer"]

MAX_TURN_S = 60.0
"""A longer turn becomes several items."""


class TurnBuffer:
    """Samples float32 mono at ``rate``. Whoever adds to it takes it when it `is_full`."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._parts: list[Samples] = []
        self._samples = 0

    @property
    def is_full(self) -> bool:
        return self._samples > MAX_TURN_S * self._rate

    def add(self, samples: Samples) -> None:
        self._parts.append(samples)
        self._samples += len(samples)

    def take(self) -> Recording | None:
        """All of it, and the buffer is empty; None: there was nothing."""
        parts, self._parts, self._samples = self._parts, [], 0
        return Recording(np.concatenate(parts), self._rate) if parts else None

    def change_rate(self, rate: int) -> None:
        """The microphone goes on at another rate; what is there is resampled."""
        if rate == self._rate:
            return
        held = self.take()
        self._rate = rate
        if held is not None:
            self.add(resample(held.samples, held.rate, rate))
