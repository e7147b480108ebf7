"""Learns a `Tuning` from pairs of a clip, through the frozen networks, and judges it.

Only lips and what is between them follow the clip: around them the target is what the model draws
anyway, because there an avatar shows its own pixels, moved as far as the drawn jaw is open.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from wsavatar.config import Settings
from wsavatar.faces.finetuning import (
    Finetuned,
    FinetuneError,
    FinetuneProgress,
    MouthQuality,
    TalkingClip,
)
from wsavatar.faces.musetalk.checkpoint import load_modules
from wsavatar.faces.musetalk.configured import load_configured, model_directory, options
from wsavatar.faces.musetalk.correction import LatentCorrection, tuned
from wsavatar.faces.musetalk.losses import energy_loss, picture_loss
from wsavatar.faces.musetalk.model import MuseTalk
from wsavatar.faces.musetalk.networks import FaceGenerator, fold_timestep
from wsavatar.faces.musetalk.talking import TalkingPairs, drawn_rows, talking_pairs
from wsavatar.faces.musetalk.tuning import Tuning

__all__ = ["finetune", "learn", "mouth_quality"]

STEPS = 2500
_BATCH = 8
_RATE = 4e-3
_WARM_UP = 20
_LAST_RATE = 0.02
_ENERGY = 0.15
"""Weight of sharpness: without it the mean of all mouths, which is soft, is the best guess."""
_MOVEMENT = 1.0
"""Weight of movement: a mouth that hardly moves is the best guess where the sound misleads."""
_ELSEWHERE = 0.05
"""Weight of what is around the mouth."""
HELD_OUT = 0.15
_GAP = 6
"""Frames between what is learned from and what is held out: neighbours are nearly equal."""
LEAST_PAIRS = 100
_TRUSTED = 0.5
"""Part of the pairs that is learned from: where drawn and true mouth move alike. Elsewhere the
sound misled the model, or is not the mouth's; from those it would learn to move less."""
_SMALL = (24, 16)  # pixels of a mouth that are compared


def finetune(
    settings: Settings,
    clip: TalkingClip,
    device: str | None,
    seconds: float,
    progress: FinetuneProgress,
) -> Finetuned:
    """See `wsavatar.faces.registry.finetune`."""
    model = load_configured(settings, device)
    pairs = talking_pairs(model, clip, progress)
    if len(pairs) < LEAST_PAIRS:
        raise FinetuneError(
            f"only {len(pairs)} frames of the clip can be used, and {LEAST_PAIRS} are needed: "
            "film the face whole and from the front"
        )
    first = round(len(pairs) * (1 - HELD_OUT))
    generator = _generator(settings, model.device)
    tuning = learn(
        generator, model, part(pairs, 0, first - _GAP), seconds=seconds, progress=progress
    )
    held = part(pairs, first, len(pairs))
    latents = tuned(held.latents, tuning, model.spec)
    after = replace(held, drawn=drawn_rows(model, latents, held.conditions, progress))
    return Finetuned(tuning.to_bytes(), mouth_quality(held), mouth_quality(after), len(held))


def part(pairs: TalkingPairs, start: int, stop: int) -> TalkingPairs:
    """Some consecutive pairs."""
    rows = slice(start, stop)
    return TalkingPairs(
        pairs.latents[rows],
        pairs.conditions[rows],
        pairs.drawn[rows],
        pairs.truth[rows],
        pairs.mouths[rows],
    )


def _generator(settings: Settings, device: torch.device | str) -> FaceGenerator:
    """The networks in float32, for gradients."""
    chosen = options(settings)
    modules = load_modules(model_directory(settings), chosen.version, torch.float32, chosen.decoder)
    fold_timestep(modules.unet)
    generator = FaceGenerator(modules.unet, modules.vae, modules.spec.decode_from_row, modules.tiny)
    return generator.eval().requires_grad_(False).to(device)


