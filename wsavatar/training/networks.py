"""The networks in training, connected as in the serving code but differentiable.

This module knows no data and no loss.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsavatar.faces.musetalk.features import hidden_states
from wsavatar.training.architecture import (
    AUDIO_DIM,
    AUDIO_STATES,
    BLOCK,
    DECODE_FROM_ROW,
    LEFT,
    build,
)
from wsavatar.training.data import log_mel, vary_timbre

__all__ = [
    "Critic",
    "FRAME_POSITIONS",
    "Networks",
    "PATCH",
    "TOP",
    "sinusoids",
]

PATCH = 4
TOP = DECODE_FROM_ROW * 16  # first decoded row of pixels
FRAME_POSITIONS = 10


class Networks(nn.Module):
    """VAE, UNet and audio encoder, connected as in the serving code but differentiable."""

    scale: Tensor
    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.vae, self.unet, self.audio = build()
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("positions", sinusoids(AUDIO_STATES * FRAME_POSITIONS, AUDIO_DIM))

    def encode(self, pixels: Tensor) -> Tensor:
        """[B, 3, S, S] in [-1, 1] -> scaled latents [B, C, 16, 16]."""
        moments: Tensor = self.vae.quant_conv(self.vae.encoder(F.pixel_unshuffle(pixels, PATCH)))
        return moments.chunk(2, 1)[0] * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents -> the lower pixels [B, 3, S - TOP, S]."""
        lower = latents[:, :, DECODE_FROM_ROW:] / self.scale
        return F.pixel_shuffle(self.vae.decoder(self.vae.post_quant_conv(lower)), PATCH)

    def audio_states(self, mel: Tensor) -> Tensor:
        """Log-mel [B, 80, 2P] -> hidden states [B, P, layers + 1, dim]."""
        return hidden_states(self.audio, mel)

    def condition(self, windows: Tensor, phase: Tensor, *, vary_voice: bool = False) -> Tensor:
        """Audio windows [B, 3, n] -> [B, 10 * layers, dim] with positions added."""
        b = len(windows)
        mel = log_mel(windows.flatten(0, 1))
        if vary_voice:
            mel = vary_timbre(mel, group=windows.shape[1])
        states = self.audio_states(mel)[:, LEFT : LEFT + BLOCK]
        states = states.reshape(b, 3 * BLOCK, *states.shape[2:])
        take = phase[:, None] + torch.arange(FRAME_POSITIONS, device=phase.device)
        states = states[torch.arange(b, device=phase.device)[:, None], take]
        return states.flatten(1, 2) + self.positions

    def forward(self, masked: Tensor, reference: Tensor, condition: Tensor) -> Tensor:
        zero = torch.zeros((), dtype=torch.long, device=masked.device)
        made: Tensor = self.unet(
            torch.cat([masked, reference], 1), zero, encoder_hidden_states=condition,
            return_dict=False,
        )[0]  # fmt: skip
        return made


class Critic(nn.Module):
    """Discriminator on patches of the lower face: rendered or generated."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for out in (width, 2 * width, 4 * width):
            layers += [
                nn.utils.parametrizations.spectral_norm(nn.Conv2d(channels, out, 4, 2, 1)),
                nn.LeakyReLU(0.2),
            ]
            channels = out
        layers += [nn.Conv2d(channels, 1, 3, 1, 1)]
        self.body = nn.Sequential(*layers)

    def forward(self, picture: Tensor) -> Tensor:
        score: Tensor = self.body(picture)
        return score


def sinusoids(length: int, dim: int) -> Tensor:
    position = torch.arange(length)[:, None]
    rate = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim))
    table = torch.zeros(length, dim)
    table[:, 0::2], table[:, 1::2] = torch.sin(position * rate), torch.cos(position * rate)
    return table
