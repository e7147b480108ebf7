"""Masks of an avatar's frames, compressed: they are smooth, and there is one for each frame."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import cv2
import numpy as np

__all__ = ["Box", "Masks", "PackedMask", "trimmed"]

Box = tuple[int, int, int, int]
"""(x1, y1, x2, y2), x2 and y2 exclusive."""


@dataclass(frozen=True, slots=True)
class PackedMask:
    """One mask. ``data`` are its rows, by zlib."""

    height: int
    width: int
    data: bytes

    @classmethod
    def of(cls, mask: np.ndarray) -> PackedMask:
        """Pack uint8 [h, w]."""
        height, width = mask.shape
        return cls(height, width, zlib.compress(mask.tobytes(), 1))

    def unpacked(self) -> np.ndarray:
        """uint8 [h, w], read-only. Raises ValueError for data of another size."""
        size = self.height * self.width
        try:
            data = zlib.decompressobj().decompress(self.data, size + 1)
        except zlib.error as error:
            raise ValueError(f"a mask cannot be unpacked ({error})") from error
        if len(data) != size:
            raise ValueError(f"a mask of {self.width}x{self.height} has {len(data)} pixels")
        return np.frombuffer(data, np.uint8).reshape(self.height, self.width)


class Masks(Sequence[np.ndarray]):
    """Masks in the order of frames, each uint8 [h, w] and read-only."""

    def __init__(self, masks: Iterable[np.ndarray | PackedMask]) -> None:
        self.packed = tuple(
            mask if isinstance(mask, PackedMask) else PackedMask.of(mask) for mask in masks
        )

    @property
    def nbytes(self) -> int:
        """Memory that they take, packed."""
        return sum(len(mask.data) for mask in self.packed)

    def arrays(self) -> dict[str, np.ndarray]:
        """All of them as named arrays, for the disk."""
        packed = [np.frombuffer(mask.data, np.uint8) for mask in self.packed]
        sizes = np.array([len(data) for data in packed], np.int64)
        return {"masks": np.concatenate(packed), "mask_sizes": sizes}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], shapes: np.ndarray) -> Masks:
        """The inverse of `arrays`, for masks of ``shapes`` [n, 2] (h, w). Raises ValueError or
        KeyError for unfit arrays."""
        data, sizes = arrays["masks"], arrays["mask_sizes"]
        if sizes.shape != (len(shapes),) or (sizes < 1).any() or sizes.sum() != len(data):
            raise ValueError("its masks are not as long as it says")
        pieces = np.split(data, np.cumsum(sizes)[:-1])
        masks = cls(
            PackedMask(int(height), int(width), piece.tobytes())
            for (height, width), piece in zip(shapes, pieces, strict=True)
        )
        for mask in masks.packed:
            mask.unpacked()
        return masks

    def __len__(self) -> int:
        return len(self.packed)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, index: slice) -> Masks: ...

    def __getitem__(self, index: int | slice) -> np.ndarray | Masks:
        if isinstance(index, slice):
            return Masks(self.packed[index])
        return self.packed[index].unpacked()


def trimmed(box: Box, mask: np.ndarray) -> tuple[Box, np.ndarray]:
    """The part of a mask over ``box`` that is not zero, with its box; the mask has such a part."""
    x, y, w, h = cv2.boundingRect(mask)
    left, top = box[0] + x, box[1] + y
    return (left, top, left + w, top + h), mask[y : y + h, x : x + w]
