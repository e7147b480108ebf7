"""Local SGD: several processes with a GPU each train one model.

Each process trains on its own batches; every few steps all take the mean of their weights. A single
process runs the same code. Started by ``torchrun``, or by anything that sets RANK, WORLD_SIZE,
LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist

# Imported before any group exists: its functions' defaults would keep the group of that moment (an
# optimizer imports it too), and the threads of a group that lives on can abort Python's end.
import torch.distributed.nn
from torch import Tensor

__all__ = ["SINGLE_PROCESS", "Ranks"]


@dataclass(frozen=True)
class Ranks:
    """This process' rank and their number. All processes must make the same calls in order."""

    rank: int = 0
    size: int = 1
    sync_every: int = 50  # steps between two means of the weights

    @classmethod
    def join(cls) -> Ranks:
        """Join the processes that the environment names, if any, and select this one's GPU."""
        size = int(os.environ.get("WORLD_SIZE", 1))
        if size == 1:
            return SINGLE_PROCESS
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        # gloo, not NCCL, whose watchdog queries CUDA events, which fails while a graph is captured.
        # A mean through the host's memory takes a tenth of a second.
        dist.init_process_group("gloo")
        return cls(dist.get_rank(), size)

    def leave(self) -> None:
        """Leave the process group; its threads have ended then."""
        if self.size > 1:
            dist.destroy_process_group()

    def mean(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over all processes."""
        self._exchange(tensors, mean=True)

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by the first process' one."""
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
        values = flat.to(parts[0].device).split([p.numel() for p in parts])
        for part, new in zip(parts, values, strict=True):
            part.copy_(new.view(part.shape))

    def largest(self, value: float) -> float:
        """The largest of all processes' values."""
        if self.size == 1:
            return value
        largest = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return float(largest)


SINGLE_PROCESS = Ranks()
