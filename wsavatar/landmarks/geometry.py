"""The place of a face, from its points; and the crop that the networks see. Pure arithmetic.

A face's place is its middle, its size and its roll: those of the mean face that fits its points
best (least squares). All 68 points share in it, so it moves less than any of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

__all__ = [
    "CROP_SIDE",
    "MEAN_FACE",
    "MIRROR",
    "Place",
    "check_picture",
    "crop",
    "overlap",
    "place_of",
]

CROP_SIDE = 1.6
"""The crop's side in sizes of the face: some of the hair and all of the chin of any face."""

# fmt: off
MEAN_FACE = np.array([
    (-500, -267), (-494, -119), (-471, 14), (-445, 142), (-389, 287), (-292, 404),
    (-207, 452), (-104, 475), (0, 496), (104, 475), (207, 452), (292, 404),
    (389, 287), (445, 142), (471, 14), (494, -119), (500, -267), (-395, -371),
    (-335, -424), (-258, -442), (-164, -438), (-80, -419), (80, -419), (164, -438),
    (258, -442), (335, -424), (395, -371), (0, -272), (0, -197), (0, -127),
    (0, -45), (-85, 60), (-41, 60), (0, 64), (41, 60), (85, 60),
    (-303, -251), (-263, -281), (-189, -285), (-125, -238), (-185, -227), (-262, -226),
    (125, -238), (189, -285), (263, -281), (303, -251), (262, -226), (185, -227),
    (-172, 221), (-116, 171), (-49, 147), (0, 151), (49, 147), (116, 171),
    (172, 221), (122, 258), (70, 275), (0, 280), (-70, 275), (-122, 258),
    (-150, 219), (-68, 206), (0, 208), (68, 206), (150, 219), (73, 212),
    (0, 213), (-73, 212),
], np.float32) / 1000
# fmt: on
"""A frontal face at rest: the 68 points about their mean; its longer side is 1."""
# fmt: off
MIRROR = np.array([
    16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0,
    26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 27, 28, 29, 30, 35, 34, 33, 32, 31,
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
])
# fmt: on
"""A mirrored face's point i is the face's point MIRROR[i]."""
_NORM = float((MEAN_FACE**2).sum())


@dataclass(frozen=True, slots=True)
class Place:
    """Where a face is: its middle (x, y) and size in pixels, its roll clockwise in radians."""

    x: float
    y: float
    size: float
    roll: float


def check_picture(picture: np.ndarray) -> None:
    """Raise ValueError unless the picture is uint8 [h, w, 3], with a pixel."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(f"a picture is uint8 [h, w, 3], not {picture.dtype} {picture.shape}")


def place_of(points: np.ndarray) -> Place:
    """The place of the face with these points [68, 2]."""
    middle = points.mean(0)
    moved = points - middle
    along = float((MEAN_FACE * moved).sum()) / _NORM
    across = float((MEAN_FACE[:, 0] * moved[:, 1] - MEAN_FACE[:, 1] * moved[:, 0]).sum()) / _NORM
    return Place(
        float(middle[0]), float(middle[1]), float(np.hypot(along, across)),
        float(np.arctan2(across, along)),
    )  # fmt: skip


def crop(picture: np.ndarray, place: Place, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The face upright in the middle of a square of ``side`` pixels, black beyond the picture.

    Returns it, and the matrix [2, 3] from parts of its side to pixels of the picture. A picture
    that is reduced is averaged first, so that no fine detail turns into noise.
    """
    reach = CROP_SIDE * place.size
    cosine, sine = np.cos(place.roll) * reach, np.sin(place.roll) * reach
    turn = np.array([[cosine, -sine], [sine, cosine]])
    # A pixel's middle is half a pixel from its corner, where coordinates begin in OpenCV.
    to_picture = np.column_stack([turn, np.array([place.x, place.y]) - turn @ [0.5, 0.5]])
    part, origin, scale = _reduced(picture, place, reach, side)
    local = to_picture.copy()
    local[:, 2] -= origin
    local = local / scale
    local[:, 2] -= 0.5
    pixels = local @ np.array([[1 / side, 0, 0.5 / side], [0, 1 / side, 0.5 / side], [0, 0, 1]])
    made = cv2.warpAffine(
        part, pixels, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
    )  # fmt: skip
    return made, to_picture


def _reduced(
    picture: np.ndarray, place: Place, reach: float, side: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """The picture around the face, averaged over squares where it has more pixels than needed.

    Returns it, the pixel of the picture at its corner, and how many pixels a side were averaged.
    """
    height, width = picture.shape[:2]
    scale = max(1, int(reach / side))
    half = reach * 0.75 + 2 * scale  # a square in any roll lies in a circle of 0.71 sides
    x1, y1 = (max(0, int(v - half)) // scale * scale for v in (place.x, place.y))
    x2 = min(width, int(place.x + half) + 1)
    y2 = min(height, int(place.y + half) + 1)
    if x2 - x1 < scale or y2 - y1 < scale:
        return np.zeros((1, 1, 3), np.uint8), np.array([x1, y1]), 1
    x2, y2 = x1 + (x2 - x1) // scale * scale, y1 + (y2 - y1) // scale * scale
    part = picture[y1:y2, x1:x2]
    if scale > 1:
        part = cv2.resize(
            part, ((x2 - x1) // scale, (y2 - y1) // scale), interpolation=cv2.INTER_AREA
        )
    return part, np.array([x1, y1]), scale


def overlap(one: Place, other: Place) -> float:
    """How much of the smaller of two faces, seen as circles' boxes, lies in the other: 0 to 1."""
    sides = [
        max(
            0.0,
            min(a + one.size / 2, b + other.size / 2) - max(a - one.size / 2, b - other.size / 2),
        )
        for a, b in ((one.x, other.x), (one.y, other.y))
    ]
    return sides[0] * sides[1] / max(min(one.size, other.size) ** 2, 1e-6)
