"""Judges the person mask on heads that training never saw, and shows it on given pictures.

    python -m wsavatar.training.person.evaluate --heads DIR --negatives FILE
    python -m wsavatar.training.person.evaluate --faces DIR --overlays out

``heads`` holds files of `wsavatar.training.landmarks.renders` (wide), of other seeds than
training's; ``faces`` holds pictures and ``landmarks.json`` (file stem -> 68 points, or null).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from wsavatar.config import load_settings
from wsavatar.landmarks.geometry import MEAN_FACE
from wsavatar.person.mask import PersonMask, load_from, load_person_mask
from wsavatar.person.steady import steady
from wsavatar.training.landmarks.evaluate import given_pictures
from wsavatar.training.landmarks.train import load_negatives
from wsavatar.training.landmarks.views import Pool
from wsavatar.training.person.examples import Pools, examples

__all__ = ["errors_of", "flicker", "judge_still", "main"]

_GREEN = np.array([30, 200, 60])


def errors_of(found: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """Of two masks uint8 [H, W]: overlap of what is over a half (intersection over union), and
    mean difference of the alpha in %."""
    both, either = (found > 127) & (wanted > 127), (found > 127) | (wanted > 127)
    overlap = float(both.sum()) / max(1.0, float(either.sum()))
    away = np.abs(found.astype(np.float32) - wanted).mean() / 255 * 100
    return overlap, float(away)


def flicker(masks: list[np.ndarray]) -> float:
    """Mean change from mask to mask, in levels, of the pixels that are at an edge in any."""
    stack = np.stack(masks).astype(np.float32)
    edge = ((stack > 12) & (stack < 243)).any(0)
    return float(np.abs(np.diff(stack, axis=0))[:, edge].mean()) if edge.any() else 0.0


def judge_renders(mask: PersonMask, pools: Pools, count: int, overlays: Path | None) -> None:
    """Print the errors over ``count`` made pictures of 256x256, and show the worst."""
    torch.manual_seed(0)
    results: list[tuple[float, float, np.ndarray]] = []
    while len(results) < count:
        made = examples(pools, 16, 256)
        pictures = (made.seen[:, :3] * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        truths = (made.alpha[:, 0] * 255).round().to(torch.uint8).numpy()
        for k, (picture, truth) in enumerate(zip(pictures, truths, strict=True)):
            points = 256 * (made.middle[k].numpy() + made.size[k].item() * MEAN_FACE)
            picture = np.ascontiguousarray(picture)
            [found] = mask.masks([picture], [points])
            shown = np.hstack([picture, _on(picture, truth), _on(picture, found)])
            results.append((*errors_of(found, truth), shown))
    overlap, away = (np.array([r[k] for r in results[:count]]) for k in (0, 1))
    print(
        f"{count} renders: overlap {100 * overlap.mean():.1f} % (median "
        f"{100 * np.median(overlap):.1f}, lowest tenth {100 * np.percentile(overlap, 10):.1f}), "
        f"alpha off by {away.mean():.2f} % (median {np.median(away):.2f})"
    )
    if overlays is not None:
        worst = sorted(results, key=lambda r: r[0])
        chosen = worst[:: max(1, len(worst) // 24)][:24]
        rows = [np.hstack([r[2] for r in chosen[k : k + 3]]) for k in range(0, len(chosen), 3)]
        _write(overlays / "renders.png", np.vstack(rows))


def judge_pictures(mask: PersonMask, directory: Path, overlays: Path) -> None:
    """Show the pictures on green and on white; and how much a still one with noise flickers."""
    for name, picture, face in given_pictures(directory):
        if face is None:
            continue
        started = time.process_time()
        [found] = mask.masks([picture], [face])
        took = (time.process_time() - started) * 1e3
        raw, calm = judge_still(mask, picture, face)
        print(
            f"{name:24} {found.mean() / 2.55:3.0f} % person, {took:4.0f} ms of CPU, flickers by "
            f"{raw:.2f} levels, steady {calm:.2f}",
            flush=True,
        )
        white = _on(picture, found, np.full(3, 255))
        _write(overlays / f"{name}.png", np.hstack([picture, _on(picture, found), white]))


def judge_still(mask: PersonMask, picture: np.ndarray, face: np.ndarray) -> tuple[float, float]:
    """Flicker of a still picture with a sensor's noise (4 levels): as found, and steady."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(12):
        noisy = np.clip(np.round(picture + rng.normal(0, 4, picture.shape)), 0, 255)
        noisy = noisy.astype(np.uint8)
        jitter = face + rng.normal(0, 0.3, face.shape)
        pairs.append((noisy, mask.masks([noisy], [jitter])[0]))
    return flicker([found for _, found in pairs]), flicker(list(steady(pairs)))


def _on(picture: np.ndarray, alpha: np.ndarray, colour: np.ndarray = _GREEN) -> np.ndarray:
    share = alpha[..., None] / 255
    made: np.ndarray = np.round(picture * share + colour * (1 - share)).astype(np.uint8)
    return made


def _write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def _pools(files: list[Path], negatives: Path) -> Pools:
    device = torch.device("cpu")
    heads = Pool(64 * len(files), device)
    for path in files:
        with np.load(path) as file:
            heads.add(file["pictures"], file["points"])
    return Pools(heads, *load_negatives(negatives, device))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", type=Path, help="a folder of rendered people")
    parser.add_argument("--negatives", type=Path, help="as for training")
    parser.add_argument("--count", type=int, default=192)
    parser.add_argument("--faces", type=Path)
    parser.add_argument("--overlays", type=Path)
    parser.add_argument("--weights", type=Path, help="a folder with another network")
    args = parser.parse_args()
    if not (args.heads or args.faces):
        parser.error("name --heads, --faces or both")
    if bool(args.heads) != bool(args.negatives) or (args.faces and not args.overlays):
        parser.error("--heads needs --negatives, --faces needs --overlays")
    files = sorted(args.heads.glob("*.npz")) if args.heads else []
    if args.heads and not files:
        parser.error(f"{args.heads} has no rendered people (*.npz)")
    mask: PersonMask
    if args.weights:
        mask = load_from(args.weights, "cpu")
    else:
        mask = load_person_mask(load_settings(None, {}))
    if files:
        judge_renders(mask, _pools(files, args.negatives), args.count, args.overlays)
    if args.faces:
        judge_pictures(mask, args.faces, args.overlays)


if __name__ == "__main__":
    main()
