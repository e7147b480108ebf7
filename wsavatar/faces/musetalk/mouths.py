"""How like drawn mouths are to the true ones: which pairs can be trusted, and figures of quality.

Pictures and masks in, numbers out; this module knows no networks.
"""

from __future__ import annotations

import cv2
import numpy as np

from wsavatar.faces.finetuning import MouthQuality
from wsavatar.faces.musetalk.talking import TalkingPairs

__all__ = ["mouth_quality", "trusted_pairs"]

_TRUSTED = 0.5
"""Part of the pairs that is trusted: where drawn and true mouth move alike. Elsewhere the sound
misled the model, or is not the mouth's; from those it would learn to move less."""
_SMALL = (24, 16)  # pixels of a mouth that are compared


def trusted_pairs(pairs: TalkingPairs, least: int) -> np.ndarray:
    """Indices of the pairs whose drawn mouth is most like the true one, apart from its looks.

    At least so many, if there are.

    Both are compared as they differ from the mean of their kind, by correlation.
    """
    drawn, true = (_movements(pictures, pairs.mouths) for pictures in (pairs.drawn, pairs.truth))
    lengths = np.linalg.norm(drawn, axis=1) * np.linalg.norm(true, axis=1)
    alike = (drawn * true).sum(axis=1) / np.maximum(lengths, 1e-6)
    count = max(round(_TRUSTED * len(pairs)), min(least, len(pairs)))
    return np.sort(np.argsort(-alike, kind="stable")[:count])


def _movements(pictures: np.ndarray, mouths: np.ndarray) -> np.ndarray:
    """Each mouth's difference from their mean, in grey and few pixels: float32 [n, pixels]."""
    place = _rectangle(mouths.mean(axis=0))
    grey = [cv2.cvtColor(picture[place], cv2.COLOR_RGB2GRAY) for picture in pictures]
    small = [cv2.resize(one, _SMALL, interpolation=cv2.INTER_AREA) for one in grey]
    flat = np.stack(small).reshape(len(small), -1).astype(np.float32)
    moved: np.ndarray = flat - flat.mean(axis=0)
    return moved


def _rectangle(mouth: np.ndarray) -> tuple[slice, slice]:
    """Around the part of a mask that is over the middle between 0 and its maximum."""
    inside = mouth > mouth.max() / 2
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def mouth_quality(pairs: TalkingPairs) -> MouthQuality:
    """Of what is drawn against the truth, in the rectangle around the mouth's mask."""
    errors, sharpness = [], []
    for made, true, mouth in zip(pairs.drawn, pairs.truth, pairs.mouths, strict=True):
        place = _rectangle(mouth)
        a, b = made[place].astype(np.float32), true[place].astype(np.float32)
        errors.append(10 * np.log10(255**2 / max(float(np.square(a - b).mean()), 1e-3)))
        sharpness.append(_gradient(a) / max(_gradient(b), 1e-9))
    moved, truly = (
        float(np.square(_movements(pictures, pairs.mouths)).mean())
        for pictures in (pairs.drawn, pairs.truth)
    )
    return MouthQuality(
        float(np.mean(errors)), float(np.median(sharpness)), (moved / max(truly, 1e-9)) ** 0.5
    )


def _gradient(picture: np.ndarray) -> float:
    return float(sum(np.square(np.diff(picture, axis=axis)).sum() for axis in (0, 1)))
