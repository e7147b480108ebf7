"""The kernels between convolutions compute what their plain torch forms compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from wsavatar.faces.musetalk import kernels
from wsavatar.faces.musetalk.kernels import triton_kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def pictures(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2 + 0.5
    return x.to(DEVICE, dtype, memory_format=torch.channels_last)


def vector(count: int, dtype: torch.dtype, seed: int = 1) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Tensor, Tensor]]:
    """Calls a kernel's torch form, then its Triton form (interpreted where there is no GPU)."""
    if triton_kernels is None:
        pytest.skip("Triton is not installed")

    def call(function: Callable[..., Tensor], x: Tensor, *rest: Any, **options: Any) -> Any:
        results = []
        for usable in (False, True):
            monkeypatch.setattr(kernels, "_usable", lambda x, usable=usable: usable)
            results.append(function(x.clone(), *rest, **options))
        return results

    return call


def close(made: Tensor, true: Tensor) -> None:
    assert made.shape == true.shape
    assert made.dtype == true.dtype
    assert made.stride() == true.stride()
    step = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 1.6e-2}[made.dtype]
    torch.testing.assert_close(made, true, rtol=step, atol=step)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("shape", [(2, 48, 5, 7), (1, 64, 4, 4), (2, 96, 3, 3)])
def test_group_norm_of_small_pictures(both, shape, silu, dtype) -> None:
    """A group that one program holds is normalised with its offset, then SiLU."""
    x, c = pictures(*shape, dtype=dtype), shape[1]
    w, b, offset = (vector(c, dtype, seed) for seed in (1, 2, 3))
    true, made = both(kernels.group_norm, x, w, b, 16, 1e-5, silu=silu, offset=offset)
    close(made, true)
    true, made = both(kernels.group_norm, x, w, b, 16, 1e-5, silu=silu)
    close(made, true)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_offset", [True, False])
@pytest.mark.parametrize("channels", [48, 160])
def test_group_norm_of_large_pictures(both, monkeypatch, channels, with_offset, dtype) -> None:
    """A group too large for one program is normalised in three steps, to the same result."""
    monkeypatch.setattr(triton_kernels, "ONE_PROGRAM", 64)
    x = pictures(2, channels, 19, 23, dtype=dtype)
    w, b, offset = (vector(channels, dtype, seed) for seed in (1, 2, 3))
    options = {"silu": True, "offset": offset if with_offset else None}
    true, made = both(kernels.group_norm, x, w, b, 16, 1e-6, **options)
    close(made, true)


@pytest.mark.parametrize("dtype", DTYPES)
def test_layer_norm(both, dtype) -> None:
    """Rows are normalised over all their channels, offset first."""
    x = vector(7 * 40, dtype).view(7, 40)
    w, b, offset = (vector(40, dtype, seed) for seed in (2, 3, 4))
    true, made = both(kernels.layer_norm, x, w, b, 1e-5, offset)
    close(made, true)


@pytest.mark.parametrize("dtype", DTYPES)
def test_geglu(both, dtype) -> None:
    """The first half of a row is multiplied by the exact GELU of the second."""
    x = vector(11 * 1100, dtype).view(11, 1100)
    true, made = both(kernels.geglu, x, vector(1100, dtype, 2))
    close(made, true)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["geglu", "layer_norm"])
def test_rows_beyond_two_to_the_31_values(name: str) -> None:
    """The last row of a very large batch is what it is alone."""
    if torch.cuda.mem_get_info()[0] < 12 * 2**30:
        pytest.skip("less than 12 GiB of the GPU are free")
    width = 2048
    x = torch.zeros(2**31 // width + 8, width, device="cuda", dtype=torch.float16)
    x[-1] = vector(width, torch.float16)
    bias = vector(width, torch.float16, 2)
    rest = (bias,) if name == "geglu" else (bias, bias, 1e-5)
    made, alone = (getattr(kernels, name)(rows, *rest)[-1] for rows in (x, x[-1:]))
    assert torch.equal(made, alone)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("h", "w"), [(4, 4), (3, 5), (1, 2)])
def test_columns_of_neighbours(both, h, w, dtype) -> None:
    """A pixel stands beside its eight neighbours, so that a product with them is a convolution."""
    x = pictures(2, 48, h, w, dtype=dtype)
    true, made = both(kernels.columns, x)
    assert torch.equal(made, true)
    # On the CPU: a GPU's float32 convolutions round their inputs to ten bits.
    conv = torch.randn(8, 48, 3, 3, generator=torch.Generator().manual_seed(5))
    expected = torch.nn.functional.conv2d(x.float().cpu(), conv, padding=1)
    rows = made.float().cpu() @ conv.permute(0, 2, 3, 1).flatten(1).t()
    torch.testing.assert_close(
        rows.view(2, h, w, 8).permute(0, 3, 1, 2), expected, rtol=1e-4, atol=1e-3
    )


def normed_with_sums(function: Callable[..., Any], x: Tensor, *rest: Any) -> Tensor:
    """What ``function`` writes, group-normed by way of the sums that it gives."""
    written, sums = function(x, *rest)
    ones = torch.ones(written.shape[1], device=DEVICE, dtype=x.dtype)
    return kernels.group_norm(written, ones, ones, 8, 1e-5, silu=False, sums=sums)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("large", [1, 4096])
def test_add(both, monkeypatch, large, dtype) -> None:
    """Two pictures and a bias add up with one rounding; a large one is summed for the next norm."""
    if triton_kernels is not None:
        monkeypatch.setattr(triton_kernels, "LARGE", large)
    x, other = (pictures(2, 160, 7, 9, dtype=dtype, seed=s) for s in (1, 2))
    bias = vector(160, dtype)
    true, made = both(lambda *args: kernels.add(*args)[0], x, other, bias)
    close(made, true)
    true, made = both(lambda *args: normed_with_sums(kernels.add, *args), x, other, bias)
    close(made, true)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("large", [1, 4096])
def test_phases_take_their_places(both, monkeypatch, large, dtype) -> None:
    """Four phases interleave into a picture of twice the size, summed where it is large."""
    if triton_kernels is not None:
        monkeypatch.setattr(triton_kernels, "LARGE", large)
    x, bias = pictures(2, 4 * 24, 6, 4, dtype=dtype), vector(24, dtype)
    true, made = both(lambda *args: kernels.unfold_phases(*args)[0], x, bias)
    close(made, true)
    true, made = both(lambda *args: normed_with_sums(kernels.unfold_phases, *args), x, bias)
    close(made, true)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_are_rounded_and_clamped(both, dtype) -> None:
    """-1 becomes 0, 1 becomes 255, other values are clipped, and nothing wraps around."""
    x = pictures(2, 8, 9, 5, dtype=dtype)
    x[0, 0, 0, :3] = torch.tensor([-1.0, 1.0, 30.0], dtype=dtype)
    bias = torch.zeros(3, device=DEVICE, dtype=dtype)
    true, made = both(kernels.to_pixels, x, bias)
    assert true.dtype == made.dtype == torch.uint8
    assert torch.equal(made, true)
    assert made[0, 0, :3, 0].tolist() == [0, 255, 255]
