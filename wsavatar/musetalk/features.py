"""Audio to what conditions a frame: log-mel, Whisper's encoder, positions, positional encoding.

This room knows windows and positions. It does not know how windows are cut (`wsavatar.chunker`
does) or what a frame looks like.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor, nn
from transformers import WhisperConfig
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from wsavatar.chunker import Chunk, FeatureGrid

__all__ = ["AudioEncoder", "LogMel", "gather_conditions", "positional_encoding"]

SAMPLE_RATE = 16_000
WINDOW, HOP = 400, 160
MEL_PER_POSITION = 2


class LogMel(nn.Module):
    """Whisper's log-mel spectrogram, for windows of any length.

    float32 [b, samples] -> float32 [b, mel_bins, samples // 160]. The same figures as transformers'
    `WhisperFeatureExtractor`: centred 25 ms Hann frames every 10 ms, Slaney mel, log10, at most 8
    (80 dB) below the window's own loudest bin, then (x + 4) / 4. That floor is why features depend
    on the window, and why a block is always computed from the same one.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, mel_bins: int) -> None:
        super().__init__()
        filters = mel_filter_bank(
            num_frequency_bins=1 + WINDOW // 2,
            num_mel_filters=mel_bins,
            min_frequency=0.0,
            max_frequency=8000.0,
            sampling_rate=SAMPLE_RATE,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.register_buffer("filters", torch.from_numpy(filters.T).float(), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        spectrum = torch.stft(audio, WINDOW, HOP, window=self.window, return_complex=True)
        power = spectrum[..., :-1].abs().square()
        logs = (self.filters @ power).clamp(min=1e-10).log10()
        loudest = logs.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(logs, loudest - 8.0) + 4.0) / 4.0


class AudioEncoder(nn.Module):
    """Whisper's encoder with every hidden state kept, for windows shorter than 30 s too.

    mel [b, mel_bins, 2 * n] -> [b, n, layers, dim], where layers counts the embedding's output and
    each layer's, the last one after the final layer norm: what transformers gives as
    ``hidden_states``. transformers' own forward insists on 30 s; this one takes the first n
    position embeddings.
    """

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        config._attn_implementation = "sdpa"
        self.encoder = WhisperEncoder(config)

    @property
    def layers(self) -> int:
        return len(self.encoder.layers) + 1

    def forward(self, mel: Tensor) -> Tensor:
        encoder = self.encoder
        hidden = nn.functional.gelu(encoder.conv1(mel))
        hidden = nn.functional.gelu(encoder.conv2(hidden)).transpose(1, 2)
        hidden = hidden + encoder.embed_positions.weight[: mel.shape[-1] // MEL_PER_POSITION]
        states = [hidden]
        for layer in encoder.layers:
            hidden = layer(hidden, None)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            states.append(hidden)
        states[-1] = encoder.layer_norm(hidden)
        return torch.stack(states, dim=2)


def positional_encoding(length: int, dim: int) -> Tensor:
    """The sinusoids of "Attention is all you need" as MuseTalk adds them: float32 [length, dim].

    Even columns are sines, odd ones cosines, of position * 10000 ** (-2k / dim).
    """
    position = torch.arange(length, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, dim, 2).float() * (-math.log(10_000.0) / dim))
    encoding = torch.zeros(length, dim)
    encoding[:, 0::2] = torch.sin(position * rate)
    encoding[:, 1::2] = torch.cos(position * rate)
    return encoding


def gather_conditions(features: Tensor, chunk: Chunk, grid: FeatureGrid, fps: Fraction) -> Tensor:
    """Lay out what conditions each frame of ``chunk``: [frames, 10 * layers, dim].

    ``features`` is [blocks * block_positions, layers, dim], from ``chunk.first_block`` on. Rows run
    position by position, and within a position layer by layer ("b c h w -> b (c h) w" in MuseTalk,
    with 10 positions and 5 layers). Positions before the audio and after its end are zeros.
    """
    starts = [
        grid.first_position(frame, fps)
        for frame in range(chunk.first_frame, chunk.first_frame + chunk.frame_count)
    ]
    positions = torch.tensor(starts)[:, None] + torch.arange(grid.frame_positions)
    silent = positions < 0
    if chunk.end_position is not None:
        silent |= positions >= chunk.end_position
    rows = positions - chunk.first_block * grid.block_positions
    zero_row = len(features)
    if bool(((rows < 0) | (rows >= zero_row))[~silent].any()):
        raise ValueError(
            f"frames from {chunk.first_frame} need positions that {len(features)} features from "
            f"block {chunk.first_block} do not hold"
        )
    rows = rows.masked_fill(silent, zero_row).to(features.device)
    padded = torch.cat([features, features.new_zeros(1, *features.shape[1:])])
    return padded[rows].flatten(1, 2)
