"""One small network that learns: its optimiser, its rate over time, the mean of its weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Learner", "Mean"]


class Mean:
    """A running mean of a network's weights."""

    def __init__(self, network: nn.Module, keep: float) -> None:
        self.network = copy.deepcopy(network).eval()
        self.keep, self.steps = keep, 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take the network's weights in."""
        self.steps += 1
        keep = min(self.keep, (1 + self.steps) / (10 + self.steps))
        ours = self.network.state_dict()
        for name, value in network.state_dict().items():
            if value.dtype.is_floating_point:
                ours[name].lerp_(value, 1 - keep)
            else:
                ours[name].copy_(value)


class Learner:
    """A network and its optimiser. ``warm_up``: steps until the full rate; ``keep``: see `Mean`."""

    def __init__(self, network: nn.Module, rate: float, *, warm_up: int, keep: float) -> None:
        self.network = network
        self.mean = Mean(network, keep)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = torch.optim.AdamW(
            network.parameters(), lr=rate, weight_decay=0.02, betas=(0.9, 0.98)
        )
        self.rate, self.warm_up, self.steps = rate, warm_up, 0
        self._sums: dict[str, Tensor] = {}
        self._summed = 0

    def step(self, losses: Mapping[str, Tensor], share: float) -> None:
        """One step down the sum of the losses; ``error`` among them is only shown.

        ``share`` of the training that has passed.
        """
        rate = self.rate * min(1.0, (self.steps + 1) / self.warm_up)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * (0.5 + 0.5 * np.cos(np.pi * min(share, 1))) + 1e-6
        total = torch.stack([value for name, value in losses.items() if name != "error"]).sum()
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 2.0)
        self.optimiser.step()
        self.mean.update(self.network)
        self.steps += 1
        self._summed += 1
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value.detach()

    def summary(self) -> str:
        """Mean losses since the last call."""
        shown = {k: round(float(v) / max(self._summed, 1), 4) for k, v in self._sums.items()}
        self._sums, self._summed = {}, 0
        return f"step {self.steps} {shown}"
