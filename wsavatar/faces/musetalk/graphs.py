"""Runs a stage of the model as CUDA graphs, one for each batch size.

A stage is hundreds of small kernels; launched one by one from Python they cost more than they
compute. Captured once, a whole batch is one launch. This module knows no networks: a stage is any
function of tensors whose first dimension is the batch.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["GRAPH_SIZES", "GraphedStage"]

GRAPH_SIZES = (1, 2, 4, 8, 16, 32, 64)
"""A batch of another size is filled up to the next of these."""

_WARM_UPS = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor


class GraphedStage:
    """``stage(*inputs) -> Tensor``, captured for fixed batch sizes on one device.

    ``known_sizes`` are those that may be captured, ascending; ``examples`` are inputs of one row
    each: they say shapes and types. Any thread may call; calls take turns. The result is the
    caller's own. A batch beyond the greatest captured size goes in pieces; before anything is
    captured, the stage runs as it is.
    """

    def __init__(
        self,
        name: str,
        stage: Callable[..., Tensor],
        examples: Sequence[Tensor],
        known_sizes: Sequence[int] = GRAPH_SIZES,
    ) -> None:
        self._name = name
        self.known_sizes = tuple(known_sizes)
        self._stage = stage
        self._examples = tuple(examples)
        self._device = examples[0].device
        self._captured: dict[int, _Captured] = {}
        self._turn = threading.Lock()
        self._pool: Any = None
        self._last: torch.cuda.Event | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Batch sizes captured so far, ascending."""
        return tuple(sorted(self._captured))

    def specialise(self, size: int) -> None:
        """Capture the smallest of the sizes that holds ``size`` rows, if it is not yet."""
        size = next((n for n in self.known_sizes if n >= size), self.known_sizes[-1])
        with self._turn, torch.cuda.device(self._device):
            if size not in self._captured:
                self._captured[size] = self._capture(size)

    @torch.inference_mode()
    def __call__(self, *inputs: Tensor) -> Tensor:
        with self._turn, torch.cuda.device(self._device):
            if not self._captured:
                return self._stage(*inputs)
            greatest = self.sizes[-1]
            rows = len(inputs[0])
            parts = [
                self._replay(*(x[start : start + greatest] for x in inputs))
                for start in range(0, rows, greatest)
            ]
            return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _replay(self, *inputs: Tensor) -> Tensor:
        rows = len(inputs[0])
        captured = self._captured[next(n for n in self.sizes if n >= rows)]
        stream = torch.cuda.current_stream(self._device)
        if self._last is not None:
            stream.wait_event(self._last)  # the call before may have come on another stream
        for held, given in zip(captured.inputs, inputs, strict=True):
            held[:rows].copy_(given)
        captured.graph.replay()
        output = captured.output[:rows].clone()  # the next replay writes over it
        self._last = stream.record_event()
        return output

    @torch.inference_mode()
    def _capture(self, size: int) -> _Captured:
        inputs = tuple(
            # Random rows: convolution algorithms are chosen by timing them, and zeros are no data.
            torch.randn(size, *x.shape[1:], device=self._device).to(x.dtype)
            for x in self._examples
        )
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._stage(*inputs)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        torch.cuda.synchronize(self._device)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Other threads may use their own devices meanwhile.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"
        ):
            output = self._stage(*inputs)
        torch.cuda.synchronize(self._device)
        _log.info("%s: captured %s at batch %d", self._device, self._name, size)
        return _Captured(graph, inputs, output)
