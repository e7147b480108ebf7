"""Runs a small network of torch: on a CPU through OpenVINO, elsewhere by torch itself.

What OpenVINO converted is kept, so that the next start needs no torch.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import openvino as ov

__all__ = ["Network", "Origin", "fill", "on_device"]

Network = Callable[[np.ndarray], np.ndarray]
"""float32 [1, c, h, w] to the network's output; thread-safe."""


_log = logging.getLogger(__name__)

_BLOCKS = Path(__file__).with_name("blocks.py")


@dataclass(frozen=True, slots=True)
class Origin:
    """What a network is made of, and the folder that keeps what OpenVINO made of it."""

    name: str
    weights: bytes
    code: Path
    """Its module; what `wsavatar.landmarks.blocks` has counts too."""
    cache: Path


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
    make: Callable[[], Any],
    device: str,
    example: tuple[int, int, int],
    origin: Origin,
    *,
    fixed: bool,
    threads: int = 0,
) -> Network:
    """The network on ``device`` (``cpu``, ``cuda:0``).

    ``make``: the module, in torch, if it is needed. ``example``: channels, height and width it can
    be given; ``fixed``: it is given no others.
    """
    if device == "cpu":
        try:
            return _openvino(make, example, origin, fixed, threads)
        except ImportError:
            pass  # not made for every machine
    import torch

    module = make().eval().to(device)

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            out: np.ndarray = module(torch.from_numpy(batch).to(device)).float().cpu().numpy()
        return out

    return run


def _openvino(
    make: Callable[[], Any],
    example: tuple[int, int, int],
    origin: Origin,
    fixed: bool,
    threads: int,
) -> Network:
    import openvino as ov

    core = ov.Core()
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    graph = _converted(core, make, example, origin, fixed)
    request = core.compile_model(graph, "CPU", config).create_infer_request()
    lock = threading.Lock()

    def run(batch: np.ndarray) -> np.ndarray:
        with lock:  # each run already uses every core it was given
            request.infer([batch])
            out: np.ndarray = request.get_output_tensor(0).data.copy()
        return out

    return run


def _converted(
    core: ov.Core,
    make: Callable[[], Any],
    example: tuple[int, int, int],
    origin: Origin,
    fixed: bool,
) -> ov.Model:
    """From the cache, or converted now."""
    from wsavatar.converted import ConvertedNetworks, convert, version_of

    weights = hashlib.sha256(origin.weights).hexdigest()[:16]
    version = version_of(("openvino", "torch"), (origin.code, _BLOCKS))
    kept = ConvertedNetworks(core, origin.cache, f"{weights}-{version}")
    graph = kept.read(origin.name)
    if graph is None:
        _log.info(
            "converting a network (%s) for OpenVINO; this is done %s", origin.name, kept.where
        )
        import torch

        sides = example[1:] if fixed else (-1, -1)
        sample = torch.zeros((1, *example))
        graph = convert(make().eval(), (sample,), [(1, example[0], *sides)])
        kept.write(origin.name, graph)
    return graph
