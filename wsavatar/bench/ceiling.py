"""The upper bound of the hardware: its rates on random data, and the operations of one frame.

Convolutions have the decoder's shapes, because the decoder takes most of a frame's time. Data are
random: with zeros a chip draws less power and runs faster than with real data.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from wsavatar.bench.report import Ceiling, ConvolutionRate
from wsavatar.bench.timing import cudnn_benchmark, stopwatch
from wsavatar.faces.musetalk.architecture import build
from wsavatar.faces.musetalk.layout import Part, part_files
from wsavatar.faces.musetalk.networks import FaceGenerator
from wsavatar.faces.musetalk.spec import Decoder, ModelSpec

__all__ = ["CPU_TEST", "CUDA_TEST", "Load", "frame_flops", "measure_ceiling"]


@dataclass(frozen=True, slots=True)
class Load:
    """The operations that are timed, each in ``groups`` groups of ``calls`` calls."""

    batch: int
    shapes: tuple[tuple[int, int], ...]
    """Channels and side of each convolution."""
    matmul_size: int
    copy_bytes: int
    groups: int
    calls: int


DECODER_SHAPES = ((512, 64), (256, 128), (128, 256))
CUDA_TEST = Load(16, DECODER_SHAPES, 8192, 2**30, groups=20, calls=10)
CPU_TEST = Load(1, DECODER_SHAPES, 2048, 2**26, groups=5, calls=1)


def measure_ceiling(
    directory: Path,
    spec: ModelSpec,
    device: torch.device | str,
    dtype: str,
    load: Load,
    decoder: Decoder = "vae",
) -> Ceiling:
    """Rates of ``device`` in ``dtype``, and the operations of a frame of the model."""
    kind = getattr(torch, dtype)
    with torch.inference_mode(), cudnn_benchmark(True):
        convolutions = tuple(
            ConvolutionRate(
                channels, side, round(_convolution_tflops(channels, side, device, kind, load), 6)
            )
            for channels, side in load.shapes
        )
        matmul = _matmul_tflops(device, kind, load)
        copied = _copy_gb_per_s(device, load)
    return Ceiling(
        load.batch,
        convolutions,
        round(matmul, 6),
        round(copied, 3),
        round(frame_flops(directory, spec, decoder) / 1e9, 2),
    )


def frame_flops(directory: Path, spec: ModelSpec, decoder: Decoder = "vae") -> int:
    """Floating-point operations of UNet and decoder for one frame; an FMA counts as two.

    Counted on modules without weights: takes no memory, and is the same on every device.
    """
    configs = {files.part: files.config for files in part_files(spec.version, decoder)}

    def network(part: Part) -> Any:
        return build(part, json.loads((directory / configs[part]).read_text("utf-8")))

    with torch.device("meta"), torch.inference_mode():
        tiny = network("tiny") if decoder == "tiny" else None
        faces = FaceGenerator(network("unet"), network("vae"), spec.decode_from_row, tiny).eval()
        size = spec.latent_size
        latents = torch.empty(1, 2 * spec.latent_channels, size, size)
        condition = torch.empty(1, spec.grid.frame_positions * spec.layers, spec.dim)
        with FlopCounterMode(display=False) as counter:
            faces(latents, condition)
    return int(counter.get_total_flops())


def _convolution_tflops(
    channels: int, side: int, device: torch.device | str, dtype: torch.dtype, load: Load
) -> float:
    pixels = _random((load.batch, channels, side, side), device, dtype)
    weight = _random((channels, channels, 3, 3), device, dtype)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    weight = weight.contiguous(memory_format=torch.channels_last)
    operations = 2 * load.batch * side * side * channels * channels * 9
    return operations / _seconds(lambda: F.conv2d(pixels, weight, padding=1), device, load) / 1e12


def _matmul_tflops(device: torch.device | str, dtype: torch.dtype, load: Load) -> float:
    n = load.matmul_size
    left, right = (_random((n, n), device, dtype) for _ in range(2))
    return 2 * n**3 / _seconds(lambda: left @ right, device, load) / 1e12


def _copy_gb_per_s(device: torch.device | str, load: Load) -> float:
    """Counts bytes read and bytes written."""
    source = torch.randint(0, 256, (load.copy_bytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * load.copy_bytes / _seconds(lambda: target.copy_(source), device, load) / 1e9


def _random(shape: Sequence[int], device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(*shape, device=device).to(dtype)


def _seconds(call: Callable[[], Any], device: torch.device | str, load: Load) -> float:
    """Seconds of one call: the median of the groups. Launches within a group overlap."""
    elapsed_ms = stopwatch(device)

    def group() -> None:
        for _ in range(load.calls):
            call()

    group()
    times = [elapsed_ms(group) for _ in range(load.groups)]
    return statistics.median(times) / load.calls / 1000
