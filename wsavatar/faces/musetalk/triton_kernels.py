"""The Triton forms of `wsavatar.faces.musetalk.kernels`; see there what each computes.

Importing this needs Triton. Pictures are [b, c, h, w] in channels_last memory, so that a pixel's
channels lie side by side; kernels see them as [b, pixels, channels]. Group norm of a small group is
one program; of a large one three steps: sums over tiles of pixels, a scale and a shift for each
channel, and their application. Whoever writes a large picture sums it in passing, which saves the
first of the three its own reading.

Places in a whole batch are int64: 2^31 values are a large batch, not an absurd one. Only programs
of single groups and `columns` count in int32, for they are given few pixels.
"""

# Triton comes without types, and so do its kernels.
# mypy: disable-error-code="import-untyped, no-untyped-call, no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = [
    "add",
    "columns",
    "geglu",
    "group_norm",
    "layer_norm",
    "to_pixels",
    "unfold_phases",
]

ONE_PROGRAM = 32_768
"""Elements of one group that one program normalises alone; larger groups take three steps."""
MANY = 2**21
"""Elements of a batch from which on three steps are faster than programs of single groups, which
read a few channels of every pixel."""
LARGE = 4096
"""Pixels from which on a written picture is summed in passing: its group norm takes three steps."""
PROGRAMS = 1024
"""About how many programs fill a large device, each with one tile of a picture's pixels."""
BLOCK_PIXELS = 64
BLOCK_CHANNELS = 64


