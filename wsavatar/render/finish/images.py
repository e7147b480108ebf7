"""Image operations on torch tensors, on any device, equal to OpenCV's within a stated tolerance.

Images are uint8 or floating, 0 to 255: [H, W, C] and [B, H, W, C], or [B, C, H, W] with
``channels_last=False``. Results have the image's layout, device and type; uint8 is rounded once, at
the end. Nothing here waits for the device. It knows no faces.

Resizing and blurring are products with two matrices of weights, one down the columns and one across
the rows. On a GPU that is two launches whatever the batch, and each image of a batch may have
weights of its own: that is how patches of different sizes land in one window at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "Interpolation",
    "blend",
    "cubic_enlarges",
    "gaussian_blur",
    "linear_weights",
    "resize",
    "resize_map",
    "resize_weights",
    "separable",
    "to_lines",
    "unsharp_lines",
    "unsharp_mask",
]

Interpolation = Literal["auto", "area", "cubic"]


def resize(
    image: Tensor,
    width: int,
    height: int,
    *,
    interpolation: Interpolation = "auto",
    channels_last: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """``cv2.resize`` by INTER_CUBIC or INTER_AREA; auto: area where neither side grows.

    uint8 differs from OpenCV by at most 1 level, in fewer than 1 % of values. ``dtype`` is that of
    the products: float16 is faster on a GPU and off by 1 level in up to 6 % of values. Raises
    ValueError for a size below 1, and for area where a side grows, which OpenCV calls area too but
    computes as something else.
    """
    if width < 1 or height < 1:
        raise ValueError(f"a picture has at least 1x1 pixels, not {width}x{height}")
    lines = to_lines(image, channels_last)
    size = lines.shape[1], lines.shape[3]
    cubic = interpolation == "cubic" or (
        interpolation == "auto" and cubic_enlarges((width, height), size[::-1])
    )
    if not cubic and cubic_enlarges((width, height), size[::-1]):
        raise ValueError(f"area cannot enlarge {size[1]}x{size[0]} to {width}x{height}")
    down = _whole_weights(size[0], height, cubic, image.device, dtype)
    across = _whole_weights(size[1], width, cubic, image.device, dtype)
    return _from_lines(separable(lines, down, across), image, channels_last)


def cubic_enlarges(size: Sequence[int], source: Sequence[int]) -> bool:
    """Whether a side grows from ``source`` to ``size``: then cubic, which keeps edges.

    Otherwise area, which averages, so that shrinking causes no moiré.
    """
    return any(new > old for new, old in zip(size, source, strict=True))


def gaussian_blur(
    image: Tensor, kernel_size: int, sigma: float, *, channels_last: bool = True
) -> Tensor:
    """``cv2.GaussianBlur`` with reflected borders: uint8 to the last bit, floats within 1e-3.

    Raises ValueError where the kernel is even or wider than the image can reflect.
    """
    lines = to_lines(image, channels_last)
    if kernel_size % 2 == 0 or not 0 < kernel_size < 2 * min(lines.shape[1], lines.shape[3]):
        raise ValueError(f"a kernel of {kernel_size} for an image of {list(image.shape)}")
    blurred = _blurred(lines, kernel_size, sigma, exact=image.dtype == torch.uint8)
    return _from_lines(blurred, image, channels_last)


def unsharp_mask(image: Tensor, amount: float, *, channels_last: bool = True) -> Tensor:
    """`wsavatar.render.finish.paste.sharpened`: add ``amount`` times what a Gaussian of 1 px takes
    away.

    uint8 differs by at most 1 level, in fewer than 1 % of values; amount 0 returns ``image``.
    """
    if not amount:
        return image
    exact = image.dtype == torch.uint8
    return _from_lines(_sharp(to_lines(image, channels_last), amount, exact), image, channels_last)


def unsharp_lines(lines: Tensor, amount: float) -> Tensor:
    """`unsharp_mask` of uint8 lines (`to_lines`), as float lines of whole numbers."""
    if not amount:
        return lines.to(torch.float32, memory_format=torch.contiguous_format)
    return _sharp(lines, amount, exact=True).round_().clamp_(0, 255)


def blend(below: Tensor, above: Tensor, alpha: Tensor) -> Tensor:
    """round((below * (255 - alpha) + above * alpha) / 255), to the last bit where all are whole.

    ``alpha`` 0 to 255 has a shape that broadcasts to theirs; ``above`` may be floating, 0 to 255.
    """
    mixed = torch.lerp(below.float(), above.float(), alpha * (1 / 255))
    return mixed.round_().to(below.dtype) if below.dtype == torch.uint8 else mixed.to(below.dtype)


def resize_map(start: float, length: float, source: int, *, cubic: bool) -> tuple[float, float]:
    """(scale, offset): where in ``source`` pixels drawn over [start, start + length) a pixel lies.

    Pixel i's centre where it is to be cubic, else its left edge, is at ``scale * i + offset``.
    """
    scale = source / length
    return scale, (0.5 - start) * scale - 0.5 if cubic else -start * scale


def resize_weights(scale: Tensor, offset: Tensor, source: int, out: int, *, cubic: bool) -> Tensor:
    """Weights [n, out, source] of n `resize_map`; ``scale`` and ``offset`` are float [n].

    Row i of a matrix makes output pixel i. Cubic is OpenCV's (a = -0.75, borders repeated), else
    the share of each source pixel in the output pixel's area, for scales of at least 1. Output
    pixels outside the interval get finite values that mean nothing.
    """
    pixel, column = (_range(0, count, scale.device, scale.dtype) for count in (out, source))
    position = torch.addcmul(offset[:, None, None], scale[:, None, None], pixel[:, None])
    if not cubic:
        end = torch.minimum(position + scale[:, None, None], column + 1)
        overlap = end.sub_(torch.maximum(position, column)).clamp_(min=0)
        return overlap.div_(scale[:, None, None])
    first = position.floor()
    powers = (position - first) ** _range(0, 4, scale.device, scale.dtype)
    taps = (first + _range(-1, 3, scale.device, scale.dtype)).clamp_(0, source - 1)
    weights = scale.new_zeros(len(scale), out, source)
    return weights.scatter_add_(2, taps.long(), powers @ _cubic_taps(scale.device, scale.dtype))


def linear_weights(scale: Tensor, offset: Tensor, source: int, out: int) -> Tensor:
    """Weights [n, out, source] of n `resize_map` (cubic: of centres), as ``cv2.INTER_LINEAR``.

    Output pixels outside the interval get the value at its border.
    """
    pixel, column = (_range(0, count, scale.device, scale.dtype) for count in (out, source))
    position = torch.addcmul(offset[:, None, None], scale[:, None, None], pixel[:, None])
    return torch.rsub(position.clamp_(0, source - 1).sub(column).abs_(), 1).clamp_(min=0)


def separable(lines: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Weigh each image's columns by ``down`` and its rows by ``across``.

    ``lines`` [b, H, C, W] (`to_lines`), ``down`` [b, h, H] or [h, H], ``across`` [b, w, W] or
    [w, W]; the result is [b, h, C, w] in the weights' dtype.
    """
    count, height, channels, width = lines.shape
    rows = lines.to(across.dtype, memory_format=torch.contiguous_format)
    rows = rows.reshape(count, height * channels, width)
    rows = torch.bmm(rows, across.expand(count, -1, -1).transpose(1, 2))
    columns = torch.bmm(down.expand(count, -1, -1), rows.view(count, height, -1))
    return columns.view(count, down.shape[-2], channels, across.shape[-2])


