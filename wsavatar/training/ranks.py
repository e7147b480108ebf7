"""Several processes, a GPU each, that train one model: local SGD.

Each draws its own batches and descends by itself; every few steps all take the mean of their
weights. One process alone is the same code with nobody to meet. Started by ``torchrun``, or by
anything that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["ALONE", "Ranks"]


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is. The others must call each method as this one does."""

    rank: int = 0
    size: int = 1
    every: int = 50  # steps between meetings

    @classmethod
    def join(cls) -> Ranks:
        """Meet the other processes that the environment names, if any, and take one's own GPU."""
        size = int(os.environ.get("WORLD_SIZE", 1))
        if size == 1:
            return ALONE
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        # Through the host's memory, not NCCL: its watchdog asks CUDA for events, which a step that
        # is being captured forbids; and a meeting takes a tenth of a second.
        dist.init_process_group("gloo")
        return cls(dist.get_rank(), size)

    def leave(self) -> None:
        """Part from the other processes."""
        if self.size > 1:
            dist.destroy_process_group()

    def mean(self, tensors: Iterable[Tensor]) -> None:
        """Put the mean of all processes' tensors in place of each."""
        self._exchange(tensors, mean=True)

    def follow(self, tensors: Iterable[Tensor]) -> None:
        """Put the first process' tensors in place of each."""
        self._exchange(tensors, mean=False)

    @torch.no_grad()
    def _exchange(self, tensors: Iterable[Tensor], *, mean: bool) -> None:
        parts = list(tensors)
        if self.size == 1 or not parts:
            return
        flat = torch.cat([p.detach().float().flatten() for p in parts]).cpu()
        if mean:
            dist.all_reduce(flat)
            flat /= self.size
        else:
            dist.broadcast(flat, 0)
        given = flat.to(parts[0].device).split([p.numel() for p in parts])
        for part, values in zip(parts, given, strict=True):
            part.copy_(values.view(part.shape))

    def latest(self, value: float) -> float:
        """The largest of all processes' values."""
        if self.size == 1:
            return value
        largest = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return float(largest)


ALONE = Ranks()
