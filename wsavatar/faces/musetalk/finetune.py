"""Learns a `Tuning` from pairs of a clip, through the frozen networks, and judges it.

Only lips and what is between them follow the clip: around them the target is what the model draws
anyway, because there an avatar shows its own pixels, moved as far as the drawn jaw is open.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from wsavatar.config import Settings
from wsavatar.faces.finetuning import (
    Finetuned,
    FinetuneError,
    Finetuner,
    FinetuneWatch,
    MouthQuality,
    TalkingClip,
)
from wsavatar.faces.musetalk.checkpoint import load_modules
from wsavatar.faces.musetalk.configured import load_configured, model_directory, options
from wsavatar.faces.musetalk.correction import LatentCorrection, tuned
from wsavatar.faces.musetalk.losses import energy_loss, picture_loss
from wsavatar.faces.musetalk.model import MuseTalk
from wsavatar.faces.musetalk.mouths import mouth_quality, trusted_pairs
from wsavatar.faces.musetalk.networks import FaceGenerator, fold_timestep
from wsavatar.faces.musetalk.spec import ModelSpec
from wsavatar.faces.musetalk.talking import TalkingPairs, drawn_rows, talking_pairs
from wsavatar.faces.musetalk.tuning import Tuning

__all__ = ["learn", "load_finetuner"]

STEPS = 1000
_BATCH = 8
_RATE = 1e-2
_WARM_UP = 20
_LAST_RATE = 0.02
_MEAN_RATE = 0.1
"""Of the running mean that is kept of the correction: steps of a high rate rise and fall."""
_ENERGY = 0.15
"""Weight of sharpness: without it the mean of all mouths, which is soft, is the best guess."""
_MOVEMENT = 1.0
"""Weight of movement: a mouth that hardly moves is the best guess where the sound misleads."""
_LEAST_MOVEMENT = 0.95
"""Of the usual movement, or of the person's if they move less."""
_ELSEWHERE = 0.05
"""Weight of what is around the mouth."""
HELD_OUT, CHECKED = 0.15, 0.1
"""The clip's last part judges the result; the part before it chooses among what was learned."""
_GAP = 6
"""Frames between what is learned from and what is held out: neighbours are nearly equal."""
LEAST_PAIRS = 100
_CHECKS = 10
_CHECKED_PAIRS = 32


def load_finetuner(settings: Settings, device: str | None) -> Finetuner:
    """See `wsavatar.faces.registry.load_finetuner`."""
    return partial(_finetune, settings, load_configured(settings, device))


def _finetune(
    settings: Settings, model: MuseTalk, clip: TalkingClip, seconds: float, watch: FinetuneWatch
) -> Finetuned:
    pairs = talking_pairs(model, clip, watch.progress, detail=settings.avatars.detail)
    if len(pairs) < LEAST_PAIRS:
        raise FinetuneError(
            f"only {len(pairs)} frames of the clip can be used, and {LEAST_PAIRS} are needed: "
            "film the face whole and from the front"
        )
    learned, checked, held = parts(pairs)
    generator = _generator(settings, model.device)
    tuning = learn(generator, model.spec, learned, checked, seconds=seconds, watch=watch)
    latents = tuned(held.latents, tuning, model.spec)
    after = replace(held, drawn=drawn_rows(model, latents, held.conditions, watch.progress))
    return Finetuned(tuning.to_bytes(), mouth_quality(held), mouth_quality(after), len(held))


