"""What every face model has in common, as the renderer and a session see it.

Shapes only: a model is a package beside this module. Nothing here knows a model, its weights or
torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

__all__ = ["Chunk", "SpeechChunker"]


class Chunk(Protocol):
    """Consecutive frames of one response, with all the audio that they depend on.

    What else it holds is its model's own.
    """

    @property
    def first_frame(self) -> int: ...

    @property
    def frame_count(self) -> int: ...


class SpeechChunker(Protocol):
    """Cuts one response's audio into chunks: push samples, then flush once."""

    @property
    def sample_rate(self) -> int:
        """Samples per second that `push` takes."""

    def push(self, samples: np.ndarray, /) -> Sequence[Chunk]:
        """Add float32 mono samples [n]; return the chunks now complete."""

    def flush(self) -> Sequence[Chunk]:
        """The audio has ended: return the rest, so that frames total ``ceil(seconds * fps)``."""
