"""Chooses the calmest part of a video: the mouth at rest, the head still, the face to be seen.

Pure arithmetic on iBUG-68 points over time; no pictures, no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from wsavatar.landmarks.base import Face

__all__ = ["LONGEST_S", "SHORTEST_S", "Look", "Part", "calmest", "mouth_opening"]

SHORTEST_S, LONGEST_S = 5.0, 20.0
MAX_GAP_S = 0.5
"""A face that is hidden for less is taken to be where its neighbours in time say."""
_OPEN = 0.06  # of the eyes' distance, beyond the person's most closed mouth
_TALKS = 0.15  # part of the time with an open mouth
_FAST = 1.0  # eyes' distances a second
_LENGTH_WEIGHT = 0.3  # cost of the shortest part over the longest: it repeats sooner
_JUMP = 0.6  # of the face's size, from one look to the next: another shot


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a video. ``face`` is None where it is not to be seen."""

    time_s: float
    face: Face | None


@dataclass(frozen=True, slots=True)
class Part:
    """From and to which second. ``looks``: those in it. ``talks``: the mouth is not at rest."""

    start_s: float
    end_s: float
    looks: Sequence[Look]
    talks: bool

    @property
    def first(self) -> Face:
        """The face as it is seen first in it."""
        return next(look.face for look in self.looks if look.face is not None)


def mouth_opening(points: np.ndarray) -> np.ndarray:
    """Gap between the inner lips over the outer eye corners' distance, of points [..., 68, 2]."""
    gap = np.linalg.norm(points[..., [61, 62, 63], :] - points[..., [67, 66, 65], :], axis=-1)
    return np.asarray(gap.mean(axis=-1) / _eye_distance(points))


def calmest(looks: Sequence[Look], interval_s: float) -> Part | None:
    """The part to take of looks that are ``interval_s`` apart; None: no face anywhere.

    Up to 20 s, and at least 5 s where the face is to be seen that long. Least cost: an open or
    moving mouth, a moving head, and a short part.
    """
    closed = _most_closed(looks)
    best: tuple[float, int, int] | None = None
    for first, last in _runs(looks, interval_s):
        cost, _ = _costs(looks[first:last], interval_s, closed)
        total = np.concatenate([[0.0], np.cumsum(cost)])
        count = last - first
        shortest = min(count, round(SHORTEST_S / interval_s))
        longest = min(count, round(LONGEST_S / interval_s))
        for length in range(shortest, longest + 1):
            means = (total[length:] - total[:-length]) / length
            at = int(np.argmin(means))
            seconds = length * interval_s
            price = float(means[at]) + _LENGTH_WEIGHT * (1 - min(seconds / LONGEST_S, 1))
            if best is None or price < best[0] - 1e-9:
                best = (price, first + at, first + at + length)
    if best is None:
        return None
    chosen = looks[best[1] : best[2]]
    _, is_open = _costs(chosen, interval_s, closed)
    start_s = chosen[0].time_s
    return Part(start_s, chosen[-1].time_s + interval_s, chosen, is_open.mean() > _TALKS)


def _most_closed(looks: Sequence[Look]) -> float:
    """The opening of the person's mouth at rest: the fifth part of the looks is below it."""
    seen = [mouth_opening(look.face.points) for look in looks if look.face is not None]
    return float(np.quantile(seen, 0.2)) if seen else 0.0


def _runs(looks: Sequence[Look], interval_s: float) -> Iterator[tuple[int, int]]:
    """Ranges of looks with one face without long gaps, which begin and end with the face."""
    first = last = None
    for number, look in enumerate(looks):
        if look.face is None:
            continue
        if first is not None and last is not None:
            gap_s = (number - last - 1) * interval_s
            if gap_s > MAX_GAP_S or _jumped(looks[last], look):
                yield first, last + 1
                first = None
        first = number if first is None else first
        last = number
    if first is not None and last is not None:
        yield first, last + 1


def _jumped(before: Look, after: Look) -> bool:
    if before.face is None or after.face is None:
        return False
    moved = (after.face.points - before.face.points).mean(axis=0)
    return bool(np.linalg.norm(moved) > _JUMP * before.face.size)


def _costs(
    looks: Sequence[Look], interval_s: float, closed: float
) -> tuple[np.ndarray, np.ndarray]:
    """The cost of each look, and whether its mouth is open. A hidden face costs 1."""
    hidden = np.array([look.face is None for look in looks])
    known = np.stack([look.face.points for look in looks if look.face is not None])
    index = np.clip(np.cumsum(~hidden) - 1, 0, len(known) - 1)
    points = known[index]
    eyes = _eye_distance(points)
    opening = mouth_opening(points)
    wide = np.clip((opening - closed) / (2 * _OPEN), 0, 1)
    talk = np.abs(np.gradient(opening)) / _OPEN if len(looks) > 1 else np.zeros(len(looks))
    middle = points[:, 27:48].mean(axis=1)
    step = np.zeros(len(looks))
    if len(looks) > 1:
        step = np.linalg.norm(np.gradient(middle, axis=0), axis=1) / eyes / interval_s
    cost = wide + np.clip(talk, 0, 1) + np.clip(step / _FAST, 0, 1) + hidden
    return cost, (opening - closed > _OPEN) & ~hidden


def _eye_distance(points: np.ndarray) -> np.ndarray:
    distance = np.linalg.norm(points[..., 45, :] - points[..., 36, :], axis=-1)
    return np.asarray(np.maximum(distance, 1.0))
