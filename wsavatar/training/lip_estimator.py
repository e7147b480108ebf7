"""Estimates the opening and width of the lips from a picture. Evaluation measures lips with it.

A small regressor trained on rendered mouths whose landmarks are exact. Two are trained, with
different sizes and data: one guides the face stage, the other is used for evaluation only. The
weights of the second are stored beside this file.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

__all__ = ["LipEstimator"]


class LipEstimator(nn.Module):
    """Lower part of a crop in, lip shape out.

    Takes [B, 3, 144, 256] in [-1, 1], the rows of a 256-pixel crop that the model decodes; gives
    [B, 3]: inner-lip gap, inner width, outer width, over the distance of the eyes' outer
    corners.
    """

    scale: Tensor
    mean: Tensor

    def __init__(self, width: int = 24, kernel: int = 3) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor((0.05, 0.05, 0.05)))
        self.register_buffer("mean", torch.tensor((0.08, 0.45, 0.55)))
        layers: list[nn.Module] = []
        channels = 3
        for step, out in enumerate((width, 2 * width, 3 * width, 4 * width)):
            layers += [
                nn.Conv2d(channels, out, kernel if step else 5, 2, (kernel if step else 5) // 2),
                nn.GroupNorm(8, out),
                nn.SiLU(),
                nn.Conv2d(out, out, 3, 1, 1),
                nn.GroupNorm(8, out),
                nn.SiLU(),
            ]
            channels = out
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(channels * 5 * 8, 128), nn.SiLU(), nn.Linear(128, 3)
        )

    @classmethod
    def for_evaluation(cls) -> LipEstimator:
        """The trained estimator that is used for evaluation only."""
        estimator = cls(32, 5)
        weights = load_file(Path(__file__).with_name("lip_estimator.safetensors"))
        estimator.load_state_dict({name: values.float() for name, values in weights.items()})
        return estimator.eval().requires_grad_(False)

    def forward(self, lower: Tensor) -> Tensor:
        small = F.interpolate(lower, (80, 128), mode="bilinear", antialias=False)
        values: Tensor = self.head(self.body(small)).float()
        return values * self.scale + self.mean
