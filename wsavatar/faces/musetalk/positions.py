"""Which features condition a frame, and the positional encoding that is added to them.

It knows positions, and neither how features are made nor what a frame looks like. Without torch,
unless the features are torch's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from wsavatar.speech.chunker import Chunk, FeatureGrid

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["gather_conditions", "positional_encoding"]


def positional_encoding(length: int, dim: int) -> np.ndarray:
    """The sinusoids of "Attention is all you need" as MuseTalk adds them: float32 [length, dim].

    Even columns are sines, odd ones cosines, of position * 10000 ** (-2k / dim).
    """
    position = np.arange(length, dtype=np.float32)[:, None]
    rate = np.exp(np.arange(0, dim, 2, dtype=np.float32) * np.float32(-math.log(10_000.0) / dim))
    encoding = np.zeros((length, dim), np.float32)
    encoding[:, 0::2] = np.sin(position * rate)
    encoding[:, 1::2] = np.cos(position * rate)
    return encoding


def gather_conditions(
    features: np.ndarray | Tensor, chunk: Chunk, grid: FeatureGrid
) -> np.ndarray | Tensor:
    """Lay out what conditions each frame of ``chunk``: [frames, 10 * layers, dim].

    ``features`` is [blocks * block_positions, layers, dim], from ``chunk.first_block`` on. Rows run
    position by position, and within a position layer by layer ("b c h w -> b (c h) w" in MuseTalk,
    with 10 positions and 5 layers). Positions before the audio and after its end are zeros.
    """
    frames = range(chunk.first_frame, chunk.first_frame + chunk.frame_count)
    starts = np.array([grid.first_position(frame, chunk.fps) for frame in frames], np.int64)
    positions = starts[:, None] + np.arange(grid.frame_positions)
    silent = positions < 0
    if chunk.end_position is not None:
        silent |= positions >= chunk.end_position
    rows = positions - chunk.first_block * grid.block_positions
    zero_row = len(features)
    if ((rows < 0) | (rows >= zero_row))[~silent].any():
        raise ValueError(
            f"frames from {chunk.first_frame} need positions that {len(features)} features from "
            f"block {chunk.first_block} do not hold"
        )
    rows[silent] = zero_row
    shape = (len(rows), grid.frame_positions * features.shape[1], features.shape[2])
    if isinstance(features, np.ndarray):
        zeros = np.zeros((1, *features.shape[1:]), features.dtype)
        return np.asarray(np.concatenate([features, zeros])[rows].reshape(shape))
    import torch  # it made them

    padded = torch.cat([features, features.new_zeros(1, *features.shape[1:])])
    return padded[torch.from_numpy(rows).to(features.device)].reshape(shape)
