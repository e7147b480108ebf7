"""A small network's training beside the renderers of its heads: arguments, first heads, time."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from wsavatar.training.landmarks.renders import start_renderers
from wsavatar.training.landmarks.views import Pool

__all__ = ["Run", "add_arguments", "half_weights", "training_device"]


def add_arguments(parser: argparse.ArgumentParser, **defaults: float) -> None:
    """The arguments that every such training has; ``defaults`` has those of what it sizes."""
    parser.add_argument("--renderer", type=Path, required=True)
    parser.add_argument("--negatives", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", type=Path, help="weights to start from")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--processes", type=int, default=15, help="that render")
    parser.add_argument("--heads", type=int, default=60000, help="heads kept on the device")
    parser.add_argument("--first-heads", type=int, help="heads before training")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--note", type=float, default=15, help="seconds between two lines")
    parser.set_defaults(**defaults)


def training_device() -> torch.device:
    """A GPU where there is one, with its fast products."""
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def half_weights(network: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """A network's weights as `wsavatar.landmarks.running.fill` takes them, float16."""
    return {
        prefix + name: value.detach().half().cpu().contiguous()
        for name, value in network.state_dict().items()
        if value.dtype.is_floating_point
    }


class Run:
    """One training until its time is up. The renderers write into `folder` meanwhile."""

    def __init__(
        self,
        args: argparse.Namespace,
        *,
        wide: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._args, self._clock, self._started = args, clock, clock()
        self.folder: Path = args.out / "renders"
        self._renderers = start_renderers(
            args.renderer, self.folder, processes=args.processes, first_seed=args.first_seed,
            seconds=args.seconds, wide=wide,
        )  # fmt: skip

    def wait_for_heads(self, pool: Pool, take: Callable[[int], None]) -> None:
        """``take(8)``, again and again, until the pool has enough of them.

        Fewer must do where no renderer is left. Raises SystemExit where there is none.
        """
        while pool.count < self._args.first_heads and any(p.is_alive() for p in self._renderers):
            take(8)
            time.sleep(0.2)
        if not pool.count:
            raise SystemExit("the renderers made no head: they say above what is wrong")
        passed = self._clock() - self._started
        print(f"{passed:.0f} s: {pool.count} heads, training", flush=True)

    def shares(self, note: Callable[[], str]) -> Iterator[float]:
        """The share of the training that has passed, for each step until the time is up.

        ``note`` is called now and then and at the end: it saves, and says what is printed.
        """
        seconds = self._args.seconds
        begun = noted = self._clock()
        whole = max(seconds - (begun - self._started), 1e-6)
        try:
            while (passed := self._clock() - self._started) < seconds:
                yield (passed + self._started - begun) / whole
                if self._clock() - noted > self._args.note:
                    noted = self._clock()
                    print(f"{noted - self._started:.0f} s, {note()}", flush=True)
            print(note(), flush=True)
        finally:
            for process in self._renderers:
                process.terminate()
