"""Times calls: by CUDA events for work on a CUDA device, else by the wall clock."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Stopwatch", "cudnn_benchmark", "is_cuda", "stopwatch"]

Stopwatch = Callable[[Callable[[], Any]], float]
"""Runs a call and returns its milliseconds, after the device has finished the work."""


def is_cuda(device: Any) -> bool:
    """Whether ``device`` is a `torch.device` of type cuda."""
    return getattr(device, "type", "") == "cuda"


def stopwatch(device: Any) -> Stopwatch:
    """A stopwatch for work on ``device``'s current stream."""
    return _by_events(device) if is_cuda(device) else _by_clock


def _by_clock(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)


def _by_events(device: Any) -> Stopwatch:
    import torch

    new_event: Callable[..., Any] = torch.cuda.Event

    def elapsed_ms(call: Callable[[], Any]) -> float:
        with torch.cuda.device(device):
            start, end = new_event(enable_timing=True), new_event(enable_timing=True)
            start.record()
            call()
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end))

    return elapsed_ms


@contextlib.contextmanager
def cudnn_benchmark(enabled: bool) -> Iterator[None]:
    """Let cuDNN choose its convolution algorithms by timing, or not; restores the setting."""
    import torch

    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = enabled
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
