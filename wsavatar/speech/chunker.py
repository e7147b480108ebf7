"""Cuts audio into self-contained chunks of frames, on a grid that does not depend on chunk sizes.

This module owns the arithmetic between audio samples, feature positions and video frames. It knows
neither the model nor the network: numpy only, no clock, no torch, no asyncio.

An encoder that attends in both directions makes features that depend on their window of audio.
To give the same frames whatever the chunk size, features are computed in *blocks* on a fixed grid:
block ``b`` holds positions ``[b*P, (b+1)*P)`` and is always computed from the same window of audio,
``left`` positions before it and ``right`` positions after it, zeros where there is no audio. A
chunk has the windows of every block that its frames need, so it can run on any device. The windows
hold the audio without hum, and without the noise in its pauses (`wsavatar.speech.front_end`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from wsavatar.speech.front_end import FrontEnd

__all__ = ["Chunk", "Chunker", "FeatureGrid"]


_FIRST_S = 1
"""How long a response counts as beginning."""


@dataclass(frozen=True, slots=True)
class FeatureGrid:
    """Positions of features on the audio timeline. Fixed by a model's files.

    A position is one encoder output: 20 ms, 320 samples at 16 kHz.
    """

    sample_rate: int = 16_000
    position_rate: int = 50
    block_positions: int = 5
    left_positions: int = 50
    right_positions: int = 10
    frame_positions: int = 10
    """How many positions condition one frame (10: 200 ms)."""
    lead_positions: int = 4
    """How many of them come before the frame's own time (4: 80 ms)."""

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

    def open_chunker(self, fps: Fraction, chunk_ms: int, first_ms: int | None = None) -> Chunker:
        """For one response's audio, cut about every ``chunk_ms`` of it; in the first second, every
        ``first_ms``."""
        per_ms = self.sample_rate // 1000
        return Chunker(self, fps, per_ms * chunk_ms, per_ms * (first_ms or chunk_ms))

    def first_position(self, frame_index: int, fps: Fraction) -> int:
        """First of the positions that condition a frame; negative ones are zeros.

        The window is -80 to +120 ms around the frame's time ``frame_index / fps``, to the nearest
        position, at any rate. A formula in use, ``floor(i * 50 / fps) - 2 * ceil(50 / fps)``, gives
        the same at 25 frames/s. At other rates it shifts the lips against the sound
        (late by 120 ms at 10 frames/s, early by 40 ms at 50), so it is not followed there.
        """
        doubled = 2 * frame_index * self.position_rate * fps.denominator + fps.numerator
        return doubled // (2 * fps.numerator) - self.lead_positions


@dataclass(frozen=True, slots=True)
class Chunk:
    """Work for one device: consecutive frames and all the audio they depend on.

    ``windows`` is float32 [blocks, grid.window_samples], mono in [-1, 1], one row per feature
    block from ``first_block`` on. Positions before 0, and from ``end_position`` on where it is not
    None (the audio ended there), are zeros by definition. ``audio_end`` is how many samples (at 16
    kHz) had to be received before this chunk could be cut.
    """

    first_frame: int
    frame_count: int
    first_block: int
    windows: np.ndarray
    end_position: int | None
    audio_end: int
    fps: Fraction

    @property
    def blocks(self) -> range:
        """The feature blocks that its windows are of."""
        return range(self.first_block, self.first_block + len(self.windows))