def learn(
    generator: FaceGenerator,
    model: MuseTalk,
    pairs: TalkingPairs,
    *,
    seconds: float,
    progress: FinetuneProgress,
    steps: int | None = None,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> Tuning:
    """Learn for so many steps, or so many seconds if they end before."""
    device = next(generator.parameters()).device
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        correction = LatentCorrection(model.spec).to(device)
    optimiser = torch.optim.Adam(correction.parameters(), lr=_RATE, betas=(0.9, 0.99))
    trusted = trusted_pairs(pairs)
    started = clock()
    steps = STEPS if steps is None else steps
    for step in range(steps):
        gone = max(step / steps, (clock() - started) / max(seconds, 1e-3))
        if gone >= 1:
            break
        progress("learn", round(1000 * gone), 1000)
        for group in optimiser.param_groups:
            group["lr"] = _RATE * min(1, (step + 1) / _WARM_UP) * max(1 - gone, _LAST_RATE)
        pick = np.sort(rng.choice(trusted, min(_BATCH, len(trusted)), replace=False))
        loss = _loss(generator, correction, pairs, pick, device)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    progress("learn", 1000, 1000)
    tuning = correction.tuning(model.spec.fingerprint)
    if not all(np.isfinite(array).all() for array in tuning.arrays().values()):
        raise FinetuneError("learning did not converge: try another clip")
    return tuning


def _loss(
    generator: FaceGenerator,
    correction: LatentCorrection,
    pairs: TalkingPairs,
    pick: np.ndarray,
    device: torch.device,
) -> Tensor:
    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array[pick]).to(device).float()

    mouth = tensor(pairs.mouths)[:, None] / 255
    truth, usual = (
        tensor(pictures).permute(0, 3, 1, 2) / 127.5 - 1 for pictures in (pairs.truth, pairs.drawn)
    )
    target = usual + mouth * (truth - usual)
    made = generator.drawn(correction(tensor(pairs.latents)), tensor(pairs.conditions))
    weight = _ELSEWHERE + mouth
    loss = picture_loss(made, target, weight) + _ENERGY * energy_loss(made, target, weight)
    return loss + _MOVEMENT * movement_loss(made, usual, mouth)


def movement_loss(made: Tensor, usual: Tensor, mouth: Tensor) -> Tensor:
    """The part of the usual movement that is lost: 0 none or less, 1 all of it.

    Movement is how the mouths of a batch [b, 3, rows, S] differ from their mean, in grey squares
    of 8 pixels, where the mean of the masks ``mouth`` [b, 1, rows, S] is.
    """
    place = mouth.mean(dim=0, keepdim=True)
    squares = [F.avg_pool2d(p.mean(dim=1, keepdim=True) * place, 8) for p in (made, usual)]
    moved, usually = (values - values.mean(dim=0) for values in squares)
    return F.relu(1 - (moved * usually).sum() / usually.square().sum().clamp(min=1e-6))


def trusted_pairs(pairs: TalkingPairs) -> np.ndarray:
    """Indices of the pairs whose drawn mouth is most like the true one, apart from its looks.

    Both are compared as they differ from the mean of their kind, by correlation.
    """
    drawn, true = (_movements(pictures, pairs.mouths) for pictures in (pairs.drawn, pairs.truth))
    lengths = np.linalg.norm(drawn, axis=1) * np.linalg.norm(true, axis=1)
    alike = (drawn * true).sum(axis=1) / np.maximum(lengths, 1e-6)
    count = max(round(_TRUSTED * len(pairs)), min(_BATCH, len(pairs)))
    return np.sort(np.argsort(-alike, kind="stable")[:count])


def _movements(pictures: np.ndarray, mouths: np.ndarray) -> np.ndarray:
    """Each mouth's difference from their mean, in grey and few pixels: float32 [n, pixels]."""
    place = _rectangle(mouths.mean(axis=0))
    grey = [cv2.cvtColor(picture[place], cv2.COLOR_RGB2GRAY) for picture in pictures]
    small = [cv2.resize(one, _SMALL, interpolation=cv2.INTER_AREA) for one in grey]
    flat = np.stack(small).reshape(len(small), -1).astype(np.float32)
    moved: np.ndarray = flat - flat.mean(axis=0)
    return moved


def _rectangle(mouth: np.ndarray) -> tuple[slice, slice]:
    """Around the part of a mask that is over the middle between 0 and its maximum."""
    inside = mouth > mouth.max() / 2
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def mouth_quality(pairs: TalkingPairs) -> MouthQuality:
    """Of what is drawn against the truth, in the rectangle around the mouth's mask."""
    errors, sharpness = [], []
    for made, true, mouth in zip(pairs.drawn, pairs.truth, pairs.mouths, strict=True):
        place = _rectangle(mouth)
        a, b = made[place].astype(np.float32), true[place].astype(np.float32)
        errors.append(10 * np.log10(255**2 / max(float(np.square(a - b).mean()), 1e-3)))
        sharpness.append(_gradient(a) / max(_gradient(b), 1e-9))
    moved, truly = (
        float(np.square(_movements(pictures, pairs.mouths)).mean())
        for pictures in (pairs.drawn, pairs.truth)
    )
    return MouthQuality(
        float(np.mean(errors)), float(np.median(sharpness)), (moved / max(truly, 1e-9)) ** 0.5
    )


def _gradient(picture: np.ndarray) -> float:
    return float(sum(np.square(np.diff(picture, axis=axis)).sum() for axis in (0, 1)))
