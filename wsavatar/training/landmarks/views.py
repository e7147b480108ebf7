"""Views of heads for training, made on the device: faces turned, bent and placed on something.

Pictures are float [n, 4, h, w], RGB multiplied by alpha, from 0 to 1; points are float [n, 68, 2].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from wsavatar.landmarks.geometry import CROP_SIDE, MEAN_FACE

__all__ = ["Pool", "Warp", "cut", "over", "places_of", "similarity"]


class Pool:
    """Rendered heads and negatives on the device, filled while training runs."""

    def __init__(self, capacity: int, device: torch.device, size: int = 256) -> None:
        self.pictures = torch.zeros((capacity, 4, size, size), dtype=torch.uint8, device=device)
        self.points = torch.zeros((capacity, 68, 2), device=device)
        self.count, self.capacity, self.size = 0, capacity, size
        self._next = 0

    def add(self, pictures: np.ndarray, points: np.ndarray | None = None) -> None:
        """Add [n, size, size, 4]; the oldest go where there is no room."""
        if not len(pictures):
            return
        device = self.points.device
        at = (self._next + torch.arange(len(pictures), device=device)) % self.capacity
        whole = torch.from_numpy(np.ascontiguousarray(pictures)).to(device)
        self.pictures[at] = whole.permute(0, 3, 1, 2).contiguous()
        if points is not None:
            self.points[at] = torch.from_numpy(points).to(device)
        self._next = (self._next + len(pictures)) % self.capacity
        self.count = min(self.count + len(pictures), self.capacity)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """``count`` random ones: uint8 pictures, points."""
        which = torch.randint(self.count, (count,), device=self.points.device)
        return self.pictures[which], self.points[which]


def rand(count: int, low: float, high: float, like: Tensor) -> Tensor:
    """Uniform numbers [count]."""
    return torch.rand(count, device=like.device) * (high - low) + low


def chance(count: int, probability: float, like: Tensor) -> Tensor:
    """True with a probability, bool [count]."""
    return torch.rand(count, device=like.device) < probability


def places_of(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`wsavatar.landmarks.geometry.place_of` of many: middles [n, 2], sizes [n], rolls [n]."""
    mean = torch.from_numpy(MEAN_FACE).to(points)
    middle = points.mean(1)
    moved = points - middle[:, None]
    norm = (mean**2).sum()
    along = (mean * moved).sum((1, 2)) / norm
    across = (mean[:, 0] * moved[..., 1] - mean[:, 1] * moved[..., 0]).sum(1) / norm
    return middle, torch.hypot(along, across), torch.atan2(across, along)


def similarity(middle: Tensor, reach: Tensor, roll: Tensor, mirrored: Tensor) -> Tensor:
    """Matrices [n, 2, 3] from parts of a square's side to pixels of what it is cut from."""
    cosine, sine = torch.cos(roll) * reach, torch.sin(roll) * reach
    flip = torch.where(mirrored, -1.0, 1.0)
    turn = torch.stack([cosine * flip, -sine, sine * flip, cosine], 1).view(-1, 2, 2)
    origin = middle - (turn @ torch.full((2,), 0.5, device=middle.device))
    return torch.cat([turn, origin[:, :, None]], 2)


