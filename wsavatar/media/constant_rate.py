"""Frames that are shown at any times, as pictures at a constant rate. Pure; it knows no files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import numpy as np

__all__ = ["Shown", "Timed", "at_constant_rate"]


class Shown(NamedTuple):
    """What is shown for one period of the constant rate: the ``number``-th frame of the file (from
    0), uint8 [H, W, 3] RGB."""

    number: int
    picture: np.ndarray


class Timed(NamedTuple):
    """A frame of a file: its time, for how long (0: unknown), and how to get its picture."""

    time_s: Fraction
    duration_s: Fraction
    take: Callable[[], np.ndarray]


def at_constant_rate(frames: Iterable[Timed], fps: Fraction) -> Iterator[Shown]:
    """For each period of the rate the frame that is nearest in time."""
    half = 1 / (2 * fps)
    period = 0
    start_s = held_s = duration_s = Fraction(0)
    held: Callable[[], Shown] | None = None
    for number, frame in enumerate(frames):
        if held is None:
            start_s = frame.time_s
        else:
            middle_s = (held_s + frame.time_s - start_s) / 2
            while period / fps <= middle_s:
                yield held()
                period += 1
        held, held_s, duration_s = _once(number, frame), frame.time_s - start_s, frame.duration_s
    duration_s = duration_s or 1 / fps
    end_s = held_s + duration_s - min(half, duration_s / 2)
    while held is not None and period / fps <= end_s:
        yield held()
        period += 1


def _once(number: int, frame: Timed) -> Callable[[], Shown]:
    """Converts a frame when it is first shown."""
    return cache(lambda: Shown(number, frame.take()))
