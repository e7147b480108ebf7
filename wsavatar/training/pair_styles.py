"""Other pictures from renders: painted, drawn, small, soft; the same change for a pair's halves.

A pair is a reference and its target, one frame of one source: whatever light, paint or compression
one half shows, the other shows as well. So both are changed as one wide picture.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from wsavatar.training.landmarks.styles import (
    inked,
    oil,
    posterise,
    recolour,
    smooth_noise,
    smoothed,
    tint,
)

__all__ = ["restyle_pairs"]


def _recoloured(pictures: Tensor) -> Tensor:
    """Weakly: strong changes teach that the inside of a mouth may have any colour."""
    share = torch.rand(len(pictures), 1, 1, 1, device=pictures.device) * 0.5
    return pictures + (recolour(pictures) - pictures) * share


_PLAIN = 0.5  # share of pairs that keep the renderer's look
_STYLES: tuple[tuple[float, Callable[[Tensor], Tensor]], ...] = (  # shares of the others
    (0.20, oil),
    (0.14, smoothed),
    (0.08, posterise),
    (0.12, inked),
    (0.40, _recoloured),
    (0.06, tint),
)
_NOT_PLAIN = (oil, posterise, inked)
_SMALL = 0.25  # share of pairs from small or soft faces
_APART = 16  # pixels between the halves; more than any filter reaches


def restyle_pairs(reference: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Change pairs at random.

    Takes float [n, 3, S, S] in -1 to 1; returns the changed ones, and float [n]: 1 where a pair
    still looks like a render (no drawing, no paint), so that a network that knows renders may read
    it, else 0.
    """
    width = reference.shape[3]
    # The halves are kept apart, so that no filter mixes them.
    halves = [
        F.pad(half * 0.5 + 0.5, (_APART,) * 4, mode="replicate") for half in (reference, target)
    ]
    n, device = len(reference), reference.device
    plain = torch.ones(n, device=device)
    styled = torch.rand(n, device=device) >= _PLAIN
    amount = 0.2 * torch.rand(n, 1, 1, 1, device=device) * styled.view(n, 1, 1, 1)
    shade = 1 + amount * smooth_noise(halves[0], 2)
    pair = (torch.cat(halves, 3) * shade.repeat(1, 1, 1, 2)).clamp(0, 1)
    for share, style in _STYLES:
        which = torch.nonzero(styled & (torch.rand(n, device=device) < share))[:, 0]
        if len(which):
            pair[which] = style(pair[which]).clamp(0, 1)
            if style in _NOT_PLAIN:
                plain[which] = 0
    rows = pair[:, :, _APART:-_APART]
    first, second = (half[..., _APART : _APART + width] for half in rows.chunk(2, 3))
    which = torch.nonzero(torch.rand(n, device=device) < _SMALL)[:, 0]
    both = torch.stack([first, second], 1)
    if len(which):
        both[which] = _fewer_pixels(both[which].flatten(0, 1)).unflatten(0, (-1, 2))
    first, second = (both.clamp(0, 1) * 2 - 1).unbind(1)
    return first.contiguous(), second.contiguous(), plain


def _fewer_pixels(pictures: Tensor) -> Tensor:
    """As if the face had been 50 to 200 pixels wide."""
    size = int(torch.randint(50, 200, ()))
    small = F.interpolate(pictures, size=(size, size), mode="bilinear", antialias=True)
    return F.interpolate(small, size=pictures.shape[2:], mode="bicubic")
