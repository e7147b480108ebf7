"""`jaw` for a batch on a device: the same arithmetic on tensors, without a wait.

A frame's `Jaw` is one row of bytes there, so that a batch's are gathered by one operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsavatar.faces.avatar_face import CELL, JAW_STEPS, Jaw
from wsavatar.render.finish.jaw import (
    AWAY_LEVELS,
    LEAST_BEND,
    LIGHT_LEVELS,
    NEAR_CELLS,
    STILL_LEVELS,
    SUBPIXELS,
)

__all__ = ["JawShape", "move_pixels", "packed", "read_jaws"]


@dataclass(frozen=True, slots=True)
class JawShape:
    """Sizes in cells: the drawn rows and columns of a patch, and the grid of `Jaw.reach`."""

    rows: int
    columns: int
    grid_rows: int
    grid_columns: int

    @classmethod
    def of(cls, jaw: Jaw) -> JawShape:
        """Of any frames."""
        return cls(*jaw.away.shape[-2:], *jaw.reach.shape[-2:])

    @property
    def side(self) -> int:
        """Columns of the grid on each side of the drawn ones."""
        return (self.grid_columns - self.columns) // 2

    def unpacked(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Views of `packed` rows: [g, K, R, 4, C], red, green, blue and away; and the reach."""
        split = len(JAW_STEPS) * self.rows * 4 * self.columns
        looks = rows[:, :split].view(-1, len(JAW_STEPS), self.rows, 4, self.columns)
        return looks, rows[:, split:].view(-1, self.grid_rows, self.grid_columns)


def packed(jaw: Jaw) -> np.ndarray:
    """`Jaw.looks`, `Jaw.away` and `Jaw.reach` of n frames: uint8 [n, bytes]."""
    lines = np.concatenate([jaw.looks, jaw.away[..., None]], axis=4).transpose(0, 1, 2, 4, 3)
    count = len(jaw.reach)
    return np.concatenate([lines.reshape(count, -1), jaw.reach.reshape(count, -1)], axis=1)


def read_jaws(patches: Tensor, rows: Tensor, shape: JawShape) -> tuple[Tensor, Tensor]:
    """`jaw.read_jaw` of patches as lines uint8 [g, S, 3, S], with their frames' `packed` rows.

    Gives [g, R', 5, C'], the grid's reach (0 to 255), the patch's share and the light, which are 0
    around the drawn cells; and the lower lip's movement in cells, [g, 1].
    """
    count, side = len(patches), shape.side
    constants = _constants(patches.device)
    looks, reach = shape.unpacked(rows.float())
    used = patches[:, -shape.rows * CELL :, :, : shape.columns * CELL].float()
    blocks = used.reshape(count, shape.rows, CELL, 3, shape.columns, CELL)
    cells = blocks.mean((2, 5)).round_()
    weights = reach[:, : shape.rows, side : side + shape.columns] * looks[:, -1, :, 3]
    steps = (cells[:, None] - looks[:, :, :, :3]).abs_().sum(3)
    costs = torch.bmm(steps.flatten(2), weights.view(count, -1, 1))[:, :, 0]
    place = _lowest(costs.add_(constants.prior))
    steps = torch.rsub((place - constants.numbers).abs_(), 1).clamp_(min=0)
    look = torch.bmm(steps[:, None], looks.flatten(2)).view(count, *looks.shape[2:])
    apart = cells - look[:, :, :3]
    moved = apart.abs().mean(2, keepdim=True).transpose(1, 2)
    moved = F.avg_pool2d(moved, NEAR_CELLS, 1, NEAR_CELLS // 2)[:, 0]
    opened = place.add_(JAW_STEPS[0])
    lips = (constants.still / (opened + 1).clamp_(min=1))[:, :, None]
    levels = torch.lerp(lips, constants.away, look[:, :, 3].mul_(1 / 255))
    own = moved.div_(levels).square_().neg_().exp_()[:, :, None]
    light = apart.clamp_(-LIGHT_LEVELS, LIGHT_LEVELS).mul_(own)
    drawn = torch.cat([torch.rsub(own, 1), light], 2)
    drawn = F.pad(drawn, (side, side, 0, 0, 0, shape.grid_rows - shape.rows))
    return torch.cat([reach[:, :, None], drawn], 2), opened


def _lowest(costs: Tensor) -> Tensor:
    """[g, 1]: the lowest points of parabolas, as `jaw.read_jaw` has them."""
    constants = _constants(costs.device)
    best = costs.argmin(1, keepdim=True).clamp_(1, costs.shape[1] - 2)
    near = costs.gather(1, best + constants.around)
    slope, bend = (near[:, :, None] * constants.parabola).sum(1).split(1, 1)
    lowest: Tensor = slope / bend.clamp(min=2 * LEAST_BEND)
    return lowest.clamp_(-1, 1).add_(best)


def move_pixels(window: Tensor, reach: Tensor, by: Tensor) -> Tensor:
    """`jaw.move_pixels` of uint8 [g, 3 or 4, h, w]; ``reach`` 0 to 255 [g, h, w], ``by`` [g, 2]."""
    height, width = window.shape[2:]
    places, scale = _grid(height, width, window.device)
    steps = (reach[..., None] * (by * (SUBPIXELS / 255))[:, None, None]).round_()
    moved = F.grid_sample(
        window.float(),
        torch.addcmul(places, steps, scale),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    # Values are whole numbers of 1/1024: what the places' own rounding adds is taken off first, so
    # that halves are rounded as OpenCV does.
    return moved.round_(decimals=3).round_().to(torch.uint8)


@dataclass(frozen=True, slots=True)
class _Constants:
    away: Tensor
    still: Tensor
    prior: Tensor
    numbers: Tensor
    around: Tensor
    parabola: Tensor
    """[3, 2]: from three costs to a parabola's slope, and twice its bend."""


@lru_cache(maxsize=8)
def _constants(device: torch.device) -> _Constants:
    steps = torch.arange(JAW_STEPS[0], JAW_STEPS[-1] + 1, device=device)
    return _Constants(
        away=torch.full((1, 1, 1), float(AWAY_LEVELS), device=device),
        still=torch.full((1, 1), float(STILL_LEVELS), device=device),
        prior=steps.square().float(),
        numbers=torch.arange(len(JAW_STEPS), device=device).float(),
        around=torch.arange(-1, 2, device=device),
        parabola=_filled([[1.0, 2.0], [0.0, -4.0], [-1.0, 2.0]], device),
    )


def _filled(rows: list[list[float]], device: torch.device) -> Tensor:
    """Filled on the device: a copy would wait for what it has yet to do."""
    return torch.stack([torch.stack([torch.full((), v, device=device) for v in r]) for r in rows])


@lru_cache(maxsize=32)
def _grid(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixels' places as `F.grid_sample` counts, [h, w, 2], and -1 / `SUBPIXELS` of a pixel, [2]."""
    across, down = (
        torch.arange(size, device=device).add(0.5).mul_(2 / size).sub_(1)
        for size in (width, height)
    )
    places = torch.stack([across.expand(height, -1), down[:, None].expand(-1, width)], 2)
    return places, _filled([[-2 / SUBPIXELS / width, -2 / SUBPIXELS / height]], device)[0]
