"""How a small network learns."""

from __future__ import annotations

import torch
from torch import nn

from wsavatar.training.landmarks.learner import Learner


def test_a_learner_goes_down_its_losses_and_shows_their_means() -> None:
    """The mean of its weights follows; ``error`` is shown and does not pull."""
    torch.manual_seed(0)
    network = nn.Conv2d(1, 1, 1)
    learner = Learner(network, 0.05, warm_up=10, keep=0.9)
    seen = torch.ones(1, 1, 4, 4)
    for _ in range(200):
        away = (network(seen) - 3).abs().mean()
        learner.step({"away": away, "error": (network(seen) * 100).mean()}, 0.0)
    assert abs(float(learner.mean.network(seen).detach().mean()) - 3) < 0.3
    assert learner.summary().startswith("step 200 {'away': ")
    assert learner.summary() == "step 200 {}"
