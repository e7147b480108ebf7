"""Closes the open mouth of a still picture: the lips are moved together over what is between them.

A face model draws a mouth over the one that it is shown. It has learned from mouths at rest, and
what of a smile's teeth it does not replace stays. Pure arithmetic on a picture and its iBUG-68
landmarks; no files, no detector, no model.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from wsavatar.creation.calm import mouth_opening
from wsavatar.creation.lip_edges import COLUMNS, Lips, MouthPlace, lips_of

__all__ = ["OPEN_MOUTH", "can_close", "with_closed_mouth"]

OPEN_MOUTH = 0.05
"""Of the outer eye corners' distance: an inner lips' gap that shows."""
_WIDEST_OPEN = 0.4  # of the mouth's width: a jaw that is further down would have to move, too
_REST_WIDTH = 0.58  # of the outer eye corners' distance: a smiling mouth is wider
_NARROWER = (0.03, 0.22)  # of the mouth's width
_REST_PLACE = 0.38  # of the way from nose to chin: a smile's upper lip is above it
_LEAST_DOWN = 0.4  # of the gap: by so much at least the upper lip moves, the lower one by the rest
_LONGEST_DOWN = 1.8  # of the way from nose to upper lip: skin that is drawn out more shows it
_FLATTER = 0.5  # of a smile's bend
_THICKER = 0.3  # of the lips, which a smile stretches
_BESIDE, _ABOVE = 0.45, 0.6  # of half the mouth's width: how softly the cheeks follow
_NOSE, _CHIN = 0.97, 0.9  # of the way to them: there nothing moves


def can_close(points: np.ndarray) -> bool:
    """Whether the mouth of landmarks [68, 2] is open, and not so far that the jaw is down."""
    gap = np.linalg.norm(points[62] - points[66])
    is_closable = gap <= _WIDEST_OPEN * np.linalg.norm(points[54] - points[48])
    return bool(is_closable and mouth_opening(points) > OPEN_MOUTH)


def with_closed_mouth(picture: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture, uint8 [H, W, 3 or 4], with the lips together; and its landmarks [68, 2].

    The upper lip moves down to where a mouth at rest is, the lower one up; the corners move
    inwards and the smile is flatter. Only pixels between nose, cheeks and chin change.
    """
    mouth = MouthPlace.of(points)
    lips = lips_of(np.ascontiguousarray(picture[..., :3]), points, mouth)
    moved = _moved(lips, points, mouth)
    left, top, right, bottom = _around(mouth, points, picture.shape)
    rows, columns = np.mgrid[top:bottom, left:right]
    u, v = mouth.place(np.stack([columns, rows], axis=-1))
    above, below, is_above = _sources(moved, u, v)
    part = picture[top:bottom, left:right]
    shown = [_taken(picture, mouth.pixels(*source)) for source in (above, below)]
    blend = is_above[..., None].astype(np.float32)
    made = picture.copy()
    part = shown[0] * blend + shown[1] * (1 - blend)
    made[top:bottom, left:right] = np.clip(np.round(part), 0, 255).astype(np.uint8)
    return made, moved.landmarks(points, mouth)


@dataclass(frozen=True, slots=True)
class _Moved:
    """Where the lips are, and where they go: v of each of `COLUMNS`."""

    before: Lips
    top: np.ndarray
    seam: np.ndarray
    bottom: np.ndarray
    narrower: float
    nose: float
    chin: float
    pixels: float
    """Of the picture, for one of u and v."""

    def landmarks(self, points: np.ndarray, mouth: MouthPlace) -> np.ndarray:
        """The landmarks [68, 2] with those of the mouth where they go."""
        moved = points.astype(np.float32)
        u, v = mouth.place(points[48:68])
        by = {
            "upper": self.top - self.before.top,
            "lower": self.bottom - self.before.bottom,
            "corner": self.seam - (self.before.upper + self.before.lower) / 2,
        }
        v = v.copy()
        for side, which in (("upper", [1, 2, 3, 4, 5]), ("lower", [7, 8, 9, 10, 11])):
            v[which] += np.interp(u[which], COLUMNS, by[side])
        v[[0, 6]] += np.interp(u[[0, 6]], COLUMNS, by["corner"])
        v[12:] = np.interp(u[12:], COLUMNS, self.seam)
        moved[48:68] = mouth.pixels(u * (1 - self.narrower), v)
        return moved


