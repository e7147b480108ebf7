"""Closes the mouth of a person who talks in a video: with the lower face of the nearest frame in
which it is at rest.

Pure arithmetic on pictures and iBUG-68 landmarks; no files, no detector.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator

import cv2
import numpy as np

from wsavatar.creation.calm import mouth_opening

__all__ = ["at_rest", "resting"]

_CLOSED = 0.05  # of the frames: the most closed mouths
_AT_REST = 0.012  # of the outer eye corners' distance: lips that are closed move less
_FADE_FRAMES = 8
"""A mouth that was at rest goes over into that of the next rest within so many frames."""
_FIXED = [27, 28, 29, 30, 31, 33, 35, 36, 39, 42, 45]  # of the head: speech does not move them
_LOWER_JAW = slice(3, 14)
_NOSE_BASE = slice(31, 36)
_LOWER = np.r_[3:14, 48:68]  # what moves with the jaw
# Of the face's width: how far more than the jaw's hull is replaced, and how soft it ends.
_GROWTH, _SOFTNESS = 0.08, 0.05
_SMOOTHING = np.array([1, 2, 3, 2, 1]) / 9  # of points, frame by frame: a detector's noise


def at_rest(points: np.ndarray) -> np.ndarray:
    """In which of the frames of landmarks [n, 68, 2] the mouth is at rest: int [m], m > 0, rising.

    Of each time that the lips are as good as closed the inner frames, since beside an open mouth
    they part already; of a short one the most closed frame.
    """
    opening = mouth_opening(points)
    closed = np.flatnonzero(opening <= np.quantile(opening, _CLOSED) + _AT_REST)
    times = np.split(closed, np.flatnonzero(np.diff(closed) > 1) + 1)
    last = len(points) - 1
    inner = [one[int(one[0] > 0) : len(one) - int(one[-1] < last)] for one in times]
    kept = zip(inner, times, strict=True)
    return np.concatenate([a if len(a) else b[[np.argmin(opening[b])]] for a, b in kept])


def resting(
    pictures: Iterator[np.ndarray], points: np.ndarray
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """The pictures uint8 [H, W, 3 or 4] with the mouth at rest, each with its landmarks [68, 2].

    ``points`` [n, 68, 2] are those of the n pictures. Frames before the first rest are left out. A
    rest's lower face follows the head until the next one is near, and goes over into it.
    """
    rests = at_rest(points)
    heads = _smoothed(points[:, _FIXED])

    def closed(i: int, shown: np.ndarray, rest: int, other: np.ndarray) -> _Made:
        turn = _similarity(heads[rest], heads[i])
        return _with_lower_face(shown, points[i], other, points[rest], turn)

    ahead: deque[np.ndarray] = deque()
    before: tuple[int, np.ndarray] | None = None
    for i in range(len(points)):
        while len(ahead) <= _FADE_FRAMES and (picture := next(pictures, None)) is not None:
            ahead.append(picture)
        if not ahead:
            return
        shown = ahead.popleft()
        position = int(np.searchsorted(rests, i))
        after = int(rests[position]) if position < len(rests) else len(points) + _FADE_FRAMES
        if after == i:
            before = i, shown
            yield shown, points[i]
        elif before is not None:
            rest, picture = before
            made, moved = closed(i, shown, rest, picture)
            steps = min(_FADE_FRAMES + 1, after - rest)
            part = 1 - (after - i) / steps
            if part > 0 and after - i <= len(ahead):
                next_made, next_moved = closed(i, shown, after, ahead[after - i - 1])
                made = np.asarray(cv2.addWeighted(made, 1 - part, next_made, part, 0))
                moved = moved + (next_moved - moved) * part
            yield made, moved


_Made = tuple[np.ndarray, np.ndarray]
"""A picture and its landmarks."""


def _with_lower_face(
    picture: np.ndarray,
    points: np.ndarray,
    other: np.ndarray,
    other_points: np.ndarray,
    turn: np.ndarray,
) -> _Made:
    """The picture with the lower face of another of the same person, moved by ``turn`` [2, 3]."""
    moved = other_points @ turn[:, :2].T + turn[:, 2]
    (x1, y1, x2, y2), mask = _lower_mask(picture.shape[:2], points, moved)
    here = turn - [[0, 0, x1], [0, 0, y1]]
    face = cv2.warpAffine(
        other, here, (x2 - x1, y2 - y1), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    ).astype(np.float32)
    under = picture[y1:y2, x1:x2].astype(np.float32)
    rim = (mask > 0.05) & (mask < 0.5)  # its light is that of the picture around it
    if rim.any():
        face[..., :3] += (under - face)[rim][:, :3].mean(axis=0)
    under += (face - under) * mask[:, :, None]
    made = picture.copy()
    made[y1:y2, x1:x2] = np.clip(np.round(under), 0, 255).astype(np.uint8)
    landmarks = points.copy()
    landmarks[_LOWER] = moved[_LOWER]
    return made, landmarks


def _lower_mask(
    size: tuple[int, ...], points: np.ndarray, moved: np.ndarray
) -> tuple[tuple[int, int, int, int], np.ndarray]:
    """A box (x1, y1, x2, y2), and in it, float32 [h, w], how much of the lower face is replaced.

    It covers both jaws, the opened and the closed.
    """
    width = float(np.ptp(points[:17, 0]))
    parts = [one for p in (points, moved) for one in (p[_LOWER_JAW], p[_NOSE_BASE])]
    hull = cv2.convexHull(np.concatenate(parts).astype(np.float32))[:, 0]
    reach = round((_GROWTH + 3 * _SOFTNESS) * width)
    low, high = np.floor(hull.min(axis=0)) - reach, np.ceil(hull.max(axis=0)) + reach
    x1, y1 = (int(value) for value in np.maximum(low, 0))
    x2, y2 = (int(value) for value in np.minimum(high, (size[1], size[0])))
    grown = max(round(_GROWTH * width), 1)
    mask = np.zeros((y2 - y1, x2 - x1), np.float32)
    cv2.fillConvexPoly(mask, np.round(hull - (x1, y1)).astype(np.int32), 1.0)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * grown + 1,) * 2)
    mask = np.asarray(cv2.dilate(mask, disc), np.float32)
    # Nothing above the nose's base changes.
    top = float(max(points[_NOSE_BASE, 1].mean(), moved[_NOSE_BASE, 1].mean()))
    mask[: max(round(top + _SOFTNESS * width) - y1, 0)] = 0
    return (x1, y1, x2, y2), np.asarray(cv2.GaussianBlur(mask, (0, 0), _SOFTNESS * width / 2))


def _similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The turn, size and shift [2, 3] that brings points [m, 2] nearest to others (Umeyama)."""
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    cosine, sine = (a * b).sum(), (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()
    turn = np.array([[cosine, -sine], [sine, cosine]]) / np.square(a).sum()
    shift = target.mean(axis=0) - turn @ source.mean(axis=0)
    return np.concatenate([turn, shift[:, None]], axis=1)


def _smoothed(points: np.ndarray) -> np.ndarray:
    reach = len(_SMOOTHING) // 2
    padded = np.pad(points.astype(np.float64), ((reach, reach), (0, 0), (0, 0)), mode="edge")
    count = len(points)
    return np.asarray(sum(weight * padded[i : i + count] for i, weight in enumerate(_SMOOTHING)))