class Chunker:
    """Cuts one response's audio into chunks. Push samples, get chunks; flush at the end.

    ``chunk_samples`` only sets how often chunks are cut, ``first_samples`` how often in the first
    second; never what their frames look like. Audio that no later window needs is dropped at each
    cut, so memory stays at one window and one chunk.
    """

    def __init__(
        self, grid: FeatureGrid, fps: Fraction, chunk_samples: int, first_samples: int | None = None
    ) -> None:
        if fps <= 0:
            raise ValueError(f"fps must be positive, not {fps}")
        first_samples = first_samples or chunk_samples
        if min(chunk_samples, first_samples) < 1:
            raise ValueError(f"chunk_samples must be at least 1, not {chunk_samples}")
        self._grid = grid
        self._fps = Fraction(fps)
        self._chunk_samples = chunk_samples
        self._audio = FrontEnd(grid.sample_rate)
        self._end = 0  # samples pushed so far
        self._first_samples = first_samples
        self._next_cut = first_samples
        self._next_frame = 0
        self._flushed = False

    @property
    def sample_rate(self) -> int:
        """Samples per second that `push` takes."""
        return self._grid.sample_rate

    def push(self, samples: np.ndarray) -> list[Chunk]:
        """Add float32 mono samples at ``grid.sample_rate``; return the chunks now complete.

        Raises ValueError for anything but one dimension, RuntimeError after `flush`.
        """
        if self._flushed:
            raise RuntimeError("the audio of this response has already ended")
        if samples.ndim != 1:
            raise ValueError(f"expected mono samples [n], got shape {list(samples.shape)}")
        chunks: list[Chunk] = []
        while len(samples):
            taken = samples[: self._next_cut - self._end]
            samples = samples[len(taken) :]
            self._audio.push(taken)
            self._end += len(taken)
            if self._end == self._next_cut:
                begins = self._end < _FIRST_S * self._grid.sample_rate
                self._next_cut += self._first_samples if begins else self._chunk_samples
                chunks += self._cut(self._frames_ready(), None)
        return chunks

    def flush(self) -> list[Chunk]:
        """The audio has ended: return the rest, so that frames total ``ceil(seconds * fps)``."""
        if self._flushed:
            return []
        self._flushed = True
        self._audio.flush()
        grid, fps = self._grid, self._fps
        frames = -(-self._end * fps.numerator // (grid.sample_rate * fps.denominator))
        # Less than a position has one too: a frame of zeros alone is no mouth at rest.
        return self._cut(frames, max(1, self._end // grid.position_samples))

    def _frames_ready(self) -> int:
        """How many frames depend on no audio that is still to come."""
        grid, fps = self._grid, self._fps
        received = self._end - grid.right_positions * grid.position_samples
        positions = max(0, received // grid.block_samples) * grid.block_positions
        frame = self._next_frame
        while grid.first_position(frame, fps) + grid.frame_positions <= positions:
            frame += 1
        return frame

    def _cut(self, stop_frame: int, end_position: int | None) -> list[Chunk]:
        if stop_frame <= self._next_frame:
            return []
        grid = self._grid
        first = max(0, grid.first_position(self._next_frame, self._fps))
        stop = grid.first_position(stop_frame - 1, self._fps) + grid.frame_positions
        if end_position is not None:
            stop = min(stop, end_position)
        first_block = first // grid.block_positions
        stop_block = -(-stop // grid.block_positions) if stop > first else first_block
        chunk = Chunk(
            first_frame=self._next_frame,
            frame_count=stop_frame - self._next_frame,
            first_block=first_block,
            windows=self._windows(first_block, stop_block),
            end_position=end_position,
            audio_end=self._end,
            fps=self._fps,
        )
        self._next_frame = stop_frame
        next_position = max(0, grid.first_position(stop_frame, self._fps))
        self._audio.drop_before(self._window_start(next_position // grid.block_positions))
        return [chunk]

    def _window_start(self, block: int) -> int:
        positions = block * self._grid.block_positions - self._grid.left_positions
        return positions * self._grid.position_samples

    def _windows(self, first_block: int, stop_block: int) -> np.ndarray:
        windows = np.empty((stop_block - first_block, self._grid.window_samples), np.float32)
        for row, block in zip(windows, range(first_block, stop_block), strict=True):
            start = self._window_start(block)
            row[:] = self._audio.window(start, start + len(row))
        return windows
