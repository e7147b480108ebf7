"""Trains the embedded detector's two networks while heads are rendered.

    python -m wsavatar.training.landmarks.train --renderer DIR --negatives FILE --out DIR

``negatives`` is an .npz of pictures without human faces as encoded images (WebP, PNG): names that
begin with ``animal`` or ``object`` (with alpha) or ``scene``. Stops by itself; writes
``networks.safetensors``, float16, the mean of the weights over the last steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wsavatar.landmarks.networks import FaceFinder, PointFinder
from wsavatar.landmarks.running import fill
from wsavatar.training.landmarks.examples import Pools, crop_examples, scene_examples
from wsavatar.training.landmarks.learner import Learner
from wsavatar.training.landmarks.losses import finder_loss, points_loss
from wsavatar.training.landmarks.renders import SIZE, rendered_people
from wsavatar.training.landmarks.run import Run, add_arguments, half_weights, training_device
from wsavatar.training.landmarks.views import Pool

__all__ = ["load_negatives", "main"]

CROP, SCENE = 160, 256
_AT_ONCE = 3
"""Steps whose examples are made at once, which takes the device little longer than one's."""


def load_negatives(path: Path, device: torch.device) -> tuple[Pool, Tensor]:
    """Things with alpha, and scenes float [n, 3, 256, 256]. Raises SystemExit for others."""
    things, scenes = [], []
    with np.load(path) as file:
        for name in sorted(file.files):
            picture = cv2.imdecode(file[name], cv2.IMREAD_UNCHANGED)
            if picture is None or picture.ndim != 3:
                raise SystemExit(f"{path}: {name} is not an encoded picture in colours")
            if max(picture.shape[:2]) > SIZE:
                raise SystemExit(f"{path}: {name} is larger than {SIZE}x{SIZE} pixels")
            if name.startswith("scene"):
                if picture.shape[:2] != (SIZE, SIZE):
                    raise SystemExit(f"{path}: {name}, a scene, is not {SIZE}x{SIZE} pixels")
                scenes.append(cv2.cvtColor(picture[..., :3], cv2.COLOR_BGR2RGB))
            else:
                things += [_thing(picture)] * (4 if name.startswith("animal") else 1)
    if not things or not scenes:
        raise SystemExit(f"{path} needs animals or objects, and scenes")
    pool = Pool(len(things), device)
    pool.add(np.stack(things))
    stacked = torch.from_numpy(np.stack(scenes)).to(device).permute(0, 3, 1, 2)
    return pool, stacked.float() / 255


def _thing(picture: np.ndarray) -> np.ndarray:
    """BGR or BGRA of at most `SIZE` a side, in the middle of a square: RGB by alpha, and alpha."""
    if picture.shape[2] == 3:
        picture = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
    if max(picture.shape[:2]) < 160:
        picture = cv2.resize(picture, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC)
    h, w = picture.shape[:2]
    top, left = (SIZE - h) // 2, (SIZE - w) // 2
    rgba = cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA)
    rgba[..., :3] = (rgba[..., :3] * (rgba[..., 3:] / 255.0)).astype(np.uint8)
    canvas = np.zeros((SIZE, SIZE, 4), np.uint8)
    canvas[top : top + h, left : left + w] = rgba
    return canvas


class _Job:
    """One network's learner, and how its examples are made."""

    def __init__(
        self,
        learner: Learner,
        loss: Callable[[Any, Any], dict[str, Tensor]],
        make: Callable[[int], Any],
        batch: int,
    ) -> None:
        self.learner, self.loss, self.make, self.batch = learner, loss, make, batch

    def train(self, steps: int, share: float) -> None:
        """``steps`` steps on examples made at once. ``share`` of the training that has passed."""
        with torch.no_grad():
            made = self.make(steps * self.batch)
        for k in range(steps):
            part = slice(k * self.batch, (k + 1) * self.batch)
            one = type(made)(*(getattr(made, f.name)[part] for f in fields(made)))
            self.learner.step(self.loss(self.learner.network, one), share)


def _jobs(points: PointFinder, finder: FaceFinder, pools: Pools, args: Any) -> list[_Job]:
    assert finder.head.bias is not None
    nn.init.constant_(finder.head.bias[:1], -3.5)  # faces are rare
    if args.resume:
        tensors = load_file(args.resume)
        fill(points, tensors, "points.")
        fill(finder, tensors, "finder.")
    learners = [
        Learner(network, args.rate, warm_up=200, keep=0.998) for network in (points, finder)
    ]

    def crops(count: int) -> Any:
        return crop_examples(pools, count, CROP)

    def pictures(count: int) -> Any:
        return scene_examples(pools, count, SCENE)

    return [
        _Job(learners[0], points_loss, crops, args.batch),
        _Job(learners[1], finder_loss, pictures, args.scenes),
    ]


def train(args: argparse.Namespace) -> None:
    """Render and train until the time is up."""
    device, run = training_device(), Run(args)
    things, scenes = load_negatives(args.negatives, device)
    pools = Pools(Pool(args.heads, device), Pool(max(args.heads // 16, 1), device), things, scenes)
    points, finder = _jobs(PointFinder().to(device), FaceFinder().to(device), pools, args)
    people = 0

    def take(most: int) -> None:
        nonlocal people
        for person in rendered_people(run.folder, most):
            pictures, faces = person["pictures"], person["faces"]
            pools.faces.add(pictures[faces], person["points"][faces])
            pools.backs.add(pictures[~faces])
            people += 1

    def note() -> str:
        weights = half_weights(points.learner.mean.network, "points.")
        weights |= half_weights(finder.learner.mean.network, "finder.")
        save_file(weights, args.out / "networks.safetensors")
        return f"{people} people, {points.learner.summary()} {finder.learner.summary()}"

    run.wait_for_heads(pools.faces, take)
    for share in run.shares(note):
        points.train(_AT_ONCE, share)
        finder.train(1, share)
        take(4)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, seconds=500, processes=14, first_heads=3000, batch=256)
    parser.add_argument("--scenes", type=int, default=48)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