@triton.jit
def _norm_group_kernel(
    x, y, weight, bias, offset, pixels, channels, per_group, eps,
    HAS_OFFSET: tl.constexpr, SILU: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """One group of one picture, whole."""
    groups = channels // per_group
    picture, group = tl.program_id(0) // groups, tl.program_id(0) % groups
    p = tl.arange(0, BLOCK_P)[:, None]
    within = tl.arange(0, BLOCK_C)[None, :]
    c = group * per_group + within
    there = (p < pixels) & (within < per_group)
    at = (picture * pixels + p) * channels + c
    v = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    if HAS_OFFSET:
        shift = tl.load(offset + c, mask=within < per_group, other=0.0).to(tl.float32)
        v = tl.where(there, v + shift, 0.0)
    count = pixels * per_group
    mean = tl.sum(tl.sum(v, axis=1), axis=0) / count
    d = tl.where(there, v - mean, 0.0)
    variance = tl.sum(tl.sum(d * d, axis=1), axis=0) / count
    gain = tl.load(weight + c, mask=within < per_group, other=0.0).to(tl.float32)
    base = tl.load(bias + c, mask=within < per_group, other=0.0).to(tl.float32)
    out = d * (1.0 / tl.sqrt(variance + eps)) * gain + base
    if SILU:
        out = out * tl.sigmoid(out)
    tl.store(y + at, out.to(y.dtype.element_ty), mask=there)


@triton.jit
def _columns_kernel(
    x, y, height, width, channels, pixels, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """One of nine neighbours of some pixels of all pictures, zeros beyond the border."""
    tap = tl.program_id(2)
    dy, dx = tap // 3 - 1, tap % 3 - 1
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    row, column = p // width % height + dy, p % width + dx
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width) & (p < pixels)
    known = (c < channels)[None, :]
    source = (p + dy * width + dx)[:, None] * channels + c[None, :]
    v = tl.load(x + source, mask=inside[:, None] & known, other=0.0)
    target = (p[:, None] * 9 + tap) * channels + c[None, :]
    tl.store(y + target, v, mask=(p < pixels)[:, None] & known)


@triton.jit
def _store_sums(sums, total, squares, channels, c, tile, tiles, picture):
    """[BLOCK_P, BLOCK_C] of sums and of squares, one row a lane -> this tile's channel sums."""
    at = ((picture * tiles + tile) * 2) * channels + c
    tl.store(sums + at, tl.sum(total, axis=0), mask=c < channels)
    tl.store(sums + at + channels, tl.sum(squares, axis=0), mask=c < channels)


@triton.jit
def _channel_sums_kernel(
    x, sums, pixels, channels,
    PER_TILE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Sum and sum of squares of each channel over one tile of pixels."""
    tile, picture = tl.program_id(0), tl.program_id(2)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    squares = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for start in range(0, PER_TILE, BLOCK_P):
        p = tile * PER_TILE + start + tl.arange(0, BLOCK_P)
        there = (p[:, None] < pixels) & (c[None, :] < channels)
        at = (picture.to(tl.int64) * pixels + p[:, None]) * channels + c[None, :]
        v = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
        total += v
        squares += v * v
    _store_sums(sums, total, squares, channels, c, tile, tl.num_programs(0), picture)


@triton.jit
def _group_scales_kernel(
    sums, scales, weight, bias, offset, pixels, channels, per_group, tiles, eps,
    HAS_OFFSET: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Channel sums of one group -> what each of its channels is multiplied by, and added."""
    groups = channels // per_group
    picture, group = tl.program_id(0) // groups, tl.program_id(0) % groups
    t = tl.arange(0, BLOCK_T)[:, None]
    within = tl.arange(0, BLOCK_C)
    c = group * per_group + within
    known = within < per_group
    at = (picture * tiles + t) * 2 * channels + c[None, :]
    there = (t < tiles) & known[None, :]
    total = tl.sum(tl.load(sums + at, mask=there, other=0.0), axis=0)
    squares = tl.sum(tl.load(sums + at + channels, mask=there, other=0.0), axis=0)
    shift = tl.zeros([BLOCK_C], tl.float32)
    if HAS_OFFSET:
        shift = tl.load(offset + c, mask=known, other=0.0).to(tl.float32)
    squares += shift * (2.0 * total + pixels * shift)
    total += shift * pixels
    count = pixels * per_group
    mean = tl.sum(tl.where(known, total, 0.0), axis=0) / count
    variance = tl.sum(tl.where(known, squares, 0.0), axis=0) / count - mean * mean
    rate = 1.0 / tl.sqrt(tl.maximum(variance, 0.0) + eps)
    gain = tl.load(weight + c, mask=known, other=0.0).to(tl.float32) * rate
    base = tl.load(bias + c, mask=known, other=0.0).to(tl.float32)
    at = picture * 2 * channels + c
    tl.store(scales + at, gain, mask=known)
    tl.store(scales + at + channels, base + (shift - mean) * gain, mask=known)


@triton.jit
def _scale_kernel(
    x, y, scales, pixels, channels,
    SILU: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    picture = tl.program_id(2)
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = c < channels
    gain = tl.load(scales + picture * 2 * channels + c, mask=known, other=0.0)
    base = tl.load(scales + (picture * 2 + 1) * channels + c, mask=known, other=0.0)
    there = (p[:, None] < pixels) & known[None, :]
    at = picture.to(tl.int64) * pixels * channels + p[:, None] * channels + c[None, :]
    out = tl.load(x + at, mask=there, other=0.0).to(tl.float32) * gain[None, :] + base[None, :]
    if SILU:
        out = out * tl.sigmoid(out)
    tl.store(y + at, out.to(y.dtype.element_ty), mask=there)


@triton.jit
def _layer_norm_kernel(
    x, y, weight, bias, offset, channels, eps,
    HAS_OFFSET: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    c = tl.arange(0, BLOCK)
    known = c < channels
    at = tl.program_id(0).to(tl.int64) * channels + c
    v = tl.load(x + at, mask=known, other=0.0).to(tl.float32)
    if HAS_OFFSET:
        v += tl.load(offset + c, mask=known, other=0.0).to(tl.float32)
    mean = tl.sum(v, axis=0) / channels
    d = tl.where(known, v - mean, 0.0)
    rate = 1.0 / tl.sqrt(tl.sum(d * d, axis=0) / channels + eps)
    gain = tl.load(weight + c, mask=known, other=0.0).to(tl.float32)
    base = tl.load(bias + c, mask=known, other=0.0).to(tl.float32)
    tl.store(y + at, (d * rate * gain + base).to(y.dtype.element_ty), mask=known)


@triton.jit
def _geglu_kernel(x, y, bias, rows, width, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr):
    n = (tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N))[:, None]
    c = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C))[None, :]
    there = (n < rows) & (c < width)
    value = tl.load(x + n * 2 * width + c, mask=there, other=0.0).to(tl.float32)
    gate = tl.load(x + n * 2 * width + width + c, mask=there, other=0.0).to(tl.float32)
    value += tl.load(bias + c, mask=c < width, other=0.0).to(tl.float32)
    gate += tl.load(bias + width + c, mask=c < width, other=0.0).to(tl.float32)
    out = value * 0.5 * gate * (1.0 + tl.erf(gate * 0.7071067811865476))
    tl.store(y + n * width + c, out.to(y.dtype.element_ty), mask=there)


@triton.jit
def _add_kernel(
    x, other, bias, sums, pixels, channels,
    SUM: tl.constexpr, PER_TILE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    tile, picture = tl.program_id(0), tl.program_id(2)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    shift = tl.load(bias + c, mask=c < channels, other=0.0).to(tl.float32)
    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    squares = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for start in range(0, PER_TILE, BLOCK_P):
        p = tile * PER_TILE + start + tl.arange(0, BLOCK_P)
        there = (p[:, None] < pixels) & (c[None, :] < channels)
        at = (picture.to(tl.int64) * pixels + p[:, None]) * channels + c[None, :]
        v = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
        v += tl.load(other + at, mask=there, other=0.0).to(tl.float32)
        v = tl.where(there, v + shift[None, :], 0.0)
        tl.store(x + at, v.to(x.dtype.element_ty), mask=there)
        if SUM:
            total += v
            squares += v * v
    if SUM:
        _store_sums(sums, total, squares, channels, c, tile, tl.num_programs(0), picture)


@triton.jit
def _unfold_phases_kernel(
    x, y, bias, sums, height, width, channels,
    SUM: tl.constexpr, PER_TILE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    tile, picture = tl.program_id(0), tl.program_id(2)
    pixels = 4 * height * width
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    shift = tl.load(bias + c, mask=c < channels, other=0.0).to(tl.float32)
    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    squares = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    for start in range(0, PER_TILE, BLOCK_P):
        pixel = tile * PER_TILE + start + tl.arange(0, BLOCK_P)
        row, column = pixel // (2 * width), pixel % (2 * width)
        p, q = row % 2, column % 2
        source = (picture.to(tl.int64) * (height + 1) + row // 2 + p) * (width + 1)
        source = ((source + column // 2 + q) * 4 + 2 * p + q) * channels
        there = (pixel[:, None] < pixels) & (c[None, :] < channels)
        v = tl.load(x + source[:, None] + c[None, :], mask=there, other=0.0).to(tl.float32)
        v = tl.where(there, v + shift[None, :], 0.0)
        at = (picture.to(tl.int64) * pixels + pixel[:, None]) * channels + c[None, :]
        tl.store(y + at, v.to(y.dtype.element_ty), mask=there)
        if SUM:
            total += v
            squares += v * v
    if SUM:
        _store_sums(sums, total, squares, channels, c, tile, tl.num_programs(0), picture)


@triton.jit
def _to_pixels_kernel(x, y, bias, pixels, channels, BLOCK: tl.constexpr):
    p = (tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK))[:, None]
    c = tl.arange(0, 4)[None, :]
    there = (p < pixels) & (c < 3)
    v = tl.load(x + p * channels + c, mask=there, other=0.0).to(tl.float32)
    v += tl.load(bias + c, mask=c < 3, other=0.0).to(tl.float32)
    v = tl.minimum(tl.maximum((v + 1.0) * 127.5, 0.0), 255.0) + 0.5
    tl.store(y + p * 3 + c, v.to(tl.uint8), mask=there)


def group_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool,
    offset: Tensor | None,
    sums: Tensor | None,
) -> Tensor:
    b, channels, h, w = x.shape
    pixels, per_group = h * w, channels // groups
    y = torch.empty_like(x, memory_format=torch.channels_last)
    tall, wide = triton.next_power_of_2(pixels), triton.next_power_of_2(per_group)
    if sums is None and tall * wide <= ONE_PROGRAM and x.numel() < MANY:
        _norm_group_kernel[(b * groups,)](
            x, y, weight, bias, offset, pixels, channels, per_group, eps,
            HAS_OFFSET=offset is not None, SILU=silu, BLOCK_P=tall, BLOCK_C=wide,
            num_warps=8 if tall * wide <= 4096 else 16,
        )  # fmt: skip
        return y
    if sums is None:
        sums, grid, per_tile = _tiles(x, b, channels, pixels)
        _channel_sums_kernel[grid](x, sums, pixels, channels, **_blocks(channels, per_tile))
    tiles = sums.shape[1]
    scales = torch.empty(b, 2, channels, dtype=torch.float32, device=x.device)
    _group_scales_kernel[(b * groups,)](
        sums, scales, weight, bias, offset, pixels, channels, per_group, tiles, eps,
        HAS_OFFSET=offset is not None,
        BLOCK_T=triton.next_power_of_2(tiles), BLOCK_C=wide,
    )  # fmt: skip
    block_c = min(triton.next_power_of_2(channels), BLOCK_CHANNELS)
    _scale_kernel[(triton.cdiv(pixels, 64), triton.cdiv(channels, block_c), b)](
        x, y, scales, pixels, channels, SILU=silu, BLOCK_P=64, BLOCK_C=block_c
    )
    return y


def columns(x: Tensor) -> Tensor:
    b, channels, h, w = x.shape
    pixels = b * h * w
    y = torch.empty(pixels, 9 * channels, dtype=x.dtype, device=x.device)
    block_c = min(triton.next_power_of_2(channels), 256)
    _columns_kernel[(triton.cdiv(pixels, 16), triton.cdiv(channels, block_c), 9)](
        x, y, h, w, channels, pixels, BLOCK_P=16, BLOCK_C=block_c
    )
    return y


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, offset: Tensor | None
) -> Tensor:
    rows, channels = x.shape
    y = torch.empty_like(x)
    block = triton.next_power_of_2(channels)
    _layer_norm_kernel[(rows,)](
        x, y, weight, bias, offset, channels, eps,
        HAS_OFFSET=offset is not None, BLOCK=block, num_warps=4 if block <= 1024 else 8,
    )  # fmt: skip
    return y


def geglu(x: Tensor, bias: Tensor) -> Tensor:
    rows, width = len(x), x.shape[1] // 2
    y = x.new_empty(rows, width)
    _geglu_kernel[(triton.cdiv(rows, 8), triton.cdiv(width, 512))](
        x, y, bias, rows, width, BLOCK_N=8, BLOCK_C=512, num_warps=8
    )
    return y


def add(x: Tensor, other: Tensor, bias: Tensor) -> tuple[Tensor, Tensor | None]:
    b, channels, h, w = x.shape
    sums, grid, per_tile = _tiles(x, b, channels, h * w)
    large = h * w >= LARGE
    _add_kernel[grid](
        x, other, bias, sums, h * w, channels, SUM=large, **_blocks(channels, per_tile)
    )
    return x, sums if large else None


def unfold_phases(x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor | None]:
    b, channels, h, w = len(x), x.shape[1] // 4, x.shape[2] - 1, x.shape[3] - 1
    y = torch.empty(
        (b, channels, 2 * h, 2 * w),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )
    sums, grid, per_tile = _tiles(x, b, channels, 4 * h * w)
    large = 4 * h * w >= LARGE
    _unfold_phases_kernel[grid](
        x, y, bias, sums, h, w, channels, SUM=large, **_blocks(channels, per_tile)
    )
    return y, sums if large else None


def to_pixels(x: Tensor, bias: Tensor) -> Tensor:
    b, channels, h, w = x.shape
    y = torch.empty(b, h, w, 3, dtype=torch.uint8, device=x.device)
    pixels = b * h * w
    _to_pixels_kernel[(triton.cdiv(pixels, 1024),)](x, y, bias, pixels, channels, BLOCK=1024)
    return y


def _tiles(
    like: Tensor, b: int, channels: int, pixels: int
) -> tuple[Tensor, tuple[int, int, int], int]:
    """Room for channel sums [b, tiles, 2, c], the grid that fills it, and a tile's pixels."""
    across = triton.cdiv(channels, min(triton.next_power_of_2(channels), BLOCK_CHANNELS))
    wanted = triton.cdiv(PROGRAMS, b * across)
    per_tile = triton.cdiv(triton.cdiv(pixels, wanted), BLOCK_PIXELS) * BLOCK_PIXELS
    tiles = triton.cdiv(pixels, per_tile)
    sums = torch.empty(b, tiles, 2, channels, dtype=torch.float32, device=like.device)
    return sums, (tiles, across, b), per_tile


def _blocks(channels: int, per_tile: int) -> dict[str, int]:
    return {
        "PER_TILE": per_tile,
        "BLOCK_P": BLOCK_PIXELS,
        "BLOCK_C": min(triton.next_power_of_2(channels), BLOCK_CHANNELS),
    }
