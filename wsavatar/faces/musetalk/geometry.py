"""The place of a face: the model's crop, the square of the paste, and the mask of what changes.

Pure arithmetic on iBUG-68 landmarks (0-16 jaw, 29 nose bridge, 33 nose base). Boxes are
(x1, y1, x2, y2), x2 and y2 exclusive. This module knows no files, no model and no sessions.
"""

from __future__ import annotations

import cv2
import numpy as np

from wsavatar.errors import WsavatarError
from wsavatar.faces.colours import colours_of
from wsavatar.faces.musetalk.spec import CropMargin

__all__ = [
    "GeometryError",
    "crop_box",
    "lower_face_colours",
    "lower_face_mask",
    "mouth_shift",
    "paste_box",
    "smooth_landmarks",
    "take_crop",
]

Box = tuple[int, int, int, int]

_NOSE_BRIDGE, _NOSE_BASE, _JAW = 29, 33, slice(0, 17)
_SMOOTHING_S = 0.06
_LIPS = [62, 66]
_MOUTH_AT = 0.5  # of the way from the nose bridge to the chin, at least
_PASTE_EXPANSION = 1.5
_BLUR_OF_PASTE_WIDTH = 0.05
_FEATHER_OF_CROP_WIDTH = 0.04
_MASK_GROWTH = np.array([1.06, 1.4])  # as an opened jaw needs; more would show more of the neck
_MIN_CROP_SIDE = 32


class GeometryError(WsavatarError, ValueError):
    """A face has no usable place in the picture."""


def smooth_landmarks(landmarks: np.ndarray, fps: float) -> np.ndarray:
    """Smooth landmarks over time with a Gaussian of 60 ms. float32 [n, 68, 2] in and out.

    A box that trembles makes the mouth swim against the face, because the model draws relative to
    its crop. With exact landmarks the only trembling is the rounding to whole pixels and the noise
    of a detector, both within a few frames, so a short filter ends it; a long one would let the
    box lag behind the head. The ends are mirrored without repeating a frame, as the cycle plays.
    """
    sigma = _SMOOTHING_S * fps
    reach = min(int(np.ceil(3 * sigma)), len(landmarks) - 1)
    if reach < 1:
        return landmarks.astype(np.float32)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    padded = np.pad(landmarks, ((reach, reach), (0, 0), (0, 0)), mode="reflect")
    count = len(landmarks)
    return sum(
        (weight * padded[i : i + count] for i, weight in enumerate(weights)),
        start=np.zeros(landmarks.shape),
    ).astype(np.float32)


def mouth_shift(landmarks: np.ndarray) -> np.ndarray:
    """By how many pixels to move each frame's crop for landmarks [n, 68, 2]: float [n], not down.

    A model that learned from people whose mouth is in the middle between landmark 29 and the chin
    draws a smear over a mouth that is higher, as in a smile. With its middle further up the crop
    shows the mouth where the model draws it. It is the same part of the face in all frames.
    """
    middle, chin = landmarks[:, _NOSE_BRIDGE, 1], landmarks[:, :, 1].max(axis=1)
    height = np.maximum(chin - middle, 1.0)
    mouth_at = float(np.median((landmarks[:, _LIPS, 1].mean(axis=1) - middle) / height))
    shift: np.ndarray = -max(_MOUTH_AT - mouth_at, 0) / (1 - _MOUTH_AT) * height
    return shift


def crop_box(
    landmarks: np.ndarray, margin: CropMargin, width: int, height: int, *, bbox_shift: float = 0
) -> Box:
    """The model's crop for one frame's landmarks [68, 2] in a picture of ``width`` x ``height``.

    x from the landmarks' extent; y2 = chin + margin; y1 such that landmark 29 is in the middle,
    moved down by ``bbox_shift`` pixels (v1.0 models, `mouth_shift`). A relative margin counts in
    parts of the box's height without margin. Where the chin's side leaves the picture the box
    shrinks about its middle, because the model redraws exactly the lower half; a forehead is merely
    cut off.

    Raises GeometryError where less than 32 pixels a side remain.
    """
    middle = float(landmarks[_NOSE_BRIDGE, 1]) + bbox_shift
    chin = float(landmarks[:, 1].max())
    bottom = min(chin + margin.below_chin(2 * (chin - middle)), height)
    x1 = max(round(float(landmarks[:, 0].min())), 0)
    x2 = min(round(float(landmarks[:, 0].max())), width)
    y1 = max(round(2 * middle - bottom), 0)
    y2 = round(bottom)
    if x2 - x1 < _MIN_CROP_SIDE or y2 - y1 < _MIN_CROP_SIDE:
        raise GeometryError(
            f"the face's crop is {x2 - x1}x{y2 - y1} pixels inside the picture; "
            f"it needs {_MIN_CROP_SIDE} a side"
        )
    return x1, y1, x2, y2


