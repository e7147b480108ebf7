"""A face model's data of one avatar: the place of its patch, and the model's inputs.

A model draws a square patch for each frame, and the renderer pastes it into the picture; this
module has the data of that contract. A model that draws whole pictures has boxes as large as the
picture. Nothing here knows a model or how a patch is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from wsavatar.faces.masks import Masks

__all__ = ["CELL", "JAW_STEPS", "AvatarFace", "Jaw", "in_cells"]

CELL = 4
"""Side of the cells of `Jaw`, in pixels of a patch."""
JAW_STEPS = range(-2, 6)
"""Movements of the lower lip for which `Jaw` knows the face, in cells; up is negative."""

_BLOCK = 16  # side of JPEG's blocks, two of luminance to one of chrominance (4:2:0)


@dataclass(frozen=True, slots=True)
class Jaw:
    """How the pixels of a frame at rest move with the jaw.

    With it, skin, beard and the edge of the face stay the frame's own: they are moved, and the
    patch is shown only where it differs from them: the lips and what is between them. K is the
    number of `JAW_STEPS`; R x C cells are the lower rows of a patch, which the model draws; the
    grid of `reach` goes beyond them on the left, on the right and below. The arrays of one frame
    have no ``n``.
    """

    boxes: np.ndarray  # int32 [n, 4]: the grid's place in the picture
    down: np.ndarray  # float32 [n, 2]: (x, y) in the picture by which the lip moves for one cell
    reach: np.ndarray  # uint8 [n, R', C']: 255 moves as the lower lip does, 0 not at all
    looks: np.ndarray  # uint8 [n, K, R, C, 3]: the model's own picture of the frame, moved
    away: np.ndarray  # uint8 [n, K, R, C]: 0 is lips or between them, 255 far from them

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays().values())

    def of(self, index: int | slice | np.ndarray) -> Jaw:
        """The arrays of one frame, or of some; of those an array names, copies."""
        return Jaw(*(array[index] for array in self.arrays().values()))

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, in the order of the fields."""
        return {
            "jaw_boxes": self.boxes,
            "jaw_down": self.down,
            "jaw_reach": self.reach,
            "jaw_looks": self.looks,
            "jaw_away": self.away,
        }

    def moving_boxes(self) -> np.ndarray:
        """int64 [n, 4] around the pixels that move with the jaw."""
        frames = (self.of(index) for index in range(len(self.reach)))
        return np.array([jaw.pixels_of(*cv2.boundingRect(jaw.reach)) for jaw in frames])

    @property
    def size(self) -> tuple[int, int]:
        """(w, h) of one frame's box."""
        left, top, right, bottom = (int(edge) for edge in self.boxes)
        return right - left, bottom - top

    def pixels_of(self, x: int, y: int, w: int, h: int) -> tuple[int, int, int, int]:
        """The box of pixels in which cells (x, y, w, h) of one frame's `reach` count."""
        left, top, right, bottom = (int(edge) for edge in self.boxes)
        across, down = self.size[0] / self.reach.shape[1], self.size[1] / self.reach.shape[0]
        # A pixel between two cells is of both.
        return (
            left + max(math.floor((x - 0.5) * across), 0),
            top + max(math.floor((y - 0.5) * down), 0),
            min(left + math.ceil((x + w + 0.5) * across), right),
            min(top + math.ceil((y + h + 0.5) * down), bottom),
        )


