"""Trains the network of the person mask while heads are rendered.

    python -m wsavatar.training.person.train --renderer DIR --negatives FILE --out DIR

``negatives`` are pictures without people, as of the landmark detector's training. Stops by itself;
writes ``network.safetensors``, float16, the mean of the weights over the last steps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from wsavatar.landmarks.running import fill
from wsavatar.person.networks import PersonNetwork
from wsavatar.training.landmarks.learner import Learner
from wsavatar.training.landmarks.renders import rendered_people
from wsavatar.training.landmarks.run import Run, add_arguments, half_weights, training_device
from wsavatar.training.landmarks.train import load_negatives
from wsavatar.training.landmarks.views import Pool
from wsavatar.training.person.examples import Examples, Pools, examples

__all__ = ["load_heads", "loss", "main"]


def loss(network: nn.Module, made: Examples) -> dict[str, Tensor]:
    """Cross entropy, distance and slopes of the alpha, more at its edges; and the plain error."""
    kind = made.seen.device.type
    with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
        logits = network(made.seen.contiguous(memory_format=torch.channels_last))
    logits, wanted = logits.float(), made.alpha
    around = F.avg_pool2d(wanted, 9, 1, 4)
    weight = 1 + 4 * (around * (1 - around) * 4).clamp(0, 1)
    cross = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    found = torch.sigmoid(logits)
    away = (found - wanted).abs()
    slopes = sum((found.diff(dim=axis) - wanted.diff(dim=axis)).abs().mean() for axis in (2, 3))
    both, either = (found * wanted).sum((1, 2, 3)), (found + wanted - found * wanted).sum((1, 2, 3))
    return {
        "cross": (cross * weight).mean(),
        "away": (away * weight).mean(),
        "slopes": torch.as_tensor(slopes) * 2,
        "shared": 0.3 * (1 - (both + 1) / (either + 1)).mean(),
        "error": away.mean().detach() * 100,
    }


def load_heads(folder: Path, pool: Pool, most: int) -> int:
    """Read up to ``most`` files of rendered people into the pool, and delete them."""
    people = 0
    for person in rendered_people(folder, most):
        pool.add(person["pictures"], person["points"])
        people += 1
    return people


def _learner(rate: float, device: torch.device, start: Path | None) -> Learner:
    network = PersonNetwork().to(device)
    if start:
        fill(network, load_file(start))
    return Learner(network, rate, warm_up=100, keep=0.995)


def train(args: argparse.Namespace) -> None:
    """Render and train until the time is up."""
    device, run = training_device(), Run(args, wide=True)
    things, scenes = load_negatives(args.negatives, device)
    pools = Pools(Pool(args.heads, device), things, scenes)
    learner = _learner(args.rate, device, args.resume)
    people = 0

    def take(most: int) -> None:
        nonlocal people
        people += load_heads(run.folder, pools.heads, most)

    def note() -> str:
        save_file(half_weights(learner.mean.network), args.out / "network.safetensors")
        return f"{people} people, {learner.summary()}"

    run.wait_for_heads(pools.heads, take)
    for share in run.shares(note):
        side = args.side if share > args.small else args.side * 5 // 8
        learner.step(loss(learner.network, examples(pools, args.batch, side)), share)
        take(2)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, seconds=180, first_heads=1500, batch=96)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--small", type=float, default=0.4, help="share of it at 5/8 of the side")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
