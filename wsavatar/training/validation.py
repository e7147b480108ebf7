"""Validation during training, in crop pixels. ``evaluate`` tests finished models."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from wsavatar.training.architecture import CROP_SIZE
from wsavatar.training.data import Corpus, Crops, frame_windows
from wsavatar.training.figures import CLOSED_BELOW
from wsavatar.training.lip_estimator import LipEstimator
from wsavatar.training.losses import as_pixels, mouth_weight
from wsavatar.training.networks import TOP, Networks
from wsavatar.training.optimisation import autocast

__all__ = ["validate"]


@torch.no_grad()
def validate(
    networks: Networks,
    corpus: Corpus,
    crops: Crops,
    estimator: LipEstimator,
    name: str,
    preview: Path | None = None,
) -> dict[str, float]:
    """Print and return figures for people and voices outside the training data."""
    networks.eval()
    device = crops.targets.device
    psnr_top, energy, lips_made, lips_true, rows = [], [], [], [], []
    for first in range(0, len(crops), 128):
        pick = torch.arange(first, min(len(crops), first + 128), device=device)
        ref = crops.ref_index[pick]
        reference, target = as_pixels(crops.references[ref]), as_pixels(crops.targets[pick])
        windows, phase = frame_windows(corpus, crops.times[pick], clean=True)
        masked = reference.clone()
        masked[:, :, CROP_SIZE // 2 :] = -1
        with autocast(device):
            latents = networks(
                networks.encode(masked),
                networks.encode(reference),
                networks.condition(windows, phase),
            )
            made = networks.decode(latents).float().clamp(-1, 1)
        true = target[:, :, TOP:]
        inside = (mouth_weight(crops.mouth_boxes[ref], 1.0) - 1 > 0.5).float()
        error = ((made - true) ** 2 * inside).sum((1, 2, 3)) / (3 * inside.sum((1, 2, 3)))
        psnr_top.append(10 * torch.log10(4 / error.clamp(min=1e-8)))
        gm, gt = (
            sum(
                (v.diff(dim=a) ** 2 * inside.narrow(a, 0, inside.shape[a] - 1)).sum((1, 2, 3))
                for a in (2, 3)
            )
            for v in (made, true)
        )
        energy.append(cast("Tensor", gm / gt))
        lips_made.append(estimator(made))
        lips_true.append(estimator(true))
        if first % 512 == 0 and len(pick) == 128:
            rows.append(
                torch.cat(
                    [
                        torch.cat([reference[:, :, TOP:], true, made], 2)[k]
                        for k in range(0, min(96, len(pick)), 12)
                    ],
                    2,
                )
            )
    made_gap, true_gap = torch.cat(lips_made)[:, 0], torch.cat(lips_true)[:, 0]
    truth = crops.lips[:, 0]
    corr = []
    for person in crops.person.unique():
        who = crops.person == person
        corr.append(float(torch.corrcoef(torch.stack([made_gap[who], truth[who]]))[0, 1]))
    closed = truth < 0.02
    figures = dict(
        psnr=float(torch.cat(psnr_top).mean()),
        energy=float(torch.cat(energy).median()),
        corr=float(np.mean(corr)),
        worst=float(np.min(corr)),
        estimator_corr=float(torch.corrcoef(torch.stack([true_gap, truth]))[0, 1]),
        closed=float((made_gap[closed] < CLOSED_BELOW).float().mean())
        if closed.any()
        else float("nan"),
        closed_estimator=float((true_gap[closed] < CLOSED_BELOW).float().mean())
        if closed.any()
        else float("nan"),
    )
    print(f"[{name}] " + " ".join(f"{k} {v:.3f}" for k, v in figures.items()), flush=True)
    if preview is not None and rows:
        import cv2

        sheet = torch.cat(rows[:4], 1).permute(1, 2, 0).clamp(-1, 1)
        picture = ((sheet + 1) * 127.5).byte().cpu().numpy()
        cv2.imwrite(str(preview), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    networks.train()
    return figures
