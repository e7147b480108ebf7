"""Runs a model's stages on a CPU through OpenVINO, two to three times as fast as eager torch.

Converting takes seconds to minutes, so the result is kept on disk, keyed by the model's
fingerprint, the networks' code and the libraries' versions. Where all of it is kept, torch is not
imported. This module knows modules and shapes, not what they mean.

Networks as small as these gain little from many threads on one input: most of the time the threads
wait for each other, all the more where other programs use the same cores. So rows are shared out
over groups of cores wherever there are enough of them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import openvino as ov
from tqdm import tqdm

from wsavatar.converted import ConvertedNetworks, convert, version_of
from wsavatar.machine import describe, yield_to_others

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "CompiledStage",
    "Precision",
    "StageConfig",
    "StageSource",
    "compile_stages",
    "has_bfloat16",
]

log = logging.getLogger(__name__)

Precision = Literal["f32", "bf16"]

_SPECIALISED_BYTES = 256 * 1024 * 1024
_GROUPS = 2
"""Groups of cores that share out a batch of pictures."""
_STREAMS = 4
"""Groups of cores where each row runs alone."""
_ROWS_AT_ONCE = 8
"""The most rows that wait for these at a time."""


@dataclass(frozen=True, slots=True)
class StageSource:
    """What to convert: a module and an example of its inputs.

    Its batch, the first dimension of every input, may vary from call to call.
    """

    name: str
    module: nn.Module
    example: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class StageConfig:
    """How to run a stage. ``rows_alone``: each row by itself, several at a time.

    A row's result is then the same bit for bit whatever rows come with it.
    """

    precision: Precision = "f32"
    rows_alone: bool = False


class CompiledStage:
    """A module that is compiled when it is first used: no program uses all stages.

    Called from any thread with arrays; one call runs at a time, because each already uses every
    core it was given. Any batch size runs, but 0 rows do not; one that was given to `specialise`
    runs up to twice as fast.
    """

    def __init__(self, core: ov.Core, graph: ov.Model, config: StageConfig, threads: int) -> None:
        self._core, self._graph, self._config, self._threads = core, graph, config, threads
        self._lock = threading.Lock()
        self._for_size: dict[int, list[ov.InferRequest]] = {}
        self._any_size: list[ov.InferRequest] = []
        self._cores = threads or describe().cores

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        """Of a row of each input."""
        shapes = [entry.get_partial_shape() for entry in self._graph.inputs]
        return [tuple(side.get_length() for side in list(shape)[1:]) for shape in shapes]

    def specialise(self, batch: int) -> None:
        """Compile for exactly ``batch`` rows: half a second, and a copy of the weights.

        Does nothing where rows run alone, and for stages so large that the copy would cost more
        than the speed is worth.
        """
        done = self._config.rows_alone or batch in self._for_size
        if done or _weight_bytes(self._graph) > _SPECIALISED_BYTES:
            return
        groups = min(_GROUPS, self._cores)
        groups = groups if batch % groups == 0 else 1
        requests = self._compile(_of_batch(self._graph, batch // groups), groups, groups)
        with self._lock:
            self._for_size[batch] = requests

    def load(self) -> None:
        """Compile for any batch now, so that the first call is no slower."""
        with self._lock:
            self._load()

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        arrays = [np.ascontiguousarray(one) for one in inputs]
        count = len(arrays[0])
        with self._lock:
            if count in self._for_size:
                return _infer(self._for_size[count], arrays)
            self._load()
            if not self._config.rows_alone:
                return _infer(self._any_size, arrays)
            starts = range(0, count, _ROWS_AT_ONCE)
            waves = [[array[at : at + _ROWS_AT_ONCE] for array in arrays] for at in starts]
            made = [_infer(self._any_size[: len(wave[0])], wave) for wave in waves]
            return np.concatenate(made)

    def _load(self) -> None:
        if self._any_size:
            return
        if self._config.rows_alone:
            streams = min(_STREAMS, self._cores)
            self._any_size = self._compile(_of_batch(self._graph, 1), streams, _ROWS_AT_ONCE)
        else:
            self._any_size = self._compile(self._graph, 1, 1)

    def _compile(self, graph: ov.Model, streams: int, requests: int) -> list[ov.InferRequest]:
        config: dict[str, Any] = {
            # Said outright: on a CPU with AMX the default would be bfloat16, unasked.
            "INFERENCE_PRECISION_HINT": self._config.precision,
        }
        config |= {"NUM_STREAMS": streams} if streams > 1 else {"PERFORMANCE_HINT": "LATENCY"}
        if self._threads:
            config["INFERENCE_NUM_THREADS"] = self._threads

        def compiled() -> list[ov.InferRequest]:
            model = self._core.compile_model(graph, "CPU", config)
            return [model.create_infer_request() for _ in range(requests)]

        # OpenVINO's threads take the priority of the thread that starts them.
        with ThreadPoolExecutor(1, initializer=yield_to_others) as thread:
            return thread.submit(compiled).result()


def has_bfloat16() -> bool:
    """Whether this processor computes in bfloat16: AVX512-BF16 or AMX, or what Arm has of it."""
    capabilities = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "BF16" in capabilities


def compile_stages(
    sources: Callable[[], Sequence[StageSource]],
    stages: Mapping[str, StageConfig],
    *,
    key: str,
    cache: Path,
    threads: int,
) -> dict[str, CompiledStage]:
    """The named stages, to be compiled; from ``cache`` where it holds them whole.

    ``sources`` is only called when something must be converted. ``threads`` 0 means all cores.
    A cache that cannot be written costs the next start its time, nothing else.
    """
    core = ov.Core()
    kept = ConvertedNetworks(core, cache, f"{key}-{_code_version()}")
    graphs = {name: kept.read(name) for name in stages}
    stale = [name for name in stages if graphs[name] is None]
    if stale:
        log.info("converting the model for OpenVINO; this is done %s", kept.where)
        stages_left = tqdm(
            sources(), desc="preparing the model", unit="stage", delay=2, disable=None
        )
        for source in stages_left:
            if source.name in stale:
                shapes = [[-1, *tensor.shape[1:]] for tensor in source.example]
                graphs[source.name] = graph = convert(source.module, source.example, shapes)
                kept.write(source.name, graph)
    return {
        name: CompiledStage(core, graphs[name], config, threads) for name, config in stages.items()
    }


def _code_version() -> str:
    """Changes with whatever, besides the weights, decides what a converted stage computes."""
    here = Path(__file__).parent
    code = [here / name for name in ("features.py", "networks.py", "openvino_sources.py")]
    return version_of(("openvino", "torch", "diffusers", "transformers"), code)


def _infer(requests: Sequence[ov.InferRequest], arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Share the rows out evenly over the requests, all at once; the result is a copy."""
    pieces = [np.array_split(array, len(requests)) for array in arrays]
    for number, request in enumerate(requests):
        request.start_async([piece[number] for piece in pieces])
    for request in requests:
        request.wait()
    return np.concatenate([request.get_output_tensor(0).data for request in requests])


def _of_batch(graph: ov.Model, batch: int) -> ov.Model:
    """The graph for exactly so many rows."""
    made = graph.clone()
    shapes = [entry.get_partial_shape() for entry in made.inputs]
    made.reshape({i: ov.PartialShape([batch, *shape[1:]]) for i, shape in enumerate(shapes)})
    return made


def _weight_bytes(graph: ov.Model) -> int:
    return sum(
        node.get_byte_size() for node in graph.get_ops() if node.get_type_name() == "Constant"
    )
