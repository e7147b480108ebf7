"""Windows of audio to features: log-mel and Whisper's encoder, as torch modules.

This module does not know how windows are cut (`wsavatar.speech.chunker` does) or which features
condition a frame (`wsavatar.faces.musetalk.positions` does).
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from transformers import WhisperConfig
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import WhisperEncoder, WhisperEncoderLayer

__all__ = [
    "AudioEncoder",
    "AudioFeatures",
    "LogMel",
    "given_states",
    "hidden_states",
]

SAMPLE_RATE = 16_000
WINDOW, HOP = 400, 160


class LogMel(nn.Module):
    """Whisper's log-mel spectrogram, for windows of any length.

    float32 [b, samples] -> float32 [b, mel_bins, samples // 160]. The same figures as transformers'
    `WhisperFeatureExtractor`: centred 25 ms Hann frames every 10 ms, Slaney mel, log10, at most 8
    (80 dB) below the window's own loudest bin, then (x + 4) / 4. That floor is why features depend
    on the window, and why a block is always computed from the same one.

    The Fourier transform is a matrix product: 400 points are few, and unlike an FFT it can be
    compiled into one graph with the encoder. Keep it in float32.
    """

    basis: Tensor
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
        sample = torch.arange(WINDOW, dtype=torch.float64)
        angle = 2 * math.pi / WINDOW * torch.outer(sample, sample[: 1 + WINDOW // 2])
        hann = torch.hann_window(WINDOW, dtype=torch.float64)[:, None]
        basis = torch.cat([hann * angle.cos(), hann * angle.sin()], dim=1)
        self.register_buffer("basis", basis.float(), persistent=False)
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        logs = self.logs(audio)
        loudest = logs.amax(dim=(1, 2), keepdim=True)
        return ((torch.maximum(logs, loudest - 8.0) + 4.0) / 4.0).transpose(1, 2)

    def logs(self, audio: Tensor) -> Tensor:
        """log10 of each band's power, at least -10: [b, samples // 160, mel_bins]."""
        padded = nn.functional.pad(audio[:, None], (WINDOW // 2, WINDOW // 2), mode="reflect")[:, 0]
        frames = padded.unfold(1, WINDOW, HOP)[:, : audio.shape[1] // HOP]
        real, imaginary = (frames @ self.basis).square().chunk(2, dim=2)
        return ((real + imaginary) @ self.filters).clamp(min=1e-10).log10()


class AudioEncoder(nn.Module):
    """Whisper's encoder with every hidden state kept, for windows shorter than 30 s too.

    mel [b, mel_bins, 2 * n] -> [b, n, layers, dim], where layers counts the embedding's output and
    each layer's, the last one after the final layer norm: what transformers gives as
    ``hidden_states``; or only those of them that the config names, from 0 on, as ``out_indices``.
    transformers' own forward insists on 30 s; this one takes the first n position embeddings. Its
    tensors are named as in transformers' `WhisperEncoder`. Raises ValueError where ``out_indices``
    names a state that is not there.
    """

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        config._attn_implementation = "sdpa"
        dim = config.d_model
        self.config = config
        self.conv1 = nn.Conv1d(config.num_mel_bins, dim, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(dim, dim, kernel_size=3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(config.max_source_positions, dim)
        self.layers = nn.ModuleList(
            [WhisperEncoderLayer(config) for _ in range(config.encoder_layers)]
        )
        self.layer_norm = nn.LayerNorm(dim)
        self.given = given_states(config)

    def forward(self, mel: Tensor) -> Tensor:
        return hidden_states(self, mel)


def hidden_states(encoder: AudioEncoder | WhisperEncoder, mel: Tensor) -> Tensor:
    """What `AudioEncoder` gives, of transformers' encoder too: training's are of that class."""
    hidden = nn.functional.gelu(encoder.conv1(mel))
    hidden = nn.functional.gelu(encoder.conv2(hidden)).transpose(1, 2)
    hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
    states = [hidden]
    for layer in encoder.layers:
        hidden = layer(hidden, None)
        states.append(hidden)
    states[-1] = encoder.layer_norm(hidden)
    return torch.stack([states[i] for i in given_states(encoder.config)], dim=2)


def given_states(config: WhisperConfig) -> tuple[int, ...]:
    """Which of the embedding's and the layers' states an encoder gives; see `AudioEncoder`."""
    states = range(config.encoder_layers + 1)
    named = getattr(config, "out_indices", None)
    if named is None:
        return tuple(states)
    if not named or not all(isinstance(i, int) and i in states for i in named):
        raise ValueError(f"out_indices {named} are not states 0 to {states[-1]}")
    return tuple(named)


class AudioFeatures(nn.Module):
    """Windows of samples to features in one module: float32 [b, samples] -> [b, n, layers, dim]."""

    def __init__(self, mel: LogMel, encoder: AudioEncoder) -> None:
        super().__init__()
        self.mel, self.encoder = mel, encoder

    def forward(self, audio: Tensor) -> Tensor:
        mel = self.mel(audio)
        return cast("Tensor", self.encoder(mel.to(self.encoder.conv1.weight.dtype)))
