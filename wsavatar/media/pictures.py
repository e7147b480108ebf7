"""Pictures that are looked at in any order, by several threads: the interface, and all in memory.

`wsavatar.media.video_pictures` has them in a video file instead.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload

import numpy as np

__all__ = ["DecodedPictures", "Pictures", "Region"]

Region = tuple[int, int, int, int]
"""(x, y, w, h) in pixels."""


class Pictures(Sequence[np.ndarray]):
    """Pictures of one size: uint8 [H, W, 3] RGB each, not to be written to. Thread-safe."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Memory that they take, at most."""

    @abstractmethod
    def picture(self, index: int) -> np.ndarray:
        """One whole picture, ``index`` from 0."""

    @abstractmethod
    def part(self, index: int, region: Region) -> np.ndarray:
        """A region of one, uint8 [h, w, 3]: the same pixels as the whole picture's."""

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...

    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        chosen = range(len(self))[index]  # raises IndexError
        return self.picture(chosen) if isinstance(chosen, int) else list(map(self.picture, chosen))


class DecodedPictures(Pictures):
    """All of them in memory: ``frames`` uint8 [n, H, W, 3], from now on read-only."""

    def __init__(self, frames: np.ndarray) -> None:
        frames.flags.writeable = False
        self._frames = frames

    @property
    def nbytes(self) -> int:
        return self._frames.nbytes

    def __len__(self) -> int:
        return len(self._frames)

    def picture(self, index: int) -> np.ndarray:
        picture: np.ndarray = self._frames[index]
        return picture

    def part(self, index: int, region: Region) -> np.ndarray:
        x, y, w, h = region
        return self.picture(index)[y : y + h, x : x + w]
