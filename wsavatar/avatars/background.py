"""Other backgrounds for an avatar: their names, and its pictures before one of them.

It knows what masks are, not how they are made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from wsavatar.avatars.format import MAX_SIDE, AvatarError
from wsavatar.faces.masks import Masks
from wsavatar.media.matting import ALIGNED, REACH, cut_out, laid_over
from wsavatar.media.picture import PictureError, read_still
from wsavatar.media.pictures import Pictures, Region

__all__ = [
    "ORIGINAL",
    "PICTURE",
    "TRANSPARENT",
    "Background",
    "BackgroundError",
    "Backgrounds",
    "CutOut",
    "default_name",
]

ORIGINAL, TRANSPARENT, PICTURE = "original", "transparent", "picture"
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


class BackgroundError(AvatarError):
    """There is no such background, or an avatar cannot have it; the message says what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """What is behind a person. ``name``: as `Backgrounds.named` takes it."""

    name: str
    picture: np.ndarray | None = None
    """uint8 [h, w, 3], of any size; None: transparent."""

    def filling(self, width: int, height: int) -> np.ndarray | None:
        """uint8 [height, width, 3], read-only: its middle, scaled to cover that."""
        return None if self.picture is None else _covering(self, width, height)


class Backgrounds:
    """The backgrounds of one server. ``configured``: "original", "transparent", a colour as
    "#00b140", or the path of a picture. Raises BackgroundError for anything else.
    """

    def __init__(self, configured: str) -> None:
        self._picture: np.ndarray | None = None
        self.default = default_name(configured)
        """The name of the one that is shown unless another is asked for."""
        if self.default != PICTURE:
            return
        if configured.startswith("#"):
            raise BackgroundError(f"background {configured!r}: {_not_a_colour()}")
        try:
            self._picture = read_still(Path(configured), max_side=MAX_SIDE)
        except (PictureError, OSError) as error:
            raise BackgroundError(
                f"background {configured!r} is neither original, transparent nor a colour such as "
                f"#00b140, and no picture can be read there: {error}"
            ) from error

    def named(self, name: str | None) -> Background | None:
        """The background of this name, or the default one; None: the avatars' own.

        Raises BackgroundError.
        """
        name = (name or self.default).lower()
        if name == ORIGINAL:
            return None
        if name == TRANSPARENT:
            return Background(name)
        if name == PICTURE and self._picture is not None:
            return Background(name, self._picture)
        if _COLOUR.fullmatch(name):
            return Background(name, np.frombuffer(bytes.fromhex(name[1:]), np.uint8)[None, None])
        if name == PICTURE:
            raise BackgroundError("this server has no background picture (avatars.background)")
        raise BackgroundError(f"background {name[:32]!r}: {_not_a_colour()}")


def default_name(configured: str) -> str:
    """The name of what `Backgrounds` takes: "picture" for a path."""
    name = configured.lower()
    is_known = name in (ORIGINAL, TRANSPARENT) or _COLOUR.fullmatch(name)
    return name if is_known else PICTURE


def _not_a_colour() -> str:
    return "write original, transparent, or a colour as # and six hexadecimal digits: #00b140"


@lru_cache(maxsize=8)
def _covering(background: Background, width: int, height: int) -> np.ndarray:
    picture = background.picture
    assert picture is not None
    scale = max(width / picture.shape[1], height / picture.shape[0])
    size = max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale))
    kernel = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(picture, size, interpolation=kernel)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    covering = np.ascontiguousarray(scaled[top : top + height, left : left + width])
    covering.flags.writeable = False
    return covering


class CutOut(Pictures):
    """An avatar's ``pictures`` with another background, made when they are asked for.

    ``masks``: uint8 [H, W] each, 255 where the person is. Before a transparent one pictures are
    RGBA, uint8 [H, W, 4].
    """

    def __init__(self, pictures: Pictures, masks: Masks, background: Background) -> None:
        self._pictures = pictures
        self._masks = masks
        self._background = background

    @property
    def nbytes(self) -> int:
        return self._pictures.nbytes + self._masks.nbytes

    def __len__(self) -> int:
        return len(self._pictures)

    def picture(self, index: int) -> np.ndarray:
        mask = self._masks[index]
        behind = self._background.filling(mask.shape[1], mask.shape[0])
        return _before(behind, self._pictures.picture(index), mask)

    def part(self, index: int, region: Region) -> np.ndarray:
        mask = self._masks[index]
        height, width = mask.shape
        behind = self._background.filling(width, height)
        x, y, w, h = region
        # With what `matting` looks at, so that pixels are those of the whole picture.
        left, top = (max(0, edge - REACH) // ALIGNED * ALIGNED for edge in (x, y))
        right = min(width, -(-(x + w + REACH) // ALIGNED) * ALIGNED)
        bottom = min(height, -(-(y + h + REACH) // ALIGNED) * ALIGNED)
        around = np.s_[top:bottom, left:right]
        made = _before(
            behind if behind is None else behind[around],
            self._pictures.part(index, (left, top, right - left, bottom - top)),
            np.ascontiguousarray(mask[around]),
        )
        return made[y - top : y - top + h, x - left : x - left + w]


def _before(behind: np.ndarray | None, picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    if behind is None:
        return cut_out(picture, mask)
    return laid_over(picture, mask, behind)