@dataclass(slots=True)
class Warp:
    """A smooth change of a face's proportions: from the bent picture to the one it was bent from.

    ``linear`` [n, 2, 2] about ``middle`` [n, 2], then bumps: at ``centres`` [n, k, 2], as wide as
    ``radii`` [n, k], the picture is moved by ``shifts`` [n, k, 2] and scaled by 1 + ``growth``.
    """

    middle: Tensor
    linear: Tensor
    centres: Tensor
    radii: Tensor
    growth: Tensor
    shifts: Tensor

    @staticmethod
    def random(points: Tensor, strength: Tensor) -> Warp:
        """Eyes, nose, mouth, chin and cheeks larger, smaller and elsewhere. ``strength`` [n]."""
        n = len(points)
        middle, size, roll = places_of(points)
        parts = (
            slice(36, 42), slice(42, 48), slice(27, 36), slice(48, 68), slice(7, 10),
            slice(2, 6), slice(11, 15), slice(17, 22), slice(22, 27),
        )  # fmt: skip
        centres = torch.stack([points[:, part].mean(1) for part in parts], 1)
        spread = torch.randn((n, 3, 2), device=points.device) * 0.4 * size[:, None, None]
        centres = torch.cat([centres, middle[:, None] + spread], 1)
        k = centres.shape[1]
        wide = torch.tensor([0.15, 0.15, 0.17, 0.18, 0.22, 0.25, 0.25, 0.15, 0.15, 0.3, 0.3, 0.3])
        radii = wide.to(points) * size[:, None] * (0.7 + 0.6 * torch.rand((n, k)).to(points))
        by = strength[:, None]
        growth = torch.randn((n, k)).to(points).clamp(-1.5, 1.5) * 0.22 * by
        eyes = torch.randn((n, 1)).to(points) * 0.3 * by
        growth[:, :2] = growth[:, :2] * 0.3 + eyes
        large_eyed = chance(n, 0.12, points)
        growth[large_eyed, :2] = -0.25 - 0.25 * torch.rand((int(large_eyed.sum()), 1)).to(points)
        growth[large_eyed, 2:4] = 0.2 + 0.4 * torch.rand((int(large_eyed.sum()), 1)).to(points)
        growth = growth.clamp(-0.5, 0.6)
        shifts = torch.randn((n, k, 2)).to(points) * 0.035 * (size[:, None] * by)[..., None]
        shifts[:, 1, 1] = shifts[:, 0, 1] * 0.8 + shifts[:, 1, 1] * 0.2
        shifts[:, 5, 0], shifts[:, 6, 0] = (
            shifts[:, 5, 0] * 1.4,
            -shifts[:, 5, 0] * 1.2 + 0.3 * shifts[:, 6, 0],
        )
        stretch = 1 + 0.1 * by * torch.randn((n, 2)).to(points).clamp(-2, 2)
        skew = 0.07 * strength * torch.randn(n).to(points).clamp(-2, 2)
        linear = torch.stack([stretch[:, 0], skew, 0 * skew, stretch[:, 1]], 1).view(n, 2, 2)
        return Warp(middle, linear, centres, radii, growth, shifts)

    def source(self, at: Tensor) -> Tensor:
        """Where the bent picture's ``at`` [n, m, 2] come from."""
        moved = self.middle[:, None] + (at - self.middle[:, None]) @ self.linear.transpose(1, 2)
        away = at[:, :, None] - self.centres[:, None]
        bump = torch.exp(-(away**2).sum(3) / (2 * self.radii[:, None] ** 2))[..., None]
        bumps = bump * (away * self.growth[:, None, :, None] + self.shifts[:, None])
        return moved + bumps.sum(2)

    def bent(self, points: Tensor) -> Tensor:
        """Where points [n, m, 2] of the source lie in the bent picture (a fixed point)."""
        at = points
        for _ in range(16):
            at = at + 0.7 * (points - self.source(at))
        return at


def cut(pictures: Tensor, matrix: Tensor, side: int, warp: Warp | None = None) -> Tensor:
    """Squares of ``side`` pixels out of pictures uint8 [n, c, h, w]: float [n, c, side, side].

    The lowest row goes on below the picture, so that shoulders do not end in a straight line.
    """
    n, _, height, width = pictures.shape
    coarse = 41 if warp is not None else 2
    line = torch.linspace(0, 1, coarse, device=matrix.device)
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), 2).view(1, -1, 2)
    at = grid @ matrix[:, :, :2].transpose(1, 2) + matrix[:, None, :, 2]
    if warp is not None:
        at = warp.source(at)
    at = at.view(n, coarse, coarse, 2).permute(0, 3, 1, 2)
    # The coarse grid's corners are the square's, a pixel's middle lies within.
    inner = F.interpolate(at, size=(side + 1, side + 1), mode="bilinear", align_corners=True)
    inner = F.avg_pool2d(inner, 2, 1).permute(0, 2, 3, 1)
    scale = torch.tensor([2 / width, 2 / height], device=matrix.device)
    inner = inner * scale - 1
    beyond = 1 - 1 / height
    inner = torch.stack([inner[..., 0], inner[..., 1].clamp(max=beyond)], 3)
    whole = pictures.float() / 255
    return F.grid_sample(whole, inner, mode="bilinear", padding_mode="zeros", align_corners=False)


def over(front: Tensor, back: Tensor) -> Tensor:
    """A picture with alpha over RGB [n, 3, h, w]."""
    return front[:, :3] + (1 - front[:, 3:4]) * back


def crop_reach(size: Tensor) -> Tensor:
    """The crop's side for faces of a size."""
    return CROP_SIDE * size
