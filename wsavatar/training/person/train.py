"""Trains the network of the person mask while heads are rendered.

    python -m wsavatar.training.person.train --renderer DIR --negatives FILE --out DIR

``negatives`` are pictures without people, as of the landmark detector's training. Stops by itself;
writes ``network.safetensors``, float16, the mean of the weights over the last steps.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from wsavatar.person.networks import PersonNetwork
from wsavatar.training.landmarks.learner import Learner
from wsavatar.training.landmarks.renders import start_renderers
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
    paths = sorted(folder.glob("*.npz"))[:most]
    for path in paths:
        with np.load(path) as file:
            pool.add(file["pictures"], file["points"])
        path.unlink()
    return len(paths)


def save(path: Path, network: nn.Module) -> None:
    """float16."""
    tensors = {
        name: value.detach().half().cpu().contiguous()
        for name, value in network.state_dict().items()
        if value.dtype.is_floating_point
    }
    save_file(tensors, path)


def _learner(rate: float, device: torch.device, start: Path | None) -> Learner:
    network = PersonNetwork().to(device)
    if start:
        floats = {name: value.float() for name, value in load_file(start).items()}
        network.load_state_dict(floats, strict=False)
    return Learner(network, rate, warm_up=100, keep=0.995)


def train(args: argparse.Namespace) -> None:
    """Render and train until the time is up."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    started = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    folder = args.out / "renders"
    renderers = start_renderers(
        args.renderer, folder, processes=args.processes, first_seed=args.first_seed,
        seconds=args.seconds, wide=True,
    )  # fmt: skip
    things, scenes = load_negatives(args.negatives, device)
    pools = Pools(Pool(args.heads, device), things, scenes)
    learner = _learner(args.rate, device, args.resume)
    people = 0
    while pools.heads.count < args.first_heads and any(p.is_alive() for p in renderers):
        people += load_heads(folder, pools.heads, 8)
        time.sleep(0.2)
    begun = noted = time.monotonic()
    print(f"{begun - started:.0f} s: {pools.heads.count} heads, training", flush=True)
    while (passed := time.monotonic() - started) < args.seconds:
        share = (time.monotonic() - begun) / max(args.seconds - (begun - started), 1e-6)
        side = args.side if share > args.small else args.side * 5 // 8
        learner.step(loss(learner.network, examples(pools, args.batch, side)), share)
        people += load_heads(folder, pools.heads, 2)
        if time.monotonic() - noted > args.note:
            noted = time.monotonic()
            print(f"{passed:.0f} s, {people} people, {learner.summary()}", flush=True)
            save(args.out / "network.safetensors", learner.mean.network)
    save(args.out / "network.safetensors", learner.mean.network)
    for process in renderers:
        process.terminate()
    print(f"{learner.steps} steps, {people} people", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--renderer", type=Path, required=True)
    parser.add_argument("--negatives", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", type=Path, help="a network to start from")
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--processes", type=int, default=15)
    parser.add_argument("--heads", type=int, default=60000, help="heads kept on the device")
    parser.add_argument("--first-heads", type=int, default=1500, help="heads before training")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--small", type=float, default=0.4, help="share of it at 5/8 of the side")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--note", type=float, default=10)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
