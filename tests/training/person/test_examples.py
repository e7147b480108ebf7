"""Training examples of the person mask: the alpha is that of the person shown, by its face."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.drawn_faces import face_landmarks
from wsavatar.person.mask import face_hint
from wsavatar.person.networks import PersonNetwork
from wsavatar.training.landmarks.painting import draw_face
from wsavatar.training.landmarks.views import Pool
from wsavatar.training.person import examples as module
from wsavatar.training.person.evaluate import errors_of, flicker
from wsavatar.training.person.examples import Pools, examples
from wsavatar.training.person.train import load_heads, loss


@cache
def pools() -> Pools:
    """A few drawn people, a thing, a scene."""
    rng = np.random.default_rng(0)
    points = np.stack([face_landmarks((128, 100), size) for size in (60.0, 75.0, 90.0)])
    people = np.stack([draw_face(one, 256, rng) for one in points])
    device = torch.device("cpu")
    heads, things = Pool(8, device), Pool(2, device)
    heads.add((people * 255).astype(np.uint8), points.astype(np.float32))
    thing = np.zeros((1, 256, 256, 4), np.uint8)
    thing[:, 90:160, 100:150] = (200, 120, 20, 255)
    things.add(thing)
    return Pools(heads, things, torch.rand(3, 3, 256, 256))


def test_the_face_is_the_person_and_the_hint_is_at_it() -> None:
    """At most faces the alpha is one; the hint is the one that the mask gives its network."""
    torch.manual_seed(0)
    made = examples(pools(), 12, 96)
    assert made.seen.shape == (12, 4, 96, 96) and made.alpha.shape == (12, 1, 96, 96)
    assert 0 <= float(made.seen.min()) and float(made.seen.max()) <= 1
    inside = []
    for alpha, (x, y) in zip(made.alpha[:, 0], made.middle, strict=True):
        if 0.1 < x < 0.9 and 0.1 < y < 0.9:
            inside.append(float(alpha[int(96 * y), int(96 * x)]))
    assert len(inside) > 8 and np.mean(inside) > 0.9
    share = made.alpha.mean((1, 2, 3))
    assert 0.02 < float(share.min()) and float(share.max()) < 0.99
    size = float(made.size[0]) * 96
    middle = (made.middle[0] * 96).tolist()
    ours = face_hint((96, 96), (middle[0], middle[1]), (size, size))
    assert np.corrcoef(ours.ravel(), made.seen[0, 3].numpy().ravel())[0, 1] > 0.9


def test_what_is_shown_is_the_person_over_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before styles are added, the picture is the background wherever the alpha is zero."""
    torch.manual_seed(1)
    seen: list[torch.Tensor] = []

    def kept(picture: torch.Tensor) -> torch.Tensor:
        seen.append(picture.clone())
        return picture

    def plain(pools: Pools, person: torch.Tensor, side: int) -> torch.Tensor:
        return torch.full_like(person[:, :3], 0.5)

    monkeypatch.setattr(module, "_styled", kept)
    monkeypatch.setattr(module, "_ground", plain)
    monkeypatch.setattr(module, "_shadow", lambda ground, person: ground)
    monkeypatch.setattr(module, "_table", lambda pools, picture, alpha: (picture, alpha))
    made = examples(pools(), 8, 64)
    outside = (made.alpha < 1e-3).expand(-1, 3, -1, -1)
    assert float((seen[0][outside] - 0.5).abs().max()) < 5e-3
    inside = (made.alpha > 0.999).expand(-1, 3, -1, -1)
    assert float((seen[0][inside] - 0.5).abs().mean()) > 0.1


def test_the_network_learns_from_them() -> None:
    """A few steps on the same pictures reduce the loss."""
    torch.manual_seed(0)
    network = PersonNetwork((8, 8, 16, 16, 16))
    made = examples(pools(), 3, 64)
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(5):
        parts = loss(network, made)
        total = torch.stack([v for name, v in parts.items() if name != "error"]).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(total.item())
    assert losses[-1] < 0.9 * losses[0]


def test_rendered_files_are_read_and_deleted(tmp_path: Path) -> None:
    """Files of the renderer go into the pool, at most as many as asked for."""
    for seed in range(3):
        np.savez(
            tmp_path / f"{seed}.npz",
            pictures=np.zeros((2, 256, 256, 4), np.uint8),
            points=np.zeros((2, 68, 2), np.float32),
        )
    pool = Pool(16, torch.device("cpu"))
    assert load_heads(tmp_path, pool, 2) == 2
    assert pool.count == 4 and len(list(tmp_path.iterdir())) == 1


def test_errors_say_how_far_a_mask_is_off() -> None:
    """Overlap and mean difference of known masks; flicker of edges that change by known levels."""
    wanted = np.zeros((10, 10), np.uint8)
    wanted[:, :4] = 255
    found = np.zeros((10, 10), np.uint8)
    found[:, :5] = 255
    overlap, away = errors_of(found, wanted)
    assert overlap == pytest.approx(0.8) and away == pytest.approx(10)
    edge = [np.full((4, 4), level, np.uint8) for level in (100, 110, 100)]
    assert flicker(edge) == pytest.approx(10)
    assert flicker([np.zeros((4, 4), np.uint8)] * 3) == 0