def to_lines(image: Tensor, channels_last: bool = True) -> Tensor:
    """A view [b, H, C, W] of an image or a batch. Raises ValueError for other shapes or types."""
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise ValueError(f"an image is uint8 or floating, not {image.dtype}")
    if image.ndim == 4:
        return image.permute(0, 1, 3, 2) if channels_last else image.permute(0, 2, 1, 3)
    if image.ndim == 3 and channels_last:
        return image[None].permute(0, 1, 3, 2)
    layouts = "[H, W, C] or [B, H, W, C]" if channels_last else "[B, C, H, W]"
    raise ValueError(f"an image is {layouts}, not {list(image.shape)}")


def _from_lines(lines: Tensor, like: Tensor, channels_last: bool) -> Tensor:
    image = lines.permute(0, 1, 3, 2) if channels_last else lines.permute(0, 2, 1, 3)
    return _as(image if like.ndim == 4 else image[0], like).contiguous()


def _as(values: Tensor, like: Tensor) -> Tensor:
    if like.dtype != torch.uint8:
        return values.to(like.dtype)
    return values.round().clamp_(0, 255).to(torch.uint8)


def _blurred(lines: Tensor, kernel_size: int, sigma: float, *, exact: bool) -> Tensor:
    """Float lines; where ``exact``, whole numbers, as OpenCV rounds them."""
    down, across = (
        _blur_weights(size, kernel_size, sigma, exact, lines.device)
        for size in (lines.shape[1], lines.shape[3])
    )
    blurred = separable(lines, down, across)
    # Weights are 256ths then, so every sum so far is exact: its numerator is below 2 ** 24.
    return blurred.add_(0.5).floor_() if exact else blurred


