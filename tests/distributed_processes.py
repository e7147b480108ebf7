"""One of several processes that train a line together, for the test of local SGD.

Run as ``python -m tests.distributed_processes OUT``, with RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT set.
"""

from __future__ import annotations

import json
import sys
import time
import weakref
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import nn

from wsavatar.training.distributed import Ranks
from wsavatar.training.optimisation import Trainer, timed_steps

STEPS = 120
SECONDS = 12.0


def main(out: Path) -> None:
    """Learn y = (rank + 1) x on a simulated clock that is faster for higher ranks."""
    ranks = Ranks.join()
    torch.manual_seed(ranks.rank)
    line = nn.Linear(1, 1, bias=False)
    average = nn.Linear(1, 1, bias=False)
    trainer = Trainer([dict(params=list(line.parameters()), lr=0.5)], [(average, line)])
    now = 0.0
    steps, begun = 0, 0.0
    with patch.object(time, "monotonic", lambda: now):
        for step, share in timed_steps(SECONDS, "line", [trainer], ranks):
            begun = begun or line.weight.item()
            trainer.schedule(share, step)
            trainer.optimizer.zero_grad()
            x = torch.rand(16, 1)
            trainer.step((line(x) - (ranks.rank + 1) * x).square().mean())
            now += SECONDS / STEPS * (1 + 0.2 * ranks.rank)
            steps += 1
    group = weakref.ref(dist.group.WORLD)
    ranks.leave()
    found = dict(begun=begun, steps=steps, weight=line.weight.item(), mean=average.weight.item())
    found |= dict(group_is_gone=group() is None)
    (out / f"{ranks.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