def _moved(lips: Lips, points: np.ndarray, mouth: MouthPlace) -> _Moved:
    eyes = float(np.linalg.norm(points[45] - points[36]))
    narrower = float(np.clip(1 - _REST_WIDTH * eyes / (2 * mouth.half), *_NARROWER))
    _, (nose, chin) = mouth.place(points[[33, 8]])
    gap = lips.lower - lips.upper
    middle = len(COLUMNS) // 2
    open_by = max(float(gap[middle]), 1e-3)
    wanted = (nose + _REST_PLACE * (chin - nose) - lips.upper[middle]) / open_by
    longest = _LONGEST_DOWN * (lips.top[middle] - nose) / open_by
    down = max(min(float(np.clip(wanted, _LEAST_DOWN, 1)), float(longest)), _LEAST_DOWN)
    met = lips.upper + down * gap
    seam = met + _FLATTER * (met[middle] - met)
    top = seam - (lips.upper - lips.top) * (1 + _THICKER)
    bottom = seam + (lips.bottom - lips.lower) * (1 + _THICKER)
    return _Moved(lips, top, seam, bottom, narrower, _NOSE * nose, _CHIN * chin, mouth.half)


def _around(
    mouth: MouthPlace, points: np.ndarray, shape: tuple[int, ...]
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the part of the picture that can change."""
    reach = mouth.half * (1 + 3 * _BESIDE)
    far = np.linalg.norm(points[[33, 8]] - mouth.middle, axis=1).max()
    low, high = mouth.middle - max(reach, far), mouth.middle + max(reach, far)
    left, top = np.floor(np.maximum(low, 0)).astype(int)
    right, bottom = np.ceil(np.minimum(high, [shape[1], shape[0]])).astype(int)
    return int(left), int(top), int(right), int(bottom)


_Place = tuple[np.ndarray, np.ndarray]


def _sources(moved: _Moved, u: np.ndarray, v: np.ndarray) -> tuple[_Place, _Place, np.ndarray]:
    """From where each place (u, v) comes if it is above the seam, and if it is below; and how far
    it is above: 0 to 1 within a pixel."""
    rest = 1 - moved.narrower
    follows = np.exp(-np.square(np.maximum(np.abs(u) - rest, 0) / _BESIDE) - np.square(v / _ABOVE))
    from_u = u + np.sign(u) * moved.narrower * follows * np.clip(np.abs(u) / rest, 0, 1)
    beside = np.exp(-np.square(np.maximum(np.abs(from_u) - 1, 0) / _BESIDE))

    def line(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.interp(from_u, COLUMNS, values))

    seam = line(moved.seam)
    sides = []
    for outer_then, outer, inner_then, end in (
        (moved.before.top, moved.top, moved.before.upper, moved.nose),
        (moved.before.bottom, moved.bottom, moved.before.lower, moved.chin),
    ):
        edge, by_edge = line(outer), line(outer_then - outer)
        by_seam = line(inner_then - moved.seam)
        in_lip = np.clip((v - edge) / _not_zero(seam - edge), 0, 1)
        outside = np.clip((v - end) / _not_zero(edge - end), 0, 1)
        by = outside * by_edge + in_lip * (by_seam - by_edge)
        sides.append((from_u, v + by * beside))
    is_above = np.clip((seam - v) * moved.pixels + 0.5, 0, 1)
    return sides[0], sides[1], is_above


def _not_zero(length: np.ndarray) -> np.ndarray:
    return np.asarray(np.where(length < 0, np.minimum(length, -1e-3), np.maximum(length, 1e-3)))


def _taken(picture: np.ndarray, places: np.ndarray) -> np.ndarray:
    x, y = (places[..., axis].astype(np.float32) for axis in (0, 1))
    return cv2.remap(picture, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
