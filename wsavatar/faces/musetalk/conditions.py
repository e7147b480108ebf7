"""Chunks of speech to what conditions their frames, several streams' at once.

One for each thread that draws: it keeps the features that a stream's next chunk will need again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from wsavatar.faces.musetalk.shared_features import SharedFeatures
from wsavatar.faces.musetalk.spec import ModelSpec
from wsavatar.speech.chunker import Chunk

__all__ = ["ChunkConditions"]


class AudioModel(Protocol):
    """What of `wsavatar.faces.musetalk.model.MuseTalk` is needed here."""

    @property
    def spec(self) -> ModelSpec: ...

    def encode_audio(self, windows: np.ndarray, /) -> Any: ...

    def condition(self, features: Any, chunk: Chunk, /) -> Any: ...


class ChunkConditions:
    """A `wsavatar.faces.base.SpeechConditions`. For one thread."""

    def __init__(self, model: AudioModel) -> None:
        self._model = model
        self._positions = model.spec.grid.block_positions
        self._shared = SharedFeatures(self._positions)

    def make(self, chunks: Sequence[tuple[int, Chunk]]) -> tuple[list[Any], int]:
        """For each (stream, chunk): float32 [frames, 10 * layers, dim]; and the blocks it took.

        All windows are encoded in one call: of each chunk only the blocks that its stream's last
        chunks did not have.
        """
        if not chunks:
            return [], 0
        known = [self._shared.shared(stream, chunk) for stream, chunk in chunks]
        windows = [
            chunk.windows[blocks:] for (_, chunk), (blocks, _) in zip(chunks, known, strict=True)
        ]
        features = self._model.encode_audio(np.concatenate(windows))
        made, start = [], 0
        for (stream, chunk), (_, parts), unknown in zip(chunks, known, windows, strict=True):
            stop = start + len(unknown) * self._positions
            fresh = features[start:stop]
            made.append(self._model.condition([*parts, fresh], chunk))
            self._shared.keep(stream, chunk, fresh)
            start = stop
        return made, sum(map(len, windows))
