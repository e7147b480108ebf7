"""Small operations between convolutions and matrix products, each one pass over its data.

On a CUDA device with Triton every function here is one kernel (a large group norm: three); anywhere
else it is plain torch, which is also what the kernels are tested against. Pictures are
[b, c, h, w] in channels_last memory, rows are [n, c]; statistics and sums are float32 whatever the
data are. This module knows no networks.

Why by hand: in the eager decoder group norm, its layout copies and SiLU take two thirds of the
time, although they do next to no arithmetic. A pass over memory is what they cost, so passes are
what is saved: biases of a convolution are added where its output is read next, never in a pass of
their own.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

try:
    from wsavatar.faces.musetalk import triton_kernels
except ImportError:  # a CPU build of torch comes without Triton
    triton_kernels = None  # type: ignore[assignment]

__all__ = [
    "add",
    "columns",
    "geglu",
    "group_norm",
    "layer_norm",
    "to_pixels",
    "unfold_phases",
]


def group_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    *,
    silu: bool,
    offset: Tensor | None = None,
    sums: Tensor | None = None,
) -> Tensor:
    """Group norm of ``x + offset`` [b, c, h, w], then SiLU if asked; ``offset`` is [c].

    ``sums`` are x's channel sums if known (from `add` or `unfold_phases`).
    """
    if not _usable(x):
        whole = x.float() if offset is None else x.float() + offset.float()[:, None, None]
        normed = F.group_norm(whole, groups, weight.float(), bias.float(), eps)
        normed = F.silu(normed) if silu else normed
        return normed.to(x.dtype, memory_format=torch.channels_last)
    return triton_kernels.group_norm(x, weight, bias, groups, eps, silu, offset, sums)


def columns(x: Tensor) -> Tensor:
    """[b, c, h, w] laid out for a 3x3 convolution as one product: [b * h * w, 9 * c].

    A row holds its pixel's nine neighbours, row by row, zeros beyond the border. For small
    pictures: nine times the memory of few pixels is nothing, and a product of few rows runs far
    faster than a convolution of few pixels.
    """
    if not _usable(x):
        b, c, h, w = x.shape
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        taps = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
        return torch.cat(taps, dim=3).view(b * h * w, 9 * c)
    return triton_kernels.columns(x)


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, offset: Tensor | None = None
) -> Tensor:
    """Layer norm of ``x + offset`` over the last dimension; rows [n, c], ``offset`` [c]."""
    if not _usable(x):
        whole = x.float() if offset is None else x.float() + offset.float()
        normed = F.layer_norm(whole, whole.shape[-1:], weight.float(), bias.float(), eps)
        return normed.to(x.dtype)
    return triton_kernels.layer_norm(x, weight, bias, eps, offset)


def geglu(x: Tensor, bias: Tensor) -> Tensor:
    """Gated GELU of ``x + bias``: rows [n, 2 m] -> [n, m], the second half being the gate."""
    if not _usable(x):
        value, gate = (x.float() + bias.float()).chunk(2, dim=-1)
        return (value * F.gelu(gate)).to(x.dtype)
    return triton_kernels.geglu(x, bias)


def add(x: Tensor, other: Tensor, bias: Tensor) -> tuple[Tensor, Tensor | None]:
    """``x + other + bias`` [b, c, h, w], rounded once; ``bias`` is [c]. Overwrites ``x``.

    Also the result's channel sums for the next group norm, where that norm will want them.
    """
    if not _usable(x):
        total = x.float() + other.float() + bias.float()[:, None, None]
        return x.copy_(total), None
    return triton_kernels.add(x, other, bias)


def unfold_phases(x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor | None]:
    """[b, 4 c, h + 1, w + 1] -> [b, c, 2 h, 2 w]: four phases take their places, bias added.

    What `wsavatar.faces.musetalk.fused`'s upsampling convolution gives: channels [2 p + q] * c
    belong to the output's rows 2 i + p and columns 2 j + q, and stand at (i + p, j + q). Also the
    result's channel sums, as `add` gives them.
    """
    if not _usable(x):
        b, channels, h, w = len(x), x.shape[1] // 4, x.shape[2] - 1, x.shape[3] - 1
        out = _empty_pictures(x, b, channels, 2 * h, 2 * w)
        for phase, part in enumerate(x.split(channels, dim=1)):
            p, q = divmod(phase, 2)
            out[:, :, p::2, q::2] = part[:, :, p : p + h, q : q + w] + bias[:, None, None]
        return out, None
    return triton_kernels.unfold_phases(x, bias)


def to_pixels(x: Tensor, bias: Tensor) -> Tensor:
    """[b, c >= 3, h, w] in [-1, 1] -> uint8 [b, h, w, 3], ``bias`` [3] added first."""
    if not _usable(x):
        pixels = (x[:, :3].float() + bias.float()[:, None, None] + 1.0) * 127.5
        return (pixels.clamp(0, 255) + 0.5).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return triton_kernels.to_pixels(x, bias)


def _usable(x: Tensor) -> bool:
    return triton_kernels is not None and x.is_cuda


def _empty_pictures(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )
