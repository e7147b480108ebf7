"""The network of the person mask: a small U-Net. Modules and shapes only."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsavatar.landmarks.blocks import Block, Merge, conv

__all__ = ["PersonNetwork"]


class _Wide(nn.Module):
    """A 5x5 convolution of each of twice the channels, beside the identity: few weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = 2 * channels
        self.enter = conv(channels, inner, kernel=1)
        self.each = nn.Sequential(
            nn.Conv2d(inner, inner, 5, 1, 2, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.SiLU(),
        )
        self.leave = nn.Sequential(
            nn.Conv2d(inner, channels, 1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.leave(self.each(self.enter(x))))


class PersonNetwork(nn.Module):
    """How much of each pixel is the person with a given face.

    Takes float [n, 4, h, w], sides multiples of 32: RGB from 0 to 1, and where the face is
    (`wsavatar.person.mask.face_hint`). Gives logits [n, 1, h, w] of the alpha.
    """

    def __init__(self, widths: tuple[int, int, int, int, int] = (16, 32, 64, 112, 120)) -> None:
        super().__init__()
        a, b, c, d, e = widths
        self.stem = conv(4, a, 2)
        self.quarter = nn.Sequential(conv(a, b, 2), Block(b))
        self.eighth = nn.Sequential(conv(b, c, 2), _Wide(c), _Wide(c))
        self.sixteenth = nn.Sequential(conv(c, d, 2), _Wide(d), _Wide(d))
        self.least = nn.Sequential(conv(d, e, 2), _Wide(e), _Wide(e), _Wide(e))
        self.context = nn.Linear(e, e)
        self.to_sixteenth = Merge(e, d, 96, _Wide(96))
        self.to_eighth = Merge(96, c, c, _Wide(c))
        self.to_quarter = Merge(c, b, b, Block(b))
        self.to_half = Merge(b, a, 24, Block(24))
        self.detail = conv(4, 8)
        self.to_whole = Merge(24, 8, 16, conv(16, 16))
        self.head = nn.Conv2d(16, 1, 1)

    def forward(self, seen: Tensor) -> Tensor:
        seen = torch.cat([(seen[:, :3] - 0.45) / 0.25, seen[:, 3:]], 1)
        half = self.stem(seen)
        quarter = self.quarter(half)
        eighth = self.eighth(quarter)
        sixteenth = self.sixteenth(eighth)
        least = self.least(sixteenth)
        least = least + F.silu(self.context(least.mean((2, 3))))[:, :, None, None]
        x = self.to_eighth(self.to_sixteenth(least, sixteenth), eighth)
        x = self.to_half(self.to_quarter(x, quarter), half)
        return cast(Tensor, self.head(self.to_whole(x, self.detail(seen))))
