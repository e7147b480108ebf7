"""Audio in, self-contained chunks of frames out, on a grid that no chunk size can move.

This room owns the arithmetic between audio samples, feature positions and video frames. It knows
neither the model nor the network: numpy only, no clock, no torch, no asyncio.

Whisper's encoder attends in both directions, so a feature depends on the window it was computed
in. To give the same frames whatever the chunk size, features are computed in *blocks* on a fixed
grid: block ``b`` holds positions ``[b*P, (b+1)*P)`` and is always computed from the same window of
audio, ``left`` positions before it and ``right`` positions after it, zeros where there is no
audio. A chunk carries the windows of every block that its frames touch, so it can run on any
device without asking another for anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

__all__ = ["Chunk", "Chunker", "FeatureGrid"]


@dataclass(frozen=True, slots=True)
class FeatureGrid:
    """Where features lie on the audio timeline. Fixed by a model's files.

    A position is one encoder output: 20 ms, 320 samples at 16 kHz.
    """

    sample_rate: int = 16_000
    position_rate: int = 50
    block_positions: int = 5
    left_positions: int = 50
    right_positions: int = 10
    frame_positions: int = 10
    """How many positions condition one frame (10: 200 ms)."""

    @property
    def position_samples(self) -> int:
        return self.sample_rate // self.position_rate

    @property
    def block_samples(self) -> int:
        return self.block_positions * self.position_samples

    @property
    def window_samples(self) -> int:
        """Samples of the window that one block's features are computed from."""
        return (self.left_positions + self.block_positions + self.right_positions) * (
            self.position_samples
        )

    def first_position(self, frame_index: int, fps: Fraction) -> int:
        """First of the positions that condition a frame; negative ones are zeros.

        MuseTalk pads the sequence with ``2 * ceil(50 / fps)`` zero positions on the left and takes
        positions from ``floor(i * 50 / fps)`` of it.
        """
        per_frame = -(-self.position_rate * fps.denominator // fps.numerator)
        start = frame_index * self.position_rate * fps.denominator // fps.numerator
        return start - 2 * per_frame


@dataclass(frozen=True, slots=True)
class Chunk:
    """Work for one device: consecutive frames and all the audio they depend on.

    ``windows`` is float32 [blocks, grid.window_samples], mono in [-1, 1], one row per feature
    block from ``first_block`` on. Positions before 0, and from ``end_position`` on where it is not
    None (the audio ended there), are zeros by definition. ``audio_end`` is the sample (16 kHz) up
    to which audio had to be heard before this chunk could be cut.
    """

    first_frame: int
    frame_count: int
    first_block: int
    windows: np.ndarray
    end_position: int | None
    audio_end: int


class Chunker:
    """Cuts one response's audio into chunks. Push samples, get chunks; flush at the end.

    ``chunk_samples`` only sets how often chunks are cut, never what their frames look like.
    """

    def __init__(self, grid: FeatureGrid, fps: Fraction, chunk_samples: int) -> None:
        raise NotImplementedError

    def push(self, samples: np.ndarray) -> list[Chunk]:
        """Add float32 mono samples at ``grid.sample_rate``; return the chunks now complete."""
        raise NotImplementedError

    def flush(self) -> list[Chunk]:
        """The audio has ended: return the rest, so that frames total ``ceil(seconds * fps)``."""
        raise NotImplementedError