def parts(pairs: TalkingPairs) -> tuple[TalkingPairs, TalkingPairs, TalkingPairs]:
    """Consecutive parts: to learn from, to choose by, and to judge by."""
    held = round(len(pairs) * (1 - HELD_OUT))
    checked = round(len(pairs) * (1 - HELD_OUT - CHECKED))
    return (
        pairs.at(slice(0, checked - _GAP)),
        pairs.at(slice(checked, held - _GAP)),
        pairs.at(slice(held, len(pairs))),
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
    spec: ModelSpec,
    pairs: TalkingPairs,
    checked: TalkingPairs,
    *,
    seconds: float,
    watch: FinetuneWatch,
    steps: int | None = None,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> Tuning:
    """Learn for so many steps, or so many seconds if they end before, or until Ctrl-C.

    Of the running means now and then, that is given which draws ``checked`` best.
    """
    device = next(generator.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        correction = LatentCorrection(spec).to(device)
    mean = copy.deepcopy(correction)
    optimiser = torch.optim.Adam(correction.parameters(), lr=_RATE, betas=(0.9, 0.99))
    least = _LEAST_MOVEMENT * min(1.0, 1 / max(mouth_quality(pairs).movement, 1e-3))
    batches = _batches(trusted_pairs(pairs, least=_BATCH), seed)
    best = _Best(generator, spec, checked)
    checks = 0
    try:
        for step, gone in _steps(STEPS if steps is None else steps, seconds, clock):
            watch.progress("learn", round(1000 * gone), 1000)
            if round(1000 * gone) * _CHECKS // 1000 > checks:
                checks = round(1000 * gone) * _CHECKS // 1000
                watch.checked(best.before, best.offer(mean))
            for group in optimiser.param_groups:
                group["lr"] = _RATE * min(1, (step + 1) / _WARM_UP) * max(1 - gone, _LAST_RATE)
            loss = _loss(generator, correction, pairs, next(batches), least)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            _follow(mean, correction, max(_MEAN_RATE, 0.9 / (1 + step / 10)))
    except KeyboardInterrupt:
        if best.tuning is None:
            raise
    watch.checked(best.before, best.offer(mean))
    watch.progress("learn", 1000, 1000)
    if best.tuning is None:
        raise FinetuneError("learning did not converge: try another clip")
    return best.tuning


def _steps(steps: int, seconds: float, clock: Callable[[], float]) -> Iterator[tuple[int, float]]:
    """Step numbers, and the part of the steps or of the time that is gone, whichever is more."""
    started = clock()
    for step in range(steps):
        gone = max(step / steps, (clock() - started) / max(seconds, 1e-3))
        if gone >= 1:
            return
        yield step, gone


@torch.no_grad()
def _follow(mean: LatentCorrection, correction: LatentCorrection, rate: float) -> None:
    """Move ``mean`` a part of the way to ``correction``."""
    for kept, now in zip(mean.parameters(), correction.parameters(), strict=True):
        kept.lerp_(now, rate)


def _batches(trusted: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    while True:
        yield np.sort(rng.choice(trusted, min(_BATCH, len(trusted)), replace=False))


class _Best:
    """The best of the corrections that are offered: they draw some pairs, seen nowhere else."""

    def __init__(self, generator: FaceGenerator, spec: ModelSpec, pairs: TalkingPairs) -> None:
        some = np.unique(np.linspace(0, len(pairs) - 1, _CHECKED_PAIRS).astype(int))
        self._generator, self._spec, self._pairs = generator, spec, pairs.at(some)
        self.before = mouth_quality(self._pairs)
        self.tuning: Tuning | None = None
        self._score = (False, -np.inf)

    def offer(self, correction: LatentCorrection) -> MouthQuality:
        """Judge it, and take it if it is the best so far."""
        quality = mouth_quality(replace(self._pairs, drawn=self._drawn(correction)))
        score = quality.keeps(self.before), quality.psnr_db
        tuning = correction.tuning(self._spec.fingerprint)
        if score > self._score and tuning.is_finite:
            self.tuning, self._score = tuning, score
        return quality

    @torch.no_grad()
    def _drawn(self, correction: LatentCorrection) -> np.ndarray:
        """uint8 [n, rows, S, 3], without the serving networks."""
        device = correction.offset.device
        made = []
        for start in range(0, len(self._pairs), _BATCH):
            latents, conditions = (
                torch.from_numpy(array[start : start + _BATCH]).to(device).float()
                for array in (self._pairs.latents, self._pairs.conditions)
            )
            pictures = self._generator(correction(latents), conditions)
            made.append(pictures[:, self._spec.decoded_from_y :].cpu().numpy())
        return np.concatenate(made)


def _loss(
    generator: FaceGenerator,
    correction: LatentCorrection,
    pairs: TalkingPairs,
    pick: np.ndarray,
    least: float,
) -> Tensor:
    device = correction.offset.device

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
    return loss + _MOVEMENT * movement_loss(made, usual, mouth, least)


def movement_loss(made: Tensor, usual: Tensor, mouth: Tensor, least: float) -> Tensor:
    """What is lacking to ``least`` of the usual movement, as a part of all of it; 0 none.

    Movement is how the mouths of a batch [b, 3, rows, S] differ from their mean, in grey squares
    of 8 pixels, where the mean of the masks ``mouth`` [b, 1, rows, S] is.
    """
    place = mouth.mean(dim=0, keepdim=True)
    squares = [F.avg_pool2d(p.mean(dim=1, keepdim=True) * place, 8) for p in (made, usual)]
    moved, usually = (values - values.mean(dim=0) for values in squares)
    return F.relu(least - (moved * usually).sum() / usually.square().sum().clamp(min=1e-6))
