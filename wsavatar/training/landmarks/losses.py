"""What the landmark detector's two networks are trained to do: losses of one batch each."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from wsavatar.landmarks.networks import FaceFinder, PointFinder, mean_position
from wsavatar.training.landmarks.examples import FINDER_SIZES, CropExamples, SceneExamples

__all__ = ["finder_loss", "finder_targets", "points_loss"]

_TOLERATED = (14.0, 72.0)
"""Face sizes in pixels which the finder may find or leave."""
_CELL = 8


def points_loss(network: PointFinder, made: CropExamples) -> dict[str, Tensor]:
    """Distance of the points, spread of the heat maps, and confidence."""
    with torch.autocast(made.pictures.device.type, torch.bfloat16):
        maps, sure = network.heat_maps(made.pictures.contiguous(memory_format=torch.channels_last))
    maps, sure = maps.float(), sure.float()
    real = made.sure > 0.5
    found, wanted, maps = mean_position(maps)[real], made.points[real], maps[real]
    # Distances in hundredths of the crop: straight beyond 1, steeper than a square within.
    away = (found - wanted).norm(dim=2) * 100
    distance = torch.where(away < 1, away.clamp(min=1e-6) ** 1.5 * 2 / 3, away - 1 / 3)
    inside = ((wanted > 0) & (wanted < 1)).all(2).float()
    n, k, h, w = maps.shape
    at = (torch.arange(w, device=maps.device) + 0.5) / w
    wide = 1.2 / w
    x = torch.exp(-((at - wanted[..., :1]) ** 2) / (2 * wide**2))
    y = torch.exp(-((at - wanted[..., 1:]) ** 2) / (2 * wide**2))
    target = y[..., :, None] * x[..., None, :]
    target = target / target.sum((2, 3), keepdim=True).clamp(min=1e-6)
    logs = maps.flatten(2).log_softmax(2).view(n, k, h, w)
    spread = -(target * logs).sum((2, 3))
    certain = F.binary_cross_entropy_with_logits(sure, made.sure)
    return {
        "points": (distance * inside).mean(),
        "spread": 0.08 * (spread * inside).mean(),
        "sure": 1.0 * certain,
        "error": ((away * inside).mean(1) * 1.6).mean().detach(),  # % of the face's size
    }


def finder_targets(scene: SceneExamples) -> tuple[Tensor, Tensor, Tensor]:
    """Heat [n, h, w] (1 face, 0 none, -1 not asked), values [n, 5, h, w], and their weights."""
    n, _, side, _ = scene.pictures.shape
    cells = side // _CELL
    device = scene.pictures.device
    line = torch.arange(cells, device=device) + 0.5
    heat = torch.zeros((n, cells, cells), device=device)
    values = torch.zeros((n, 5, cells, cells), device=device)
    weight = torch.zeros((n, cells, cells), device=device)
    for slot in range(scene.places.shape[1]):
        x, y, size, roll = scene.places[:, slot].unbind(1)
        away_x = (x / _CELL)[:, None, None] - line[None, None, :]
        away_y = (y / _CELL)[:, None, None] - line[None, :, None]
        distance = torch.hypot(*torch.broadcast_tensors(away_x, away_y))
        in_cells = (size / _CELL)[:, None, None]
        there = scene.seen[:, slot, None, None]
        fits = ((size >= FINDER_SIZES[0]) & (size <= FINDER_SIZES[1]))[:, None, None]
        near = (size > _TOLERATED[0]) & (size < _TOLERATED[1])
        ring = there & (distance < 0.45 * in_cells) & near[:, None, None]
        core = there & (distance < (0.2 * in_cells).clamp(min=0.75)) & fits
        heat = torch.where(ring & (heat == 0), -1.0, heat)
        heat = torch.where(core, 1.0, heat)
        learn = there & (distance < 0.35 * in_cells) & near[:, None, None]
        new = torch.stack(
            [
                away_x.expand_as(heat), away_y.expand_as(heat),
                torch.log(in_cells.clamp(min=0.1)).expand_as(heat),
                torch.cos(roll)[:, None, None].expand_as(heat),
                torch.sin(roll)[:, None, None].expand_as(heat),
            ],
            1,
        )  # fmt: skip
        values = torch.where(learn[:, None], new, values)
        weight = torch.where(learn, 1.0, weight)
    return heat, values, weight


def finder_loss(network: FaceFinder, scene: SceneExamples) -> dict[str, Tensor]:
    """Whether a face is at each cell, and its place."""
    heat, values, weight = finder_targets(scene)
    with torch.autocast(scene.pictures.device.type, torch.bfloat16):
        out = network(scene.pictures.contiguous(memory_format=torch.channels_last))
    out = out.float()
    asked, wanted = (heat >= 0).float(), heat.clamp(min=0)
    cross = F.binary_cross_entropy_with_logits(out[:, 0], wanted, reduction="none")
    chance_of = torch.sigmoid(out[:, 0]).detach()
    miss = (wanted - chance_of).abs() ** 2
    many = wanted.sum().clamp(min=1)
    found = (cross * miss * asked * (1 + wanted)).sum() / many
    off = (F.smooth_l1_loss(out[:, 1:], values, reduction="none", beta=0.1) * weight[:, None]).sum(
        (0, 2, 3)
    ) / weight.sum().clamp(min=1)
    weights = torch.tensor([1.0, 1.0, 2.0, 1.0, 1.0], device=out.device)
    return {"heat": found, "place": 0.5 * (off * weights).sum()}
