"""Cache of features that a stream's next chunk needs again.

Frames use 80 ms before and 120 ms after their time, so neighbouring chunks share feature blocks: at
0.5 s three of eight. A block's features do not depend on the chunk (`wsavatar.speech.chunker`), so
a device computes them once. This module knows chunks and arrays, not models.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsavatar.speech.chunker import Chunk

__all__ = ["SharedFeatures"]

STREAMS = 256
BLOCKS = 4
"""Number of recently used streams in the cache, and minimum blocks of each: a frame's ten positions
are in three blocks at most."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Consecutive blocks: features [(stop - first) * block_positions, layers, dim]."""

    first: int
    stop: int
    features: Any


class SharedFeatures:
    """Copies of the last features of each stream. Not thread-safe.

    They take up to ``2 * BLOCKS - 1`` blocks a stream: 270 kB in float32 of Whisper tiny's five
    layers of 384, five positions a block.
    """

    def __init__(self, block_positions: int) -> None:
        self._positions = block_positions
        self._streams: OrderedDict[int, list[_Part]] = OrderedDict()

    def shared(self, stream: int, chunk: Chunk) -> tuple[int, list[Any]]:
        """Number of the chunk's first blocks in the cache, and their features in order."""
        block, stop = chunk.first_block, chunk.first_block + len(chunk.windows)
        found = []
        for part in self._streams.get(stream, ()):
            if part.first <= block < min(part.stop, stop):
                end = min(part.stop, stop)
                rows = slice(
                    (block - part.first) * self._positions, (end - part.first) * self._positions
                )
                found.append(part.features[rows])
                block = end
        return block - chunk.first_block, found

    def keep(self, stream: int, chunk: Chunk, fresh: Any) -> None:
        """Store features that were computed for the chunk's last blocks."""
        stop = chunk.first_block + len(chunk.windows)
        first = stop - len(fresh) // self._positions
        if first == stop:
            return
        parts = self._streams.pop(stream, [])
        if parts and parts[-1].stop != first:
            parts = []
        kept = min(BLOCKS, stop - first)
        parts.append(_Part(stop - kept, stop, _copied(fresh[-kept * self._positions :])))
        while stop - parts[0].stop >= BLOCKS:
            parts.pop(0)
        self._streams[stream] = parts
        while len(self._streams) > STREAMS:
            self._streams.popitem(last=False)


def _copied(features: Any) -> Any:
    """Copy an array of numpy or torch; a view would keep the whole computation's memory."""
    return features.copy() if isinstance(features, np.ndarray) else features.clone()