def _sharp(lines: Tensor, amount: float, exact: bool) -> Tensor:
    lines = lines.to(torch.float32, memory_format=torch.contiguous_format)
    return _blurred(lines, 5, 1.0, exact=exact).mul_(-amount).add_(lines, alpha=1 + amount)


@lru_cache(maxsize=64)
def _range(start: int, stop: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.arange(start, stop, device=device, dtype=dtype)


@lru_cache(maxsize=8)
def _cubic_taps(device: torch.device, dtype: torch.dtype) -> Tensor:
    """[4, 4]: from the powers 0 to 3 of a position between two pixels to the weights of four."""
    taps = [
        [0.0, 1.0, 0.0, 0.0],
        [-0.75, 0.0, 0.75, 0.0],
        [1.5, -2.25, 1.5, -0.75],
        [-0.75, 1.25, -1.25, 0.75],
    ]
    return torch.tensor(taps, device=device, dtype=dtype)


@lru_cache(maxsize=64)
def _whole_weights(
    source: int, out: int, cubic: bool, device: torch.device, dtype: torch.dtype
) -> Tensor:
    # In double precision: a whole picture's pixels are many. On the device, for so are the weights,
    # and filled there, not copied, for a copy would wait for what the device has yet to do.
    scale, offset = (
        torch.full((1,), value, dtype=torch.float64, device=device)
        for value in resize_map(0, out, source, cubic=cubic)
    )
    return resize_weights(scale, offset, source, out, cubic=cubic)[0].to(dtype)


@lru_cache(maxsize=64)
def _blur_weights(
    size: int, kernel_size: int, sigma: float, exact: bool, device: torch.device
) -> Tensor:
    radius = kernel_size // 2
    kernel = torch.arange(-radius, radius + 1, dtype=torch.float64).div_(sigma).square_()
    kernel = kernel.mul_(-0.5).exp_()
    kernel = kernel / kernel.sum()
    if exact:
        kernel = _in_256ths(kernel)
    column = torch.arange(size)[:, None] + torch.arange(-radius, radius + 1)
    column = column.abs_()  # reflected, without repeating the border
    column = torch.minimum(column, 2 * (size - 1) - column)
    weights = torch.zeros(size, size, dtype=torch.float64)
    weights.scatter_add_(1, column, kernel.expand(size, -1))
    return weights.to(device, torch.float32)


def _in_256ths(kernel: Tensor) -> Tensor:
    """As OpenCV quantises: each rounding's error goes to the next tap, the rest to the middle."""
    whole, error = kernel * 256, 0.0
    middle = len(kernel) // 2
    for tap in range(middle):
        value = float(whole[tap]) + error
        whole[tap] = whole[-1 - tap] = round(value)
        error = value - round(value)
    whole[middle] = 256 - 2 * whole[:middle].sum()
    return whole / 256
