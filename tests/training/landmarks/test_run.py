"""A training beside the renderers of its heads: its time, its files, what it says is missing."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from wsavatar.landmarks.running import fill
from wsavatar.training.landmarks import run as module
from wsavatar.training.landmarks.run import Run, half_weights
from wsavatar.training.landmarks.train import load_negatives
from wsavatar.training.landmarks.views import Pool

CPU = torch.device("cpu")


@dataclass
class Renderer:
    """A process that has ended."""

    terminated: bool = False

    def is_alive(self) -> bool:
        return False

    def terminate(self) -> None:
        self.terminated = True


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def renderers(monkeypatch: pytest.MonkeyPatch) -> list[Renderer]:
    ended = [Renderer(), Renderer()]
    monkeypatch.setattr(module, "start_renderers", lambda *args, **kwargs: ended)
    return ended


def arguments(folder: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser, seconds=60, first_heads=5, batch=2)
    paths = ["--renderer", "r", "--negatives", "n", "--out", str(folder), "--note", "20"]
    return parser.parse_args(paths)


def test_the_time_that_is_left_after_the_first_heads_is_shared_out(
    tmp_path: Path, renderers: list[Renderer], capsys: pytest.CaptureFixture[str]
) -> None:
    """From 0 to nearly 1, with a note now and then and one at the end; then rendering stops."""
    clock, pool = Clock(), Pool(8, CPU, size=4)
    run = Run(arguments(tmp_path), clock=clock)
    pool.add(np.zeros((5, 4, 4, 4), np.uint8))
    clock.now += 10
    run.wait_for_heads(pool, lambda most: None)
    notes: list[float] = []
    shares = []

    def note() -> str:
        notes.append(clock.now)
        return "noted"

    for share in run.shares(note):
        shares.append(share)
        clock.now += 12.5
    assert shares == [0.0, 0.25, 0.5, 0.75]
    assert notes == [135.0, 160.0, 160.0]
    assert capsys.readouterr().out.splitlines()[0] == "10 s: 5 heads, training"
    assert all(renderer.terminated for renderer in renderers)


def test_fewer_heads_than_wanted_must_do_and_none_is_an_error(
    tmp_path: Path, renderers: list[Renderer]
) -> None:
    """Where no renderer is left nobody waits for more."""
    run, pool = Run(arguments(tmp_path)), Pool(8, CPU, size=4)
    with pytest.raises(SystemExit, match="made no head"):
        run.wait_for_heads(pool, lambda most: None)
    pool.add(np.zeros((1, 4, 4, 4), np.uint8))
    run.wait_for_heads(pool, lambda most: None)


def test_weights_are_read_as_they_were_written() -> None:
    """As float16, without counters, several networks to a file; others are refused."""
    torch.manual_seed(0)
    network, same = (nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)) for _ in range(2))
    weights = half_weights(network, "a.") | half_weights(nn.Conv2d(1, 1, 1), "b.")
    assert all(value.dtype == torch.float16 for value in weights.values())
    fill(same, weights, "a.")
    for name, value in network.state_dict().items():
        torch.testing.assert_close(same.state_dict()[name], value, atol=1e-3, rtol=0)
    with pytest.raises(RuntimeError):
        fill(same, weights, "b.")


def encoded(picture: np.ndarray) -> np.ndarray:
    return cv2.imencode(".png", picture)[1]


def test_negatives_are_things_with_alpha_and_scenes(tmp_path: Path) -> None:
    """Animals count four times; small things are enlarged, in the middle of their square."""
    dot, scene = np.full((40, 60, 4), 200, np.uint8), np.full((256, 256, 3), 51, np.uint8)
    dot[..., 3] = 255
    path = tmp_path / "negatives.npz"
    np.savez(path, animal_cat=encoded(dot), object_cup=encoded(dot), scene_a=encoded(scene))
    things, scenes = load_negatives(path, CPU)
    assert things.count == 5 and scenes.shape == (1, 3, 256, 256)
    torch.testing.assert_close(scenes, torch.full_like(scenes, 0.2))
    rows, columns = np.nonzero(things.pictures[0, 3].numpy())
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (98, 158, 83, 173)


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("object_large", (300, 40, 3), "object_large is larger than 256x256"),
        ("scene_small", (128, 256, 3), "scene_small, a scene, is not 256x256"),
        ("object_grey", (40, 40), "object_grey is not an encoded picture in colours"),
        ("object_alone", (40, 40, 3), "needs animals or objects, and scenes"),
    ],
)
def test_negatives_of_another_kind_are_named(
    tmp_path: Path, name: str, shape: tuple[int, ...], said: str
) -> None:
    """One sentence says which picture, and what it should be."""
    path = tmp_path / "negatives.npz"
    np.savez(path, **{name: encoded(np.zeros(shape, np.uint8))})
    with pytest.raises(SystemExit, match=said):
        load_negatives(path, CPU)
