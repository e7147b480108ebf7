"""Puts the model's crop back into the picture, touching no pixel but what mask and jaw name.

Pure numpy and OpenCV; one thread. It knows no models, and of avatars only the data of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from wsavatar.faces.avatar_face import Jaw
from wsavatar.faces.colours import with_colours
from wsavatar.render.finish.jaw import move_pixels, read_jaw

__all__ = ["COLOUR_MATCH_LEVELS", "colour_matched", "paste", "sharpened"]

COLOUR_MATCH_LEVELS = 6
"""At most so far, of 255, is a patch's colour moved: a model's drift, not another light."""


def paste(
    frame: np.ndarray,
    patch: np.ndarray,
    crop_box: Sequence[int] | np.ndarray,
    paste_box: Sequence[int] | np.ndarray,
    mask: np.ndarray,
    sharpness: float = 0.0,
    colour_match: bool = False,
    jaw: Jaw | None = None,
    colours: np.ndarray | None = None,
) -> np.ndarray:
    """Blend ``patch`` into a copy of ``frame``.

    ``frame`` uint8 [H, W, 3] RGB, or RGBA [H, W, 4], whose alpha moves with the jaw and no more;
    ``patch`` uint8 [S, S, 3], drawn for ``crop_box``; ``mask`` uint8 alpha [h, w] over
    ``paste_box``, zero outside the crop. Boxes are (x1, y1, x2, y2) in the frame's pixels and may
    exceed it (for a frame cut to its mouth region): outside pixels are skipped. ``sharpness`` is
    the share of the patch's finest detail that `sharpened` adds; ``colour_match`` applies
    `colour_matched`. With the frame's ``jaw``, its own pixels move as the patch's jaw does, and the
    patch is shown where it differs from them. ``colours`` are `AvatarFace.colours`.
    """
    pasted = frame.copy()
    if colours is not None:
        patch = with_colours(patch, colours)
    read = read_jaw(patch, jaw) if jaw else None
    if jaw and read:
        move_pixels(pasted, jaw, read.opened)
    x, y, w, h = cv2.boundingRect(mask)
    left, top = int(paste_box[0]), int(paste_box[1])
    x1, y1, x2, y2 = (int(edge) for edge in crop_box)
    # What changes: where the mask is not zero, the patch reaches, and there is a picture.
    start_x, start_y = max(left + x, x1, 0), max(top + y, y1, 0)
    end_x = min(left + x + w, x2, frame.shape[1])
    end_y = min(top + y + h, y2, frame.shape[0])
    if start_x >= end_x or start_y >= end_y:
        return pasted
    drawn = _resize(sharpened(patch, sharpness), x2 - x1, y2 - y1)[
        start_y - y1 : end_y - y1, start_x - x1 : end_x - x1
    ]
    alpha = mask[start_y - top : end_y - top, start_x - left : end_x - left]
    target = pasted[start_y:end_y, start_x:end_x, :3]
    if colour_match:
        drawn = colour_matched(drawn, target, alpha)
    if jaw and read:
        share, light = read.fields(jaw, (start_x, start_y, end_x, end_y))
        own = cv2.multiply(alpha, share, dtype=cv2.CV_8U)
        light = cv2.multiply(light, _in_colours(alpha), dtype=cv2.CV_16S)
        target[:] = _blend(target, drawn, own, light)
    else:
        target[:] = _blend(target, drawn, alpha)
    return pasted


def sharpened(patch: np.ndarray, amount: float) -> np.ndarray:
    """Unsharp mask: add ``amount`` times what a Gaussian of one pixel takes away; 0 adds nothing.

    A model's mouth is softer than the picture around it, and resizing it to its place softens it
    once more.
    """
    if not amount:
        return patch
    return cv2.addWeighted(patch, 1 + amount, cv2.GaussianBlur(patch, (5, 5), 1.0), -amount, 0)


def colour_matched(above: np.ndarray, below: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Move each channel of ``above`` by its mean difference from ``below`` along the soft border.

    The border is where alpha is neither 0 nor 255: there both pictures show the same skin, so a
    difference is the model's. The step is a whole number of levels, `COLOUR_MATCH_LEVELS` at most;
    without a soft border it is 0.
    """
    border = (alpha > 0) & (alpha < 255)
    if not border.any():
        return above
    difference = (below[border].astype(np.int32) - above[border]).mean(axis=0)
    step = np.rint(np.clip(difference, -COLOUR_MATCH_LEVELS, COLOUR_MATCH_LEVELS))
    matched: np.ndarray = np.clip(above + step.astype(np.int16), 0, 255).astype(np.uint8)
    return matched


def _resize(patch: np.ndarray, width: int, height: int) -> np.ndarray:
    if patch.shape[:2] == (height, width):
        return patch
    # Cubic keeps edges when enlarging; area averages, so that shrinking causes no moiré. Where one
    # side grows, what OpenCV calls area is none: it interpolates linearly, which blurs.
    shrinks = height <= patch.shape[0] and width <= patch.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(patch, (width, height), interpolation=interpolation)


def _blend(
    below: np.ndarray, above: np.ndarray, alpha: np.ndarray, light: np.ndarray | None = None
) -> np.ndarray:
    """round((below * (255 - alpha) + above * alpha + light) / 255), exactly, from 0 to 255.

    ``light`` int16 [h, w, 3].
    """
    weight = _in_colours(alpha).astype(np.uint16)
    total: np.ndarray = below * (255 - weight)
    total += above * weight
    if light is not None:
        total = cv2.add(total, light, dtype=cv2.CV_16U)
    return cv2.convertScaleAbs(total, alpha=1 / 255)


def _in_colours(alpha: np.ndarray) -> np.ndarray:
    """Three equal planes cost a copy, but to broadcast one costs numpy seven times a blend."""
    return cv2.merge((alpha, alpha, alpha))
