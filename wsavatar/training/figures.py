"""The figures of ``evaluate``: pure functions of openings and pictures.

Pictures are uint8 [H, W, 3] RGB; openings are inner-lip gaps over the distance of the eyes' outer
corners, one a frame. This module knows no model and no files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import cv2
import numpy as np

__all__ = [
    "CLOSED_BELOW",
    "Figures",
    "LipFigures",
    "PictureFigures",
    "Share",
    "correlation",
    "compare_lips",
    "compare_pictures",
    "mouth_box",
    "offset_frames",
    "pooled",
    "psnr",
    "ssim",
]

CLOSED_BELOW = 0.035
"""Openings below count as closed: 3 mm where the eyes' outer corners are 90 mm apart."""
MAX_OFFSET = 3
_LIPS, _CHIN = slice(48, 68), 8
_SIDE, _ABOVE = 0.15, 0.35
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

Box = tuple[int, int, int, int]
_Part = TypeVar("_Part", "LipFigures", "PictureFigures")


@dataclass(frozen=True, slots=True)
class Share:
    """A count and its total."""

    count: int
    of: int

    @property
    def value(self) -> float:
        return self.count / self.of if self.of else float("nan")


@dataclass(frozen=True, slots=True)
class LipFigures:
    """Agreement of the lips of n pictures with the true ones."""

    correlation: float
    offset_frames: float  # positive: the picture comes after the sound
    silence_closed: Share  # of the frames well inside a pause
    bilabials_closed: Share  # of the closures; one is closed if any of its frames is
    bilabial_frames_closed: Share  # of all frames inside closures


@dataclass(frozen=True, slots=True)
class PictureFigures:
    """Agreement of the mouth's region of n pictures with the true one."""

    psnr_db: float  # mean over the frames
    ssim: float  # mean
    gradient_energy: float  # of the truth's; median
    laplacian_variance: float  # of the truth's; median


@dataclass(frozen=True, slots=True)
class Figures:
    lips: LipFigures
    picture: PictureFigures


def pooled(clips: Sequence[Figures]) -> Figures:
    """Figures of several clips: shares are added, all other figures are means over the clips."""
    return Figures(
        lips=_pool_fields(LipFigures, [clip.lips for clip in clips]),
        picture=_pool_fields(PictureFigures, [clip.picture for clip in clips]),
    )


def _pool_fields(kind: type[_Part], parts: Sequence[_Part]) -> _Part:
    columns = {f.name: [getattr(part, f.name) for part in parts] for f in fields(kind)}
    return kind(**{name: _pool(values) for name, values in columns.items()})


def _pool(values: list[Any]) -> Any:
    if isinstance(values[0], Share):
        return Share(sum(share.count for share in values), sum(share.of for share in values))
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


# -- lips -----------------------------------------------------------------------------------------


def compare_lips(
    opening: np.ndarray, true_opening: np.ndarray, silent: np.ndarray, bilabial: np.ndarray
) -> LipFigures:
    """All arguments are [n]; the last two are masks."""
    closed = opening < CLOSED_BELOW
    closures = [bool(closed[run].any()) for run in runs(bilabial)]
    return LipFigures(
        correlation=correlation(opening, true_opening),
        offset_frames=offset_frames(opening, true_opening),
        silence_closed=_share(closed[silent]),
        bilabials_closed=_share(np.array(closures, bool)),
        bilabial_frames_closed=_share(closed[bilabial]),
    )


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation; NaN where one of them is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def offset_frames(opening: np.ndarray, true_opening: np.ndarray) -> int:
    """The lag from -`MAX_OFFSET` to `MAX_OFFSET` with the best correlation; 0 where undefined.

    All lags are compared on the same true frames.
    """
    count = len(true_opening) - 2 * MAX_OFFSET
    if count < 2:
        return 0
    true = true_opening[MAX_OFFSET:][:count]
    lags = sorted(range(-MAX_OFFSET, MAX_OFFSET + 1), key=abs)
    agreement = [correlation(opening[MAX_OFFSET + lag :][:count], true) for lag in lags]
    return lags[int(np.nanargmax(agreement))] if np.isfinite(agreement).any() else 0


def runs(mask: np.ndarray) -> list[slice]:
    """The true runs of a mask, as slices."""
    edges = np.flatnonzero(np.diff(np.pad(mask.astype(np.int8), 1)))
    return [slice(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _share(mask: np.ndarray) -> Share:
    return Share(int(mask.sum()), len(mask))


# -- pictures -------------------------------------------------------------------------------------


def mouth_box(rest: np.ndarray, speaking: np.ndarray, width: int, height: int) -> Box:
    """The mouth's region of one frame, (x1, y1, x2, y2), from its landmarks [68, 2] at rest and
    speaking: both pairs of lips, 15 % of their width more on either side and 35 % of their height
    more above; below, down to the lower of the two chins.
    """
    lips = np.concatenate([rest[_LIPS], speaking[_LIPS]])
    (x1, y1), (x2, y2) = lips.min(axis=0), lips.max(axis=0)
    side, above = _SIDE * (x2 - x1), _ABOVE * (y2 - y1)
    chin = max(rest[_CHIN, 1], speaking[_CHIN, 1])
    left, top, right, bottom = (round(float(v)) for v in (x1 - side, y1 - above, x2 + side, chin))
    return max(left, 0), max(top, 0), min(right, width), min(bottom, height)


def compare_pictures(made: np.ndarray, truth: np.ndarray, boxes: list[Box]) -> PictureFigures:
    """``made`` and ``truth`` [n, H, W, 3]; ``boxes`` the mouth's region of every frame."""
    pairs = [
        (m[y1:y2, x1:x2], t[y1:y2, x1:x2])
        for m, t, (x1, y1, x2, y2) in zip(made, truth, boxes, strict=True)
    ]

    def of_truth(measure: Callable[[np.ndarray], float]) -> float:
        return float(np.median([measure(m) / max(measure(t), 1e-9) for m, t in pairs]))

    return PictureFigures(
        psnr_db=float(np.mean([psnr(m, t) for m, t in pairs])),
        ssim=float(np.mean([ssim(m, t) for m, t in pairs])),
        gradient_energy=of_truth(gradient_energy),
        laplacian_variance=of_truth(laplacian_variance),
    )


def psnr(made: np.ndarray, truth: np.ndarray) -> float:
    """In dB, of the mean squared error over pixels and channels; 100 without error."""
    error = float(np.mean((made.astype(np.float32) - truth) ** 2))
    return 10 * float(np.log10(255**2 / max(error, 255**2 * 1e-10)))


def ssim(made: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity of luma (Wang et al. 2004): Gaussian 11x11 of sigma 1.5."""
    a, b = luma(made), luma(truth)

    def mean(picture: np.ndarray) -> np.ndarray:
        blurred: np.ndarray = cv2.GaussianBlur(picture, (11, 11), 1.5)
        return blurred

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    numerator = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float(np.mean(numerator / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))))


def gradient_energy(picture: np.ndarray) -> float:
    """Sum of squared differences between neighbouring pixels, across and down, all channels."""
    values = picture.astype(np.float32)
    return float(sum((np.diff(values, axis=axis) ** 2).sum() for axis in (0, 1)))


def laplacian_variance(picture: np.ndarray) -> float:
    """Variance of luma's Laplacian."""
    return float(cv2.Laplacian(luma(picture), cv2.CV_32F).var())


def luma(picture: np.ndarray) -> np.ndarray:
    """Rec. 601, float32 [H, W]."""
    weighted: np.ndarray = picture.astype(np.float32) @ _LUMA
    return weighted
