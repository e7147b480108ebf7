"""What the small networks of this package and of `wsavatar.person` are built of."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Block", "Merge", "conv"]


def conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """A convolution that keeps the size, or halves it with ``stride`` 2; normalised, then SiLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(),
    )


class Block(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x + self.second(self.first(x)))


class Merge(nn.Module):
    """Coarse features at twice their size plus fine ones, then a block."""

    def __init__(self, coarse: int, fine: int, outputs: int, block: nn.Module) -> None:
        super().__init__()
        self.coarse = conv(coarse, outputs, kernel=1)
        self.fine = conv(fine, outputs, kernel=1)
        self.block = block

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        larger = F.interpolate(
            self.coarse(coarse), scale_factor=2.0, mode="bilinear", align_corners=False
        )
        return cast(Tensor, self.block(larger + self.fine(fine)))
