"""Which colours a face has; a patch keeps to them.

A model that learned from many faces adds its own tint to what it cannot see: lips of a grey photo
turn blue, a tongue turns lilac. Colours here are how much more red and more blue there is than
green. Pure arithmetic; nothing here knows a model or how a patch is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

__all__ = ["ALL_COLOURS", "all_of", "colours_of", "with_colours"]

ALL_COLOURS = np.array([[-255, -255], [255, 255]], np.int16)
"""With these a picture stays as it is."""
_RARE_PERCENT = 1
_REDDER = np.array([0.3, 0.0])
"""Of the range, of red and of blue: the inside of a mouth is redder than lips, and never bluer."""


def colours_of(pixels: np.ndarray) -> np.ndarray:
    """The colours of a face's uint8 [n, 3] RGB: int16 [2, 2], least and greatest of red and blue.

    Grey is always among them: teeth have hardly any colour. Of a face without pixels, which lies
    beyond the picture, all colours may be.
    """
    if not len(pixels):
        return ALL_COLOURS
    whole = pixels.astype(np.int16)
    over_green = whole[:, ::2] - whole[:, 1:2]
    least, greatest = np.percentile(over_green, (_RARE_PERCENT, 100 - _RARE_PERCENT), axis=0)
    greatest += _REDDER * (greatest - least)
    return _whole(np.minimum(least, 0), np.maximum(greatest, 0))


def all_of(colours: Iterable[np.ndarray]) -> np.ndarray:
    """The colours that any of some pictures has: int16 [2, 2]."""
    least, greatest = zip(*colours, strict=True)
    return _whole(np.min(least, axis=0), np.max(greatest, axis=0))


def with_colours(picture: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """A picture uint8 [h, w, 3] RGB with the nearest of ``colours``; its green stays."""
    red, green, blue = cv2.split(picture)
    kept = [
        cv2.max(cv2.min(one, cv2.add(green, most)), cv2.subtract(green, -least))
        for one, least, most in zip((red, blue), *colours.astype(float), strict=True)
    ]
    return cv2.merge((kept[0], green, kept[1]))


def _whole(least: np.ndarray, greatest: np.ndarray) -> np.ndarray:
    return np.round([least, greatest]).astype(np.int16)
