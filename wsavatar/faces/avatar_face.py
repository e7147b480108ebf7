"""A face model's data of one avatar: the place of its patch, and the model's inputs.

A model draws a square patch for each frame, and the renderer pastes it into the picture; this
module has the data of that contract. A model that draws whole pictures has boxes as large as the
picture. Nothing here knows a model or how a patch is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from wsavatar.faces.masks import Masks, PackedMask

__all__ = ["DETAIL_CELL", "AvatarFace", "Detail", "in_cells"]

DETAIL_CELL = 4
"""Side, in pixels of a patch, of the cells of `Detail.redrawn`."""

_BLOCK = 16  # side of JPEG's blocks, two of luminance to one of chrominance (4:2:0)


@dataclass(frozen=True, slots=True)
class Detail:
    """Detail that the model loses of each frame at rest: pores, hair, the edge of the jaw.

    For the lower rows, which the model draws. ``lost`` is the true crop minus the model's picture
    of it. ``redrawn`` is that picture, as means of squares of `DETAIL_CELL` pixels: where a later
    picture differs from it, the mouth has moved. The arrays of one frame have no ``n``.
    """

    lost: np.ndarray  # int8 [n, rows, S, 3]
    redrawn: np.ndarray  # uint8 [n, rows / DETAIL_CELL, S / DETAIL_CELL, 3]

    @property
    def nbytes(self) -> int:
        return self.lost.nbytes + self.redrawn.nbytes


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
    detail: Detail | None = None
    """None: lost detail is not restored."""

    def __post_init__(self) -> None:
        if not isinstance(self.masks, Masks):
            object.__setattr__(self, "masks", Masks(self.masks))
        for array in self._arrays().values():
            array.flags.writeable = False

    def detail_of(self, index: int) -> Detail | None:
        """The detail of one frame, if stored."""
        if self.detail is None:
            return None
        return Detail(self.detail.lost[index], self.detail.redrawn[index])

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        kept = self.detail.nbytes if self.detail is not None else 0
        return self.inputs.nbytes + self._packed_masks.nbytes + kept

    def region(self, width: int, height: int) -> tuple[int, int, int, int]:
        """(x, y, w, h) around every pixel that any mask can change, in a picture of that size.

        On the grid of JPEG's blocks, or at the picture's edge: the JPEG of the region has the very
        blocks of the whole picture's, so a client may lay it on the idle picture without a seam.
        """
        boxes = []
        for mask, (left, top, _, _) in zip(self.masks, self.paste_boxes, strict=True):
            x, y, w, h = cv2.boundingRect(mask)
            boxes.append((left + x, top + y, left + x + w, top + y + h))
        corners = np.array(boxes)
        x, y = (int(value) // _BLOCK * _BLOCK for value in corners[:, :2].min(axis=0))
        right, bottom = (-(-int(value) // _BLOCK) * _BLOCK for value in corners[:, 2:].max(axis=0))
        return x, y, min(right, width) - x, min(bottom, height) - y

    # As named arrays, for the disk.

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays, for `from_arrays`."""
        packed = [np.frombuffer(mask.data, np.uint8) for mask in self._packed_masks.packed]
        sizes = np.array([len(data) for data in packed], np.int64)
        return self._arrays() | {"masks": np.concatenate(packed), "mask_sizes": sizes}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], frame_count: int) -> AvatarFace:
        """The inverse of `arrays`. Raises ValueError or KeyError for unfit arrays."""
        crop_boxes, paste_boxes = arrays["crop_boxes"], arrays["paste_boxes"]
        shapes = crop_boxes.shape, paste_boxes.shape, arrays["inputs"].shape[:1]
        if shapes != ((frame_count, 4), (frame_count, 4), (frame_count,)):
            raise ValueError(f"its shapes are {shapes}")
        detail = Detail(arrays["lost"], arrays["redrawn"]) if "lost" in arrays else None
        masks = _split_masks(arrays["masks"], arrays["mask_sizes"], paste_boxes)
        return cls(crop_boxes, paste_boxes, masks, arrays["inputs"], detail)

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
        if self.detail is not None:
            arrays |= {"lost": self.detail.lost, "redrawn": self.detail.redrawn}
        return arrays


def in_cells(picture: np.ndarray) -> np.ndarray:
    """Means of squares of `DETAIL_CELL` pixels: uint8 [h, w, 3]; incomplete squares are cut off."""
    height, width = (side // DETAIL_CELL for side in picture.shape[:2])
    whole = picture[: height * DETAIL_CELL, : width * DETAIL_CELL]
    return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)


def _split_masks(data: np.ndarray, sizes: np.ndarray, boxes: np.ndarray) -> Masks:
    """Masks of these boxes from their packed bytes, one after the other. Raises ValueError."""
    shapes = (boxes[:, 2:] - boxes[:, :2])[:, ::-1]
    if sizes.shape != (len(boxes),) or (sizes < 1).any() or sizes.sum() != len(data):
        raise ValueError("its masks are not as long as it says")
    if (shapes < 1).any():
        raise ValueError("its boxes are empty")
    pieces = np.split(data, np.cumsum(sizes)[:-1])
    masks = Masks(
        PackedMask(int(height), int(width), piece.tobytes())
        for (height, width), piece in zip(shapes, pieces, strict=True)
    )
    for mask in masks.packed:
        mask.unpacked()
    return masks
