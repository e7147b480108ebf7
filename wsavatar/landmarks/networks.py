"""The two small networks of the embedded detector: where faces are, and where their points are.

Modules and shapes only. What a picture level, a crop or a threshold is, stands in `geometry` and
`embedded`.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsavatar.landmarks.blocks import Block, Merge, conv

__all__ = ["FaceFinder", "PointFinder"]

POINTS = 68


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    """Half the size, then ``blocks`` blocks."""
    return nn.Sequential(conv(inputs, outputs, 2), *(Block(outputs) for _ in range(blocks)))


def _normalise(picture: Tensor) -> Tensor:
    return (picture - 0.45) / 0.25


class FaceFinder(nn.Module):
    """Faces of one range of sizes, at each cell of 8x8 pixels.

    Takes RGB from 0 to 1, float [n, 3, h, w], both sides multiples of 16. Gives [n, 6, h/8, w/8]:
    logit that a face's middle is near; x and y from the cell's middle to it, in cells; log of the
    face's size in cells; cosine and sine of its roll (not normalised).
    """

    def __init__(self, widths: tuple[int, int, int, int] = (16, 32, 64, 96)) -> None:
        super().__init__()
        a, b, c, d = widths
        self.stem = conv(3, a, 2)
        self.fine = _stage(a, b, 1)
        self.middle = _stage(b, c, 2)
        self.coarse = _stage(c, d, 2)
        self.merge = Merge(d, c, c, Block(c))
        self.head = nn.Conv2d(c, 6, 1)

    def forward(self, picture: Tensor) -> Tensor:
        middle = self.middle(self.fine(self.stem(_normalise(picture))))
        return cast(Tensor, self.head(self.merge(self.coarse(middle), middle)))


class PointFinder(nn.Module):
    """The 68 points of the face in a crop, and whether there is one.

    Takes RGB from 0 to 1, float [n, 3, s, s], s a multiple of 16. Gives [n, 137]: 68 times x and y
    in parts of the crop's side, each the mean of a heat map (so finer than a pixel and steady),
    then the logit that the crop shows a face whose points these are.
    """

    def __init__(self, widths: tuple[int, int, int, int, int] = (24, 40, 96, 176, 64)) -> None:
        super().__init__()
        a, b, c, d, e = widths
        self.stem = conv(3, a, 2)
        self.fine = _stage(a, b, 2)
        self.middle = _stage(b, c, 2)
        self.coarse = _stage(c, d, 2)
        self.context = nn.Linear(d, d)
        self.merge_middle = Merge(d, c, c, Block(c))
        self.merge_fine = Merge(c, b, e, Block(e))
        self.head = nn.Conv2d(e, POINTS, 1)
        self.confidence = nn.Linear(2 * d, 1)

    def heat_maps(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the heat maps [n, 68, s/4, s/4], and of the confidence [n]."""
        fine = self.fine(self.stem(_normalise(picture)))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        mean, most = coarse.mean((2, 3)), coarse.amax((2, 3))
        sure = self.confidence(torch.cat([mean, most], 1))[:, 0]
        coarse = coarse + F.silu(self.context(mean))[:, :, None, None]
        return self.head(self.merge_fine(self.merge_middle(coarse, middle), fine)), sure

    def forward(self, picture: Tensor) -> Tensor:
        maps, sure = self.heat_maps(picture)
        return torch.cat([mean_position(maps).flatten(1), sure[:, None]], 1)


def mean_position(maps: Tensor) -> Tensor:
    """Mean of each heat map, given as logits [n, 68, h, w]: x and y from 0 to 1, [n, 68, 2]."""
    count, points, height, width = maps.shape
    weights = maps.float().flatten(2).softmax(2).view(count, points, height, width)
    x = (torch.arange(width, device=maps.device, dtype=torch.float32) + 0.5) / width
    y = (torch.arange(height, device=maps.device, dtype=torch.float32) + 0.5) / height
    return torch.stack([(weights.sum(2) * x).sum(2), (weights.sum(3) * y).sum(2)], 2)
