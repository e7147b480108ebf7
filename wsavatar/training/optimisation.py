"""Optimiser steps, CUDA graphs and time budgets. This module knows no network and no loss.

A captured step may not read a number from the host: whatever changes between replays is a tensor.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wsavatar.training.distributed import SINGLE_PROCESS, Ranks

__all__ = ["Trainer", "autocast", "timed_steps", "graphed"]


class Trainer:
    """AdamW with a cosine schedule over a time budget, and an average of the weights."""

    def __init__(
        self, groups: list[dict[str, Any]], average: list[tuple[nn.Module, nn.Module]]
    ) -> None:
        cuda = torch.cuda.is_available()
        self.peaks = [g["lr"] for g in groups]
        for g in groups:
            g["lr"] = torch.tensor(float(g["lr"]), device="cuda" if cuda else "cpu")
        self.optimizer = torch.optim.AdamW(
            groups, betas=(0.9, 0.98), weight_decay=0.01, fused=True, capturable=cuda
        )
        self.parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        self.average: list[tuple[list[Tensor], list[Tensor]]] = [
            (list(slow.parameters()), list(fast.parameters())) for slow, fast in average
        ]
        self.decay = torch.tensor(0.0, device="cuda" if cuda else "cpu")
        self.skipped = torch.tensor(0, device="cuda" if cuda else "cpu")

    @property
    def averages(self) -> list[Tensor]:
        """The running averages."""
        return [p for slow, _ in self.average for p in slow]

    def schedule(self, share: float, step: int) -> None:
        warm = min(1.0, (step + 1) / 200)
        level = warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"].fill_(peak * level)
        self.decay.fill_(min(0.999, (1 + step) / (20 + step)))

    def step(self, loss: Tensor) -> None:
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        # A gradient that is not finite is skipped, so that it does not spoil the weights.
        finite = torch.isfinite(norm)
        self.skipped += ~finite
        for p in self.parameters:
            if p.grad is not None:
                p.grad.copy_(torch.where(finite, p.grad, 0.0))
        self.optimizer.step()
        for slow, fast in self.average:
            with torch.no_grad():
                # Tensor factors, not numbers: a captured graph reads them again at each replay.
                torch._foreach_mul_(slow, self.decay)
                torch._foreach_add_(slow, torch._foreach_mul(fast, 1.0 - self.decay))


def graphed(step: Callable[..., Any], inputs: list[Tensor], reset: Callable[[], None]) -> Any:
    """Capture a training step as a CUDA graph and replay it; on a CPU, call it directly."""
    if not inputs[0].is_cuda:

        def plain(*args: Tensor) -> Any:
            reset()
            return step(*args)

        return plain
    static = [x.clone() for x in inputs]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            reset()
            step(*static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    reset()
    with torch.cuda.graph(graph):
        result = step(*static)

    def replay(*args: Tensor) -> Any:
        for target, value in zip(static, args, strict=True):
            target.copy_(value)
        graph.replay()
        return result

    return replay


def timed_steps(
    seconds: float, name: str, trainers: Sequence[Trainer], ranks: Ranks = SINGLE_PROCESS
) -> Iterator[tuple[int, float]]:
    """Yield (step, share of the budget spent) until the budget is spent.

    Several processes start with the same weights, take their mean every ``ranks.sync_every`` steps,
    and end at the same step with the same weights and averages.
    """
    weights = [p for trainer in trainers for p in trainer.parameters]
    averages = [p for trainer in trainers for p in trainer.averages]
    ranks.broadcast(weights + averages)
    start, step, spent = time.monotonic(), 0, 0.0
    while spent < seconds:
        yield step, spent / seconds
        step += 1
        spent = time.monotonic() - start
        if step % ranks.sync_every == 0:
            ranks.mean(weights)
            spent = ranks.largest(spent)
        elif ranks.size > 1:  # no process ends between two means
            spent = min(spent, 0.999 * seconds)
    ranks.mean(averages)  # the weights are already equal
    print(
        f"[{name}] {step} steps, {1000 * (time.monotonic() - start) / max(1, step):.1f} ms each",
        flush=True,
    )


def autocast(device: torch.device) -> Any:
    return torch.autocast(
        device.type, torch.bfloat16, cache_enabled=False, enabled=device.type == "cuda"
    )
