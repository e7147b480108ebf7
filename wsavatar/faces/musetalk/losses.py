"""Losses between a picture and the true one: values, gradients, sharpness, weighted by region."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["energy_loss", "picture_loss"]


def picture_loss(made: Tensor, true: Tensor, weight: Tensor, sharp: float = 1.0) -> Tensor:
    """L1 of values and of gradients at three scales, weighted by region."""
    made, true = made.float(), true.float()
    norm = weight.mean()
    loss = ((made - true).abs() * weight).mean() / norm
    for scale in range(3):
        for axis in (2, 3):
            d = (made.diff(dim=axis) - true.diff(dim=axis)).abs()
            w = weight.narrow(axis, 0, weight.shape[axis] - 1)
            loss = loss + sharp * (d * w).mean() / norm / (1 + scale)
        if scale < 2:
            made, true, weight = (F.avg_pool2d(v, 2) for v in (made, true, weight))
    return loss


def energy_loss(made: Tensor, true: Tensor, weight: Tensor) -> Tensor:
    """Distance of the local gradient energies, as log ratio over 8x8 patches.

    L1 alone prefers blur where detail cannot be placed exactly; here blur costs, and misplaced
    detail does not cost twice.
    """

    def energy(picture: Tensor) -> Tensor:
        dx = picture.diff(dim=3)[:, :, :-1] ** 2
        dy = picture.diff(dim=2)[..., :-1] ** 2
        return F.avg_pool2d((dx + dy).mean(1, keepdim=True), 8, 4)

    made, true = energy(made.float()), energy(true.float())
    floor = 2e-4
    weight = F.avg_pool2d(weight[..., :-1, :-1], 8, 4)
    return ((made + floor).log() - (true + floor).log()).abs().mul(weight).mean() / weight.mean()
