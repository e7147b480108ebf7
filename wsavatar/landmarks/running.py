"""Runs a small network of torch: on a CPU through OpenVINO, elsewhere by torch itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from wsavatar.machine import one_torch_thread

__all__ = ["Network", "fill", "on_device"]

Network = Callable[[np.ndarray], np.ndarray]
"""float32 [1, c, h, w] to the network's output; thread-safe."""


def fill(module: Any, tensors: Mapping[str, Any], prefix: str = "") -> None:
    """Load a network's weights: those of a file's tensors whose names begin with ``prefix``.

    A file leaves out how many batches a normalisation has seen. Raises RuntimeError for others.
    """
    ours = {
        name.removeprefix(prefix): tensor.float()
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    counters = {
        name: value
        for name, value in module.state_dict().items()
        if name.endswith("num_batches_tracked")
    }
    module.load_state_dict(ours | counters)


def on_device(
    module: Any, device: str, example: tuple[int, int, int], *, fixed: bool, threads: int = 0
) -> Network:
    """The network on ``device`` (``cpu``, ``cuda:0``).

    ``example``: channels, height and width it can be given; ``fixed``: it is given no others.
    """
    import torch

    module = module.eval()
    if device == "cpu":
        try:
            return _openvino(module, example, fixed, threads)
        except ImportError:
            pass  # not made for every machine
    module = module.to(device)

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            out: np.ndarray = module(torch.from_numpy(batch).to(device)).float().cpu().numpy()
        return out

    return run


def _openvino(module: Any, example: tuple[int, int, int], fixed: bool, threads: int) -> Network:
    import openvino as ov
    import torch

    with torch.inference_mode(), one_torch_thread():
        sample = torch.zeros((1, *example))
        trace: Any = torch.jit.trace  # untyped
        graph = ov.convert_model(trace(module, sample, check_trace=False), example_input=sample)
    sides = example[1:] if fixed else (-1, -1)
    graph.reshape({0: ov.PartialShape([1, example[0], *sides])})
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    request = ov.Core().compile_model(graph, "CPU", config).create_infer_request()
    lock = threading.Lock()

    def run(batch: np.ndarray) -> np.ndarray:
        with lock:  # each run already uses every core it was given
            request.infer([batch])
            out: np.ndarray = request.get_output_tensor(0).data.copy()
        return out

    return run
