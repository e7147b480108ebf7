"""Looks of pictures, made on the device: light, colour, paint, lines, blur, noise, compression.

Every function takes and gives RGB float [n, 3, h, w] from 0 to 1. `restyle` draws them at random.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["backdrop", "degrade", "restyle", "smooth_noise"]


def _rand(x: Tensor, low: float, high: float, *shape: int) -> Tensor:
    return torch.rand((len(x), *(shape or (1, 1, 1))), device=x.device) * (high - low) + low


def smooth_noise(x: Tensor, cells: int, channels: int = 1) -> Tensor:
    """Noise of unit size with some ``cells`` across, [n, channels, h, w]."""
    coarse = torch.randn((len(x), channels, cells + 2, cells + 2), device=x.device)
    return F.interpolate(coarse, size=x.shape[2:], mode="bicubic", align_corners=False)


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian."""
    reach = max(1, int(2.5 * sigma + 0.5))
    at = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = kernel / kernel.sum()
    channels = x.shape[1]
    rows = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    rows = F.conv2d(rows, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(rows, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


def grey(x: Tensor) -> Tensor:
    """Luma, [n, 1, h, w]."""
    return (x * torch.tensor([0.299, 0.587, 0.114], device=x.device).view(1, 3, 1, 1)).sum(
        1, keepdim=True
    )


def backdrop(x: Tensor, scenes: Tensor) -> Tensor:
    """Backgrounds of the shape of ``x``: plain, shaded, noise, stripes, or pieces of ``scenes``."""
    n = len(x)
    colour, other = _rand(x, 0, 1, 3, 1, 1), _rand(x, 0, 1, 3, 1, 1)
    made = colour + (other - colour) * _rand(x, 0, 1) * (
        0.5 + 0.4 * smooth_noise(x, int(torch.randint(1, 5, ()))).clamp(-1.2, 1.2)
    )
    fine = smooth_noise(x, int(torch.randint(8, 60, ())), 3)
    made = made + fine * _rand(x, 0, 0.25) * (_rand(x, 0, 1) < 0.5)
    phase = smooth_noise(x, 3) * _rand(x, 0, 4) + smooth_noise(x, 1) * _rand(x, 2, 20)
    made = made + torch.sin(phase) * _rand(x, 0, 0.3) * (_rand(x, 0, 1) < 0.25)
    which = torch.randint(len(scenes), (n,), device=x.device)
    picture = scenes[which]
    if torch.rand(()) < 0.5:
        picture = blur(picture, float(torch.rand(()) * 4 + 0.6))
    made = torch.where(_rand(x, 0, 1) < 0.45, picture, made)
    return made.clamp(0, 1)


def relight(x: Tensor) -> Tensor:
    """Smooth shades over the picture, and a darker side."""
    shade = 1 + _rand(x, 0, 0.35) * smooth_noise(x, 2).clamp(-2, 2)
    return (x * shade + _rand(x, -0.06, 0.06)).clamp(0, 1)


def recolour(x: Tensor) -> Tensor:
    """Brightness, contrast, gamma, saturation, colour cast."""
    luma = grey(x)
    x = luma + (x - luma) * _rand(x, 0.2, 1.8)
    x = x * (1 + 0.12 * torch.randn((len(x), 3, 1, 1), device=x.device))
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (mean + (x - mean) * _rand(x, 0.45, 1.6) + _rand(x, -0.15, 0.15)).clamp(1e-4, 1)
    return x ** torch.exp(_rand(x, -0.6, 0.6))


def tint(x: Tensor) -> Tensor:
    """Grey, or one colour from dark to light, as in engravings and old photographs."""
    luma = grey(x)
    dark, light = _rand(x, 0, 0.35, 3, 1, 1), _rand(x, 0.55, 1, 3, 1, 1)
    toned = dark + (light - dark) * luma
    return torch.where(_rand(x, 0, 1) < 0.5, luma.expand_as(x), toned)


def hue(x: Tensor) -> Tensor:
    """Colours turned about the grey axis."""
    angle = _rand(x, -1.2, 1.2)
    cosine, third = torch.cos(angle), 1 / 3
    root = torch.sin(angle) * third**0.5
    a, b, c = (
        cosine + (1 - cosine) * third, (1 - cosine) * third - root, (1 - cosine) * third + root
    )  # fmt: skip
    r, g, bl = x[:, :1], x[:, 1:2], x[:, 2:]
    return torch.cat(
        [a * r + b * g + c * bl, c * r + a * g + b * bl, b * r + c * g + a * bl], 1
    ).clamp(0, 1)


def oil(x: Tensor) -> Tensor:
    """Kuwahara's filter: of four squares at each pixel, the mean of the most even one."""
    reach = int(torch.randint(1, 5, ()))
    side = reach + 1
    padded = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    mean = F.avg_pool2d(padded, side, 1)
    spread = F.avg_pool2d(grey(padded) ** 2, side, 1) - F.avg_pool2d(grey(padded), side, 1) ** 2
    h, w = x.shape[2:]
    best, made = spread[:, :, :h, :w], mean[:, :, :h, :w]
    for top, left in ((0, reach), (reach, 0), (reach, reach)):
        spread_here = spread[:, :, top : top + h, left : left + w]
        better = spread_here < best
        best = torch.where(better, spread_here, best)
        made = torch.where(better, mean[:, :, top : top + h, left : left + w], made)
    return made


def brushed(x: Tensor) -> Tensor:
    """Pixels pulled along by noise, as by a brush."""
    n, _, h, w = x.shape
    flow = smooth_noise(x, int(torch.randint(15, 50, ())), 2) * float(torch.rand(()) * 1.1 + 0.3)
    line_y = torch.linspace(-1, 1, h, device=x.device)
    line_x = torch.linspace(-1, 1, w, device=x.device)
    grid = torch.stack(torch.meshgrid(line_x, line_y, indexing="xy"), 2)
    moved = grid + flow.permute(0, 2, 3, 1) * torch.tensor([2 / w, 2 / h], device=x.device)
    return F.grid_sample(x, moved, padding_mode="border", align_corners=True)


def posterise(x: Tensor) -> Tensor:
    """Few levels of light, or of each colour."""
    levels = _rand(x, 2, 7).round()
    luma = grey(x)
    flat = (torch.floor(luma * levels) + 0.5) / levels
    toned = (x + flat - luma).clamp(0, 1)
    each = (torch.floor(x * levels) + 0.5) / levels
    return torch.where(_rand(x, 0, 1) < 0.6, toned, each.clamp(0, 1))


def _lines(x: Tensor) -> Tensor:
    """Ink where the light changes (differences of Gaussians): 1 paper, 0 ink."""
    fine = float(torch.rand(()) * 0.8 + 0.5)
    luma = grey(x)
    edge = blur(luma, fine) - 0.98 * blur(luma, fine * 1.6)
    edge = edge - edge.mean((2, 3), keepdim=True) * 0.9
    return (1 + torch.tanh(edge * _rand(x, 20, 90))).clamp(0, 1)


def inked(x: Tensor) -> Tensor:
    """The picture with its outlines."""
    ink = _rand(x, 0, 0.3, 3, 1, 1)
    amount = (1 - _lines(x)) * _rand(x, 0.4, 1)
    return x * (1 - amount) + ink * amount


def line_drawing(x: Tensor) -> Tensor:
    """Outlines alone, or with a pale wash of the colours or hatched shade."""
    paper, lines = _rand(x, 0.8, 1, 3, 1, 1), _lines(x)
    wash = _rand(x, 0, 0.6)
    ground = paper * (1 - wash) + x * wash
    shade = _hatching(x)
    ground = torch.where(_rand(x, 0, 1) < 0.4, ground * shade, ground)
    return (ground * lines).clamp(0, 1)


def _hatching(x: Tensor) -> Tensor:
    h, w = x.shape[2:]
    angle, pitch = _rand(x, 0, 3.14), _rand(x, 2.2, 5)
    at_y = torch.arange(h, device=x.device).view(1, 1, h, 1)
    at_x = torch.arange(w, device=x.device).view(1, 1, 1, w)
    wave = torch.sin((at_x * torch.cos(angle) + at_y * torch.sin(angle)) * 6.28 / pitch)
    dark = 1 - grey(x)
    return 1 - _rand(x, 0.3, 0.9) * torch.sigmoid((wave * 0.5 + dark * 1.6 - 1.1) * 8)


def hatched(x: Tensor) -> Tensor:
    """Shade by parallel strokes."""
    return (x * 0.5 + 0.5) * _hatching(x)


def canvas(x: Tensor) -> Tensor:
    """The weave or grain of what it is painted on, cracks and specks."""
    h, w = x.shape[2:]
    pitch = _rand(x, 1.8, 5)
    at_y = torch.arange(h, device=x.device).view(1, 1, h, 1)
    at_x = torch.arange(w, device=x.device).view(1, 1, 1, w)
    weave = torch.sin(at_x * 6.28 / pitch) * torch.sin(at_y * 6.28 / pitch)
    grain = torch.randn((len(x), 1, h, w), device=x.device)
    grain = torch.where(_rand(x, 0, 1) < 0.5, grain, blur(grain, 0.8) * 2)
    texture = torch.where(_rand(x, 0, 1) < 0.5, weave, grain)
    return (x * (1 + texture * _rand(x, 0.02, 0.16))).clamp(0, 1)


def smoothed(x: Tensor) -> Tensor:
    """Flat skin with sharp edges, as an airbrush leaves it."""
    sigma = float(torch.rand(()) * 2 + 1)
    soft = blur(x, sigma)
    edge = (grey(x) - grey(soft)).abs()
    keep = (edge * 12).clamp(0, 1)
    return x * keep + soft * (1 - keep)


def _some(x: Tensor, probability: float, change: Callable[[Tensor], Tensor]) -> None:
    """Change each picture with a probability, in place."""
    which = torch.nonzero(torch.rand(len(x), device=x.device) < probability)[:, 0]
    if len(which):
        x[which] = change(x[which]).to(x.dtype)


def restyle(x: Tensor) -> Tensor:
    """Random light, colours and style of drawing for each picture, in place."""
    _some(x, 0.5, relight)
    _some(x, 0.15, hue)
    _some(x, 0.22, oil)
    _some(x, 0.15, smoothed)
    _some(x, 0.10, brushed)
    _some(x, 0.12, posterise)
    _some(x, 0.15, inked)
    _some(x, 0.06, line_drawing)
    _some(x, 0.05, hatched)
    _some(x, 0.12, canvas)
    _some(x, 0.75, recolour)
    _some(x, 0.13, tint)
    return x


def _resample(x: Tensor) -> Tensor:
    """Fewer pixels, then as many as before."""
    share = float(torch.rand(()) ** 1.5 * 0.75 + 0.22)
    small = F.interpolate(x, scale_factor=share, mode="bilinear", antialias=True)
    mode = "bilinear" if torch.rand(()) < 0.6 else "bicubic"
    return F.interpolate(small, size=x.shape[2:], mode=mode).clamp(0, 1)


def _noise(x: Tensor) -> Tensor:
    amount = _rand(x, 0, 1) ** 2 * 0.12
    noise = torch.randn_like(x)
    coarse = F.interpolate(noise[:, :, ::2, ::2], size=x.shape[2:], mode="bilinear") * 1.4
    noise = torch.where(_rand(x, 0, 1) < 0.4, coarse, noise)
    noise = torch.where(_rand(x, 0, 1) < 0.3, noise[:, :1].expand_as(x), noise)
    return (x + noise * amount).clamp(0, 1)


def _motion(x: Tensor) -> Tensor:
    reach = int(torch.randint(2, 6, ()))
    kernel = torch.zeros((2 * reach + 1, 2 * reach + 1))
    angle = float(torch.rand(()) * 3.14)
    for step in torch.linspace(-reach, reach, 4 * reach + 1):
        at_x = round(reach + float(step) * float(torch.cos(torch.tensor(angle))))
        at_y = round(reach + float(step) * float(torch.sin(torch.tensor(angle))))
        kernel[at_y, at_x] = 1
    kernel = (kernel / kernel.sum()).to(x.device).expand(3, 1, -1, -1)
    return F.conv2d(F.pad(x, (reach,) * 4, mode="replicate"), kernel, groups=3)


_COSINES: dict[torch.device, Tensor] = {}


def _cosines(device: torch.device) -> Tensor:
    """The 8x8 cosine transform."""
    if device not in _COSINES:
        k = torch.arange(8, dtype=torch.float64)
        table = torch.cos((2 * k[None] + 1) * k[:, None] * torch.pi / 16) / 2
        table[0] /= 2**0.5
        _COSINES[device] = table.float().to(device)
    return _COSINES[device]


def _jpeg(x: Tensor) -> Tensor:
    """JPEG's loss: blocks of 8x8, coarse colours, coefficients rounded to random steps."""
    n, _, h, w = x.shape
    turn = torch.tensor(
        [[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]], device=x.device
    )
    planes = torch.einsum("ij,njhw->nihw", turn, x) * 255
    chroma = F.avg_pool2d(planes[:, 1:], 2)
    planes = torch.cat([planes[:, :1], F.interpolate(chroma, size=(h, w), mode="nearest")], 1)
    table = _cosines(x.device)
    blocks = planes.view(n, 3, h // 8, 8, w // 8, 8).permute(0, 1, 2, 4, 3, 5)
    found = table @ blocks @ table.T
    k = torch.arange(8, device=x.device)
    steps = (10 + 7.0 * (k[:, None] + k[None])) * (_rand(x, 0.1, 1.9, 1, 1, 1, 1, 1) ** 2)
    found = torch.round(found / steps) * steps
    blocks = table.T @ found @ table
    planes = blocks.permute(0, 1, 2, 4, 3, 5).reshape(n, 3, h, w) / 255
    return torch.einsum("ij,njhw->nihw", torch.linalg.inv(turn), planes).clamp(0, 1)


def degrade(x: Tensor) -> Tensor:
    """Blur, few pixels, noise, compression for each picture, in place. Sides: multiples of 8."""
    for _ in range(2):
        _some(x, 0.14, lambda y: blur(y, float(torch.rand(()) * 1.8 + 0.4)))
        _some(x, 0.18, _resample)
    _some(x, 0.06, _motion)
    _some(x, 0.12, lambda y: (y + (y - blur(y, 1.0)) * _rand(y, 0.3, 2)).clamp(0, 1))
    _some(x, 0.45, _noise)
    _some(x, 0.45, _jpeg)
    return x.clamp_(0, 1)