@dataclass(frozen=True, slots=True)
class AvatarFace:
    """A model's data of one avatar. Arrays are read-only; n is the number of frames.

    Boxes are (x1, y1, x2, y2) in the avatar's pixels, x2 and y2 exclusive. ``crop_boxes`` is the
    place of a patch; ``paste_boxes`` is that of ``masks[i]``, the alpha for blending, which may be
    given as any sequence of arrays. ``inputs`` has the model's input for each frame.
    """

    crop_boxes: np.ndarray  # int32 [n, 4]
    paste_boxes: np.ndarray  # int32 [n, 4]
    masks: Sequence[np.ndarray]  # n of uint8 [h, w], as `Masks`
    inputs: np.ndarray  # [n, ...]
    jaw: Jaw | None = None
    """None: all that the mask names is the patch's."""
    colours: np.ndarray | None = None  # int16 [2, 2], as `colours_of`
    """Those of the face, which patches keep to; None: they may have any."""

    def __post_init__(self) -> None:
        if not isinstance(self.masks, Masks):
            object.__setattr__(self, "masks", Masks(self.masks))
        for array in self._arrays().values():
            array.flags.writeable = False

    def jaw_of(self, index: int) -> Jaw | None:
        """The jaw of one frame, if stored."""
        return self.jaw.of(index) if self.jaw is not None else None

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        kept = self.jaw.nbytes if self.jaw is not None else 0
        return self.inputs.nbytes + self._packed_masks.nbytes + kept

    def region(self, width: int, height: int) -> tuple[int, int, int, int]:
        """(x, y, w, h) around every pixel that a mask or the jaw can change, in such a picture.

        On the grid of JPEG's blocks, or at the picture's edge: the JPEG of the region has the very
        blocks of the whole picture's, so a client may lay it on the idle picture without a seam.
        """
        boxes = []
        for mask, (left, top, _, _) in zip(self.masks, self.paste_boxes, strict=True):
            x, y, w, h = cv2.boundingRect(mask)
            boxes.append((left + x, top + y, left + x + w, top + y + h))
        if self.jaw is not None:
            boxes += self.jaw.moving_boxes().tolist()
        corners = np.array(boxes)
        x, y = (max(int(value) // _BLOCK * _BLOCK, 0) for value in corners[:, :2].min(axis=0))
        right, bottom = (-(-int(value) // _BLOCK) * _BLOCK for value in corners[:, 2:].max(axis=0))
        return x, y, min(right, width) - x, min(bottom, height) - y

    # As named arrays, for the disk.

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays, for `from_arrays`."""
        return self._arrays() | self._packed_masks.arrays()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], frame_count: int) -> AvatarFace:
        """The inverse of `arrays`. Raises ValueError or KeyError for unfit arrays."""
        crop_boxes, paste_boxes = arrays["crop_boxes"], arrays["paste_boxes"]
        shapes = crop_boxes.shape, paste_boxes.shape, arrays["inputs"].shape[:1]
        if shapes != ((frame_count, 4), (frame_count, 4), (frame_count,)):
            raise ValueError(f"its shapes are {shapes}")
        jaw = None
        if "jaw_boxes" in arrays:
            jaw = Jaw(*(arrays[f"jaw_{name}"] for name in Jaw.__slots__))
        shapes = (paste_boxes[:, 2:] - paste_boxes[:, :2])[:, ::-1]
        if (shapes < 1).any():
            raise ValueError("its boxes are empty")
        masks = Masks.from_arrays(arrays, shapes)
        colours = arrays.get("colours")
        if colours is not None and (colours.shape != (2, 2) or colours.dtype != np.int16):
            raise ValueError(f"its colours are {colours.dtype} {colours.shape}")
        return cls(crop_boxes, paste_boxes, masks, arrays["inputs"], jaw, colours)

    @property
    def _packed_masks(self) -> Masks:
        assert isinstance(self.masks, Masks)
        return self.masks

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {
            "crop_boxes": self.crop_boxes,
            "paste_boxes": self.paste_boxes,
            "inputs": self.inputs,
        }
        if self.jaw is not None:
            arrays |= self.jaw.arrays()
        if self.colours is not None:
            arrays["colours"] = self.colours
        return arrays


def in_cells(picture: np.ndarray) -> np.ndarray:
    """Means of squares of `CELL` pixels: uint8 [h, w, 3]; incomplete squares are cut off."""
    height, width = (side // CELL for side in picture.shape[:2])
    whole = picture[: height * CELL, : width * CELL]
    return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
