"""Pixels and the weights of their regions, for the losses of `wsavatar.faces.musetalk.losses`."""

from __future__ import annotations

import torch
from torch import Tensor

from wsavatar.training.architecture import CROP_SIZE
from wsavatar.training.networks import TOP

__all__ = ["as_pixels", "mouth_weight"]


def as_pixels(picture: Tensor) -> Tensor:
    return picture.float() / 127.5 - 1.0


def mouth_weight(boxes: Tensor, gain: float = 4.0) -> Tensor:
    """[B, 4] lip boxes at rest -> [B, 1, S - TOP, S]: 1 everywhere, 1 + gain where lips may be."""
    dev = boxes.device
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    x = torch.arange(CROP_SIZE, device=dev)[None]
    y = torch.arange(TOP, CROP_SIZE, device=dev)[None]
    across = torch.sigmoid((x - (boxes[:, 0] - 0.15 * w)[:, None]) / 5) * torch.sigmoid(
        ((boxes[:, 2] + 0.15 * w)[:, None] - x) / 5
    )
    down = torch.sigmoid((y - (boxes[:, 1] - 0.35 * h)[:, None]) / 4) * torch.sigmoid(
        ((boxes[:, 3] + 34)[:, None] - y) / 6
    )
    return 1 + gain * (down[:, :, None] * across[:, None, :])[:, None]
