"""Blinks of a still picture: the upper lids come down over the eyes.

Pure arithmetic on a picture and its iBUG-68 landmarks. A closed lid has the colour of the skin
around the eye, as it is in each column from one corner to the other, with the grain of the skin
below, and ends in a line as dark as the lashes were. Brows, glasses and what is below the eye stay.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

__all__ = ["CLOSED_PARTS", "EyeLids"]

CLOSED_PARTS = (0.3, 0.8, 1.0, 1.0, 0.75, 0.4, 0.15)
"""How far the lids are closed in the frames of one blink, at 25 frames/s: 0.28 s."""

_EYES = (slice(36, 42), slice(42, 48))
_UPPER = (0, 1, 2, 3)  # of an eye's six points: from corner to corner
_LOWER = (0, 5, 4, 3)
_MIN_HEIGHT, _MIN_WIDTH = 3.0, 12.0  # pixels: smaller eyes have no lids to see
_MIN_ASPECT = 0.12  # height over width: below, the eyes are closed, or nearly
_SKIN_RANGE = 210  # levels
_FAR = 0.55  # width of the eye that is turned away over the other's: below, it is a profile's
# In widths of the eye:
_LASHES = 0.1  # around the upper points: lashes and the lid's edge
_ABOVE = (0.08, 0.4)  # over the upper points: skin, with the brow's lower edge
_UNDER = (0.06, 0.25)  # below the lower points: skin
_MARGIN = 0.5  # around the eye: what must be in the picture
_BELOW = 0.03  # below the lower points: where the closed lid ends
_SMOOTH = 0.12  # along the lid
_LINE = 0.035  # half thickness of the line of lashes
_DARK = 0.85  # opacity of that line
_GRAIN = (0.12, 0.3)  # below the lower points: skin without folds
_FINEST = 0.03  # what is coarser is no grain
_MOST_GRAIN = 8.0  # levels: more is a lash, a rim or a wrinkle
_SAMPLES = 12  # of each side's skin in a column
_BRIGHT = (0.5, 0.85)  # of them, by brightness: without folds, shadows, lashes and gleams

_Curve = Callable[[np.ndarray], np.ndarray]


class EyeLids:
    """The lids of the face in a picture, uint8 [H, W, 3], with landmarks [68, 2].

    ``can_blink``: whether both eyes are open and large enough, none is turned away, and skin is
    above them, not the rim of glasses or hair.
    """

    def __init__(self, picture: np.ndarray, points: np.ndarray) -> None:
        self._picture = picture
        eyes = [points[eye].astype(np.float64) for eye in _EYES]
        narrow, wide = sorted(float(np.linalg.norm(eye[3] - eye[0])) for eye in eyes)
        are_seen = all(_is_open(eye) and _is_inside(picture, eye) for eye in eyes)
        are_clear = are_seen and not any(_is_covered(picture, eye) for eye in eyes)
        self.can_blink = are_clear and narrow > _FAR * wide
        self._lids = [_Lid(picture, eye) for eye in eyes] if self.can_blink else []

    def closed(self, part: float) -> np.ndarray:
        """The picture with the lids that part closed, from 0 to 1."""
        if part <= 0 or not self.can_blink:
            return self._picture
        shown = self._picture.copy()
        for lid in self._lids:
            lid.close(shown, part)
        return shown

    def moved(self, points: np.ndarray, part: float) -> np.ndarray:
        """The landmarks with the lids that part closed, float32 [68, 2]."""
        moved = points.astype(np.float32)
        if part > 0 and self.can_blink:
            for eye in _EYES:
                for upper, lower in ((1, 5), (2, 4)):
                    at, to = moved[eye.start + upper], moved[eye.start + lower]
                    moved[eye.start + upper] = at + (to - at) * part
        return moved


def _is_open(eye: np.ndarray) -> bool:
    """Also that its points are where those of an upright face are, from left to right."""
    width = float(eye[3, 0] - eye[0, 0])
    height = float((eye[[5, 4]] - eye[[1, 2]])[:, 1].mean())
    is_in_order = bool((np.diff(eye[_UPPER, 0]) > 0).all())
    is_large = width >= _MIN_WIDTH and height >= max(_MIN_HEIGHT, _MIN_ASPECT * width)
    return is_in_order and is_large


def _is_inside(picture: np.ndarray, eye: np.ndarray) -> bool:
    margin = _MARGIN * float(eye[3, 0] - eye[0, 0])
    size = picture.shape[1], picture.shape[0]
    return bool((eye > margin).all() and (eye < np.subtract(size, margin)).all())


def _is_covered(picture: np.ndarray, eye: np.ndarray) -> bool:
    """Whether both the blackest and the whitest are right above the eye, which skin never has."""
    width, upper = float(eye[3, 0] - eye[0, 0]), float(eye[[1, 2], 1].min())
    first, last = max(int(eye[1, 0]), 0), int(eye[2, 0]) + 1
    low, high = max(int(upper - _MARGIN * width), 0), int(upper - _LASHES * width) + 1
    band = picture[low:high, first:last].mean(axis=2)
    return float(np.ptp(band)) > _SKIN_RANGE


class _Lid:
    """The upper lid of one eye, float [6, 2], in coordinates of that eye: u from its left corner to
    the other, and v down from the line between them, in pixels."""

    def __init__(self, picture: np.ndarray, eye: np.ndarray) -> None:
        along = eye[3] - eye[0]
        self._width = float(np.linalg.norm(along))
        along /= self._width
        self._axes = np.stack([along, [-along[1], along[0]]])
        self._origin = eye[0]
        points = (eye - eye[0]) @ self._axes.T
        self._upper, self._lower = _curve(points[_UPPER, :]), _curve(points[_LOWER, :])
        self._reach = float(np.abs(points[:, 1]).max()) + _MARGIN * self._width
        columns = np.arange(np.ceil(1.2 * self._width)) - 0.1 * self._width
        self._skin = self._skin_of(picture, columns)
        self._grain = self._grain_of(picture, columns)
        edge = np.linspace(-_LASHES / 2, _LASHES / 2, _SAMPLES) * self._width
        lashes = self._sampled(picture, columns, self._upper, edge).reshape(-1, 1, 3)
        self._lashes = _mean_of(lashes, 0, 0.1)[0]

    def _skin_of(self, picture: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """float32 [1, n, 3]: the skin around the eye at n columns, without what is darker."""
        bands = [
            self._sampled(picture, columns, curve, np.linspace(*band, _SAMPLES) * self._width)
            for curve, band in (
                (self._upper, (-_ABOVE[0], -_ABOVE[1])),
                (self._lower, _UNDER),
            )
        ]
        skin = _mean_of(np.concatenate(bands), *_BRIGHT)[None].astype(np.float32)
        sigma = _SMOOTH * self._width
        return cv2.GaussianBlur(skin, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)

    def _grain_of(self, picture: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """float32 [m, n, 3]: how pixels below the eye, m rows and n columns, differ from those near
        them."""
        rows = np.arange(_GRAIN[0] * self._width, _GRAIN[1] * self._width)
        seen = self._sampled(picture, columns, self._lower, rows).astype(np.float32)
        grain = seen - cv2.GaussianBlur(seen, (0, 0), max(_FINEST * self._width, 1.0))
        return np.asarray(np.clip(grain, -_MOST_GRAIN, _MOST_GRAIN))

    def _sampled(
        self, picture: np.ndarray, columns: np.ndarray, curve: _Curve, offsets: np.ndarray
    ) -> np.ndarray:
        """float64 [m, n, 3]: the picture at n columns, m offsets down from a curve."""
        v = curve(columns) + offsets[:, None]
        at = np.stack([np.broadcast_to(columns, v.shape), v], 2) @ self._axes + self._origin
        x, y = np.moveaxis(at.astype(np.float32), 2, 0)
        return cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(
            np.float64
        )

    def close(self, shown: np.ndarray, part: float) -> None:
        """Draw the lid, closed by that part, into the picture."""
        width = self._width
        corners = np.array([(u, v) for u in (-0.1, 1.1) for v in (-1, 1)]) * (width, self._reach)
        around = self._origin + corners @ self._axes
        x1, y1 = np.maximum(np.floor(around.min(axis=0)).astype(int), 0)
        x2, y2 = np.ceil(around.max(axis=0)).astype(int) + 1
        under = shown[y1:y2, x1:x2].astype(np.float32)
        rows, columns = np.mgrid[y1 : y1 + len(under), x1 : x1 + under.shape[1]]
        u, v = np.tensordot(
            self._axes, np.stack([columns - self._origin[0], rows - self._origin[1]]), 1
        )
        upper = self._upper(u)
        lower = np.maximum(self._lower(u), upper)
        opened = np.clip((lower - upper) / (0.08 * width), 0, 1)  # 0 in the corners
        begun = min(3 * part, 1.0) * opened
        edge = upper + ((lower - upper) + _BELOW * width * opened) * part
        soft = max(0.02 * width, 0.7)
        covers = np.clip((edge - v) / soft + 0.5, 0, 1)
        covers *= np.clip((v - upper) / (2 * _LASHES * width) + 1.4, 0, 1)
        covers *= np.clip(begun * 4, 0, 1)
        at = (u + 0.1 * width).astype(np.float32)
        lid = cv2.remap(
            self._skin, at, np.zeros_like(at), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        grain = cv2.remap(  # it moves with the edge
            self._grain,
            at,
            (edge - v).astype(np.float32),
            cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_REFLECT,
        )
        mixed = under + (lid + grain - under) * covers[:, :, None]
        line = np.exp(-(((v - edge) / max(_LINE * width, 0.7)) ** 2)) * _DARK * begun
        mixed += (self._lashes - mixed) * line[:, :, None]
        shown[y1:y2, x1:x2] = np.clip(np.round(mixed), 0, 255).astype(np.uint8)


def _mean_of(pixels: np.ndarray, darkest: float, brightest: float) -> np.ndarray:
    """[n, 3]: mean of those of pixels [m, n, 3] in a range of each column's order by brightness,
    from 0, the darkest, to 1."""
    order = np.argsort(pixels.sum(axis=2), axis=0)
    first = int(darkest * len(order))
    order = order[first : max(round(brightest * len(order)), first + 1)]
    return np.asarray(np.take_along_axis(pixels, order[:, :, None], axis=0).mean(axis=0))


def _curve(points: np.ndarray) -> _Curve:
    """v of a smooth curve through four points (u, v), at any u; level beyond them.

    The inner points of an odd eye may lie close to a corner, where no cubic would be smooth.
    """
    first, last = points[0, 0], points[3, 0]
    u = np.clip((points[:, 0] - first) / (last - first), (0, 0.2, 0.55, 1), (0, 0.45, 0.8, 1))
    cubic = np.polynomial.Polynomial.fit(u, points[:, 1], 3, domain=[0, 1])
    return lambda at: np.asarray(cubic(np.clip((at - first) / (last - first), 0, 1)))
