"""Whisper's encoder for one block of a window, without unused results.

What `wsavatar.faces.musetalk.features.AudioFeatures` computes on a window padded to Whisper's 30 s,
for the block's own positions. The same arithmetic, but:

* the padding's log-mel is a constant, so only the audio goes through the spectrogram;
* rows keep their channels side by side from the spectrogram to the last layer; convolutions are
  matrix products over overlapping rows, and biases are added where the rows are read;
* of the last layer, and of the hidden states that are given out, only the block's own positions are
  computed.

This module knows no chunks, devices or files.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsavatar.faces.musetalk.features import HOP, WINDOW, AudioEncoder, LogMel
from wsavatar.faces.musetalk.fused_blocks import LayerNorm, bias_of, constant
from wsavatar.speech.chunker import FeatureGrid

__all__ = ["FusedAudio"]


class FusedAudio(nn.Module):
    """float32 [b, grid.window_samples] -> [b, grid.block_positions, layers, dim].

    ``window_positions`` is what a window is padded to with silence.
    """

    def __init__(
        self, mel: LogMel, encoder: AudioEncoder, grid: FeatureGrid, window_positions: int
    ) -> None:
        super().__init__()
        self.mel = mel
        self.positions = window_positions
        self.own = slice(grid.left_positions, grid.left_positions + grid.block_positions)
        self.conv1 = _taps(encoder.conv1)
        self.bias1 = constant(bias_of(encoder.conv1))
        self.conv2 = _taps(encoder.conv2)
        self.bias2 = constant(bias_of(encoder.conv2))
        self.embedding = constant(encoder.embed_positions.weight[:window_positions])
        self.given = encoder.given
        pending = torch.zeros(encoder.config.d_model, device=encoder.conv1.weight.device)
        self.layers = nn.ModuleList()
        for layer in encoder.layers:
            fused = _Layer(layer, pending)
            self.layers.append(fused)
            pending = fused.left
        self.norm = LayerNorm(encoder.layer_norm)
        self.pending = constant(pending.to(encoder.conv1.weight.dtype))

    def forward(self, audio: Tensor) -> Tensor:
        x = self._embed(self._log_mel(audio))
        states = {0: x[:, self.own].clone()}  # layers overwrite their input
        for number, layer in enumerate(self.layers[:-1], 1):
            x = layer(x)
            if number in self.given:
                states[number] = x[:, self.own] + layer.bias_left
        own = self.layers[-1](x, self.own)
        states[len(self.layers)] = self.norm(own.flatten(0, 1), self.pending).view_as(own)
        return torch.stack([states[i] for i in self.given], dim=2)

    def _log_mel(self, audio: Tensor) -> Tensor:
        """[b, 2 * positions, mel_bins] in the encoder's type."""
        frames = 2 * self.positions
        heard = min(frames, -(-(audio.shape[1] + WINDOW // 2) // HOP))
        logs = self.mel.logs(F.pad(audio, (0, heard * HOP - audio.shape[1])))
        floor = logs.amax(dim=(1, 2), keepdim=True) - 8.0
        dtype = self.bias1.dtype
        known = ((torch.maximum(logs, floor) + 4.0) / 4.0).to(dtype)
        silence = ((floor.clamp(min=-10.0) + 4.0) / 4.0).to(dtype)
        return torch.cat([known, silence.expand(-1, frames - heard, logs.shape[2])], dim=1)

    def _embed(self, mel: Tensor) -> Tensor:
        x = F.gelu(_convolve(mel, self.conv1, stride=1) + self.bias1)
        x = F.gelu(_convolve(x, self.conv2, stride=2) + self.bias2)
        return x + self.embedding


class _Layer(nn.Module):
    """One encoder layer; its input and output lack constants, added where they are read."""

    def __init__(self, layer: Any, pending: Tensor) -> None:
        super().__init__()
        attention = layer.self_attn
        self.heads = attention.num_heads
        self.norm1 = LayerNorm(layer.self_attn_layer_norm)
        self.norm2 = LayerNorm(layer.final_layer_norm)
        query, key, value = attention.q_proj, attention.k_proj, attention.v_proj
        self.query = constant(query.weight.t())
        self.query_bias = constant(query.bias)
        self.key_value = constant(torch.cat([key.weight, value.weight]).t())
        self.key_value_bias = constant(torch.cat([torch.zeros_like(value.bias), value.bias]))
        self.out = constant(attention.out_proj.weight.t())
        self.fc1, self.fc1_bias = constant(layer.fc1.weight.t()), constant(layer.fc1.bias)
        self.fc2 = constant(layer.fc2.weight.t())
        self.activation = layer.activation_fn
        dtype = layer.fc1.bias.dtype
        self.offset1 = constant(pending.to(dtype))
        pending = pending + attention.out_proj.bias.float()
        self.offset2 = constant(pending.to(dtype))
        self.left = pending + layer.fc2.bias.float()
        self.bias_left = constant(self.left.to(dtype))

    def forward(self, x: Tensor, own: slice | None = None) -> Tensor:
        """[b, n, c] -> [b, n, c], overwriting x; with ``own`` those positions, and x stays."""
        b, n, c = x.shape
        normed = self.norm1(x.flatten(0, 1), self.offset1).view(b, n, c)
        asking = normed if own is None else normed[:, own]
        rows = x.flatten(0, 1) if own is None else x[:, own].flatten(0, 1).clone()
        query = torch.addmm(self.query_bias, asking.flatten(0, 1), self.query).view_as(asking)
        both = torch.addmm(self.key_value_bias, normed.flatten(0, 1), self.key_value)
        key, value = both.view(b, n, 2 * c).chunk(2, dim=2)
        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (query, key, value))
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).flatten(0, 1)
        rows.addmm_(seen, self.out)
        inner = torch.addmm(self.fc1_bias, self.norm2(rows, self.offset2), self.fc1)
        rows.addmm_(self.activation(inner), self.fc2)
        return rows.view(b, -1, c)


def _taps(conv: nn.Conv1d) -> nn.Parameter:
    """[out, in, 3] -> [3 * in, out], for rows of three neighbours side by side."""
    return constant(conv.weight.permute(2, 1, 0).flatten(0, 1))


def _convolve(x: Tensor, taps: Tensor, stride: int) -> Tensor:
    """A convolution of width 3 along [b, n, c], zeros beyond both ends -> [b, n / stride, out]."""
    b, n, c = x.shape
    padded = F.pad(x, (0, 0, 1, 1))
    rows = padded.as_strided((b, n // stride, 3 * c), (padded.stride(0), stride * c, 1))
    return rows @ taps