def paste_box(crop: Box, width: int, height: int) -> Box:
    """A square 1.5 times the crop's longer side about its centre, clipped to the picture."""
    x1, y1, x2, y2 = crop
    centre_x, centre_y = (x1 + x2) // 2, (y1 + y2) // 2
    half = int(max(x2 - x1, y2 - y1) // 2 * _PASTE_EXPANSION)
    return (
        max(min(centre_x - half, x1), 0),
        max(min(centre_y - half, y1), 0),
        min(max(centre_x + half, x2), width),
        min(max(centre_y + half, y2), height),
    )


def take_crop(frame: np.ndarray, crop: Box, size: int) -> np.ndarray:
    """The crop as the model sees it: uint8 [size, size, 3], Lanczos."""
    x1, y1, x2, y2 = crop
    return cv2.resize(frame[y1:y2, x1:x2], (size, size), interpolation=cv2.INTER_LANCZOS4)


def lower_face_mask(
    landmarks: np.ndarray,
    crop: Box,
    paste: Box,
    width: int,
    height: int,
    *,
    first_row: float = 0.0,
) -> np.ndarray:
    """Alpha of the lower face in the paste box: uint8 [h, w], zero outside the crop.

    The jaw's hull, grown because an opened jaw reaches below the resting chin, without the upper
    half, Gaussian-blurred with a kernel of 5 % of the width; then faded to zero before the crop's
    borders, so that no pixel is shown that the model did not draw. A border on the picture's own
    edge is not faded. ``first_row``: part of the crop's height above which
    the model draws nothing.
    """
    left, top, right, bottom = paste
    x1, y1, x2, y2 = crop
    middle = (y1 + y2) / 2
    centre = np.array([landmarks[_NOSE_BASE, 0], middle])
    hull = cv2.convexHull(
        (centre + (landmarks[_JAW] - centre) * _MASK_GROWTH - (left, top)).astype(np.float32)
    )
    mask = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillConvexPoly(mask, np.round(hull).astype(np.int32), 255)
    mask[: round(middle) - top] = 0
    kernel = int(_BLUR_OF_PASTE_WIDTH * mask.shape[1] // 2 * 2) + 1
    blurred = cv2.GaussianBlur(mask.astype(np.float32), (kernel, kernel), 0)

    feather = max(_FEATHER_OF_CROP_WIDTH * (x2 - x1), 4.0)
    columns, rows = np.arange(left, right), np.arange(top, bottom)
    drawn_from = y1 + first_row * (y2 - y1)
    across = _fade_in(columns - x1, feather if x1 > 0 else 0)
    across *= _fade_in(x2 - 1 - columns, feather if x2 < width else 0)
    down = _fade_in(rows - drawn_from - (2 if first_row else 0), feather)
    down *= _fade_in(y2 - 1 - rows, feather if y2 < height else 0)
    alpha: np.ndarray = np.round(blurred * across * down[:, None])
    return alpha.astype(np.uint8)


def lower_face_colours(landmarks: np.ndarray, crop: Box, picture: np.ndarray) -> np.ndarray:
    """The `colours_of` what a model draws over: between jaw and nose, in the crop as it sees it."""
    x1, y1, x2, y2 = crop
    height, width = picture.shape[:2]
    jaw = (landmarks[_JAW] - (x1, y1)) * (width / (x2 - x1), height / (y2 - y1))
    inside = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(inside, np.round(cv2.convexHull(jaw.astype(np.float32))).astype(int), 1)
    inside[: height // 2] = 0
    return colours_of(picture[inside > 0])


def _fade_in(distance: np.ndarray, length: float) -> np.ndarray:
    """0 up to a border, 1 from ``length`` pixels inside it, smooth between (smoothstep)."""
    t = np.clip(distance / length, 0, 1) if length else (distance >= 0).astype(np.float64)
    faded: np.ndarray = t * t * (3 - 2 * t)
    return faded
