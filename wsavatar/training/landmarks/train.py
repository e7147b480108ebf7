"""Trains the embedded detector's two networks while heads are rendered.

    python -m wsavatar.training.landmarks.train --renderer DIR --negatives FILE --out DIR

``negatives`` is an .npz of pictures without human faces as encoded images (WebP, PNG): names that
begin with ``animal`` or ``object`` (with alpha) or ``scene``. Stops by itself; writes
``networks.safetensors``, float16, the mean of the weights over the last steps.
"""

from __future__ import annotations

import argparse
import time
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
from wsavatar.training.landmarks.examples import Pools, crop_examples, scene_examples
from wsavatar.training.landmarks.learner import Learner
from wsavatar.training.landmarks.losses import finder_loss, points_loss
from wsavatar.training.landmarks.renders import SIZE, start_renderers
from wsavatar.training.landmarks.views import Pool

__all__ = ["load_negatives", "main"]

CROP, SCENE = 160, 256
_AT_ONCE = 3
"""Steps whose examples are made at once, which takes the device little longer than one's."""


def load_negatives(path: Path, device: torch.device) -> tuple[Pool, Tensor]:
    """Things with alpha, and scenes float [n, 3, 256, 256]."""
    found: dict[str, np.ndarray] = {}
    with np.load(path) as file:
        for name in sorted(file.files):
            picture = cv2.imdecode(file[name], cv2.IMREAD_UNCHANGED)
            if picture is None:
                raise SystemExit(f"{path}: {name} is not an encoded picture")
            found[name] = picture
    things, scenes = [], []
    for name, picture in found.items():
        if name.startswith("scene"):
            scenes.append(cv2.cvtColor(picture[..., :3], cv2.COLOR_BGR2RGB))
            continue
        if picture.shape[2] == 3:
            picture = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
        canvas = np.zeros((SIZE, SIZE, 4), np.uint8)
        h, w = picture.shape[:2]
        if max(h, w) < 160:
            picture = cv2.resize(picture, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC)
            h, w = picture.shape[:2]
        top, left = (SIZE - h) // 2, (SIZE - w) // 2
        rgba = cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA)
        rgba[..., :3] = (rgba[..., :3] * (rgba[..., 3:] / 255.0)).astype(np.uint8)
        canvas[top : top + h, left : left + w] = rgba
        things += [canvas] * (4 if name.startswith("animal") else 1)
    pool = Pool(len(things), device)
    pool.add(np.stack(things))
    stacked = torch.from_numpy(np.stack(scenes)).to(device).permute(0, 3, 1, 2)
    return pool, stacked.float() / 255


def save(path: Path, points: nn.Module, finder: nn.Module) -> None:
    """Both networks in one file, float16."""
    tensors = {}
    for prefix, network in (("points.", points), ("finder.", finder)):
        for name, value in network.state_dict().items():
            if value.dtype.is_floating_point:
                tensors[prefix + name] = value.detach().half().cpu().contiguous()
    save_file(tensors, path)


def resume(path: Path, points: nn.Module, finder: nn.Module) -> None:
    """Start from saved networks."""
    tensors = load_file(path)
    for prefix, network in (("points.", points), ("finder.", finder)):
        ours = {
            k.removeprefix(prefix): v.float() for k, v in tensors.items() if k.startswith(prefix)
        }
        network.load_state_dict(ours, strict=False)


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


class _Arrivals:
    """Rendered files, read into the pools as they appear."""

    def __init__(self, folder: Path, pools: Pools) -> None:
        self.folder, self.pools = folder, pools
        self.people = 0

    def take(self, most: int) -> None:
        """Read up to ``most`` new files and delete them."""
        for path in sorted(self.folder.glob("*.npz"))[:most]:
            with np.load(path) as file:
                pictures, points, faces = file["pictures"], file["points"], file["faces"]
            self.pools.faces.add(pictures[faces], points[faces])
            self.pools.backs.add(pictures[~faces])
            self.people += 1
            path.unlink()


def _jobs(points: PointFinder, finder: FaceFinder, pools: Pools, args: Any) -> list[_Job]:
    assert finder.head.bias is not None
    nn.init.constant_(finder.head.bias[:1], -3.5)  # faces are rare
    if args.resume:
        resume(args.resume, points, finder)
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
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    started = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    renderers = start_renderers(
        args.renderer, args.out / "renders", processes=args.processes,
        first_seed=args.first_seed, seconds=args.seconds,
    )  # fmt: skip
    things, scenes = load_negatives(args.negatives, device)
    pools = Pools(Pool(args.heads, device), Pool(max(args.heads // 16, 1), device), things, scenes)
    arrivals = _Arrivals(args.out / "renders", pools)
    jobs = _jobs(PointFinder().to(device), FaceFinder().to(device), pools, args)
    while pools.faces.count < args.first_heads and any(p.is_alive() for p in renderers):
        arrivals.take(8)
        time.sleep(0.2)
    print(f"{time.monotonic() - started:.0f} s: {pools.faces.count} heads, training", flush=True)
    begun = noted = time.monotonic()
    while (passed := time.monotonic() - started) < args.seconds:
        share = (time.monotonic() - begun) / max(args.seconds - (begun - started), 1e-6)
        for job in jobs:
            job.train(_AT_ONCE if job is jobs[0] else 1, share)
        arrivals.take(4)
        if time.monotonic() - noted > args.note:
            noted = time.monotonic()
            shown = " ".join(job.learner.summary() for job in jobs)
            print(f"{passed:.0f} s, {arrivals.people} people, {shown}", flush=True)
            save(args.out / "networks.safetensors", *(job.learner.mean.network for job in jobs))
    save(args.out / "networks.safetensors", *(job.learner.mean.network for job in jobs))
    for process in renderers:
        process.terminate()
    print(f"{jobs[0].learner.steps} steps, {arrivals.people} people", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--renderer", type=Path, required=True)
    parser.add_argument("--negatives", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--seconds", type=float, default=500)
    parser.add_argument("--processes", type=int, default=14)
    parser.add_argument("--heads", type=int, default=60000, help="heads kept on the device")
    parser.add_argument("--first-heads", type=int, default=3000, help="heads before training")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--scenes", type=int, default=48)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--note", type=float, default=15)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
