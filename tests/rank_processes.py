"""A process that trains a line together with others, for the tests of ranks.

Run as ``python -m tests.rank_processes OUT``, with RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT set.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn

from wsavatar.training.optimisation import Trainer, clock
from wsavatar.training.ranks import Ranks

STEPS = 120
SECONDS = 12.0


def main(out: Path) -> None:
    """Learn y = (rank + 1) x on a clock of one's own: the later ranks' runs a little faster."""
    ranks = Ranks.join()
    torch.manual_seed(ranks.rank)
    line = nn.Linear(1, 1, bias=False)
    average = nn.Linear(1, 1, bias=False)
    trainer = Trainer([dict(params=list(line.parameters()), lr=0.5)], [(average, line)])
    now = 0.0
    steps, begun = 0, 0.0
    with patch.object(time, "monotonic", lambda: now):
        for step, share in clock(SECONDS, "line", [trainer], ranks):
            begun = begun or line.weight.item()
            trainer.progress(share, step)
            trainer.optimizer.zero_grad()
            x = torch.rand(16, 1)
            trainer.descend((line(x) - (ranks.rank + 1) * x).square().mean())
            now += SECONDS / STEPS * (1 + 0.2 * ranks.rank)
            steps += 1
    ranks.leave()
    found = dict(begun=begun, steps=steps, weight=line.weight.item(), mean=average.weight.item())
    (out / f"{ranks.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
