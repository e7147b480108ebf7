"""Runs a model's stages on a CPU through OpenVINO, two to three times as fast as eager torch.

Converting takes seconds to minutes, so the result is kept on disk, keyed by the model's
fingerprint, this code and the libraries' versions. The cache is checked before it is trusted: a
damaged file is built again. This module knows modules and shapes, not what they mean.

Networks as small as these gain little from many threads on one input: most of the time the threads
wait for each other, all the more where other programs use the same cores. So rows are shared out
over groups of cores wherever there are enough of them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino as ov
import torch
from torch import Tensor, nn
from tqdm import tqdm

from wsavatar.machine import describe, one_torch_thread, yield_to_others

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
    """A compiled module. Called from any thread with CPU tensors; one call runs at a time.

    Calls wait for each other because each already uses every core it was given. Any batch size
    runs, but 0 rows do not; one that was given to `specialise` runs up to twice as fast.
    """

    def __init__(self, core: ov.Core, graph: ov.Model, config: StageConfig, threads: int) -> None:
        self._core, self._graph, self._config, self._threads = core, graph, config, threads
        self._lock = threading.Lock()
        self._for_size: dict[int, list[ov.InferRequest]] = {}
        cores = threads or describe().cores
        self._groups = min(_GROUPS, cores)
        if config.rows_alone:
            compiled = self._compile(_of_batch(graph, 1), min(_STREAMS, cores))
            self._any_size = [compiled.create_infer_request() for _ in range(_ROWS_AT_ONCE)]
        else:
            self._any_size = [self._compile(graph, 1).create_infer_request()]

    def specialise(self, batch: int) -> None:
        """Compile for exactly ``batch`` rows: half a second, and a copy of the weights.

        Does nothing where rows run alone, and for stages so large that the copy would cost more
        than the speed is worth.
        """
        done = self._config.rows_alone or batch in self._for_size
        if done or _weight_bytes(self._graph) > _SPECIALISED_BYTES:
            return
        groups = self._groups if batch % self._groups == 0 else 1
        compiled = self._compile(_of_batch(self._graph, batch // groups), groups)
        requests = [compiled.create_infer_request() for _ in range(groups)]
        with self._lock:
            self._for_size[batch] = requests

    def __call__(self, *inputs: Tensor) -> Tensor:
        arrays = [np.ascontiguousarray(tensor.numpy()) for tensor in inputs]
        count = len(arrays[0])
        with self._lock:
            if not self._config.rows_alone:
                requests = self._for_size.get(count, self._any_size)
                return torch.from_numpy(_infer(requests, arrays))
            starts = range(0, count, _ROWS_AT_ONCE)
            waves = [[array[at : at + _ROWS_AT_ONCE] for array in arrays] for at in starts]
            made = [_infer(self._any_size[: len(wave[0])], wave) for wave in waves]
            return torch.from_numpy(np.concatenate(made))

    def _compile(self, graph: ov.Model, streams: int) -> ov.CompiledModel:
        config: dict[str, Any] = {
            # Said outright: on a CPU with AMX the default would be bfloat16, unasked.
            "INFERENCE_PRECISION_HINT": self._config.precision,
        }
        config |= {"NUM_STREAMS": streams} if streams > 1 else {"PERFORMANCE_HINT": "LATENCY"}
        if self._threads:
            config["INFERENCE_NUM_THREADS"] = self._threads
        return self._core.compile_model(graph, "CPU", config)


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
    """Compile the named stages, from ``cache`` where it holds them whole.

    ``sources`` is only called when something must be converted. ``threads`` 0 means all cores.
    A cache that cannot be written costs the next start its time, nothing else.
    """
    core = ov.Core()
    folder = cache / "openvino" / f"{key}-{_code_version()}"
    graphs = {name: _read(core, folder, name) for name in stages}
    stale = [name for name in stages if graphs[name] is None]
    if stale:
        log.info("converting the model for OpenVINO; this is done once and kept in %s", folder)
        stages_left = tqdm(
            sources(), desc="preparing the model", unit="stage", delay=2, disable=None
        )
        for source in stages_left:
            if source.name in stale:
                graphs[source.name] = graph = _convert(source)
                _write(folder, source.name, graph)
    # OpenVINO's threads take the priority of the thread that starts them.
    with ThreadPoolExecutor(1, initializer=yield_to_others) as thread:
        compiled = {
            name: thread.submit(CompiledStage, core, graphs[name], config, threads)
            for name, config in stages.items()
        }
        return {name: stage.result() for name, stage in compiled.items()}


def _code_version() -> str:
    """Changes with whatever, besides the weights, decides what a converted stage computes."""
    digest = hashlib.sha256()
    for library in ("openvino", "torch", "diffusers", "transformers"):
        digest.update(f"{library} {metadata.version(library)}\n".encode())
    for name in ("features.py", "networks.py", "openvino_backend.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:12]


def _infer(requests: Sequence[ov.InferRequest], arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Share the rows out evenly over the requests, all at once; the result is a copy."""
    pieces = [np.array_split(array, len(requests)) for array in arrays]
    for number, request in enumerate(requests):
        request.start_async([piece[number] for piece in pieces])
    for request in requests:
        request.wait()
    return np.concatenate([request.get_output_tensor(0).data for request in requests])


def _convert(source: StageSource) -> ov.Model:
    shapes = {i: [-1, *tensor.shape[1:]] for i, tensor in enumerate(source.example)}
    with warnings.catch_warnings(), torch.inference_mode(), one_torch_thread():
        warnings.simplefilter("ignore")  # tracing warns of every shape that is a constant here
        trace: Any = torch.jit.trace  # untyped
        traced = trace(source.module, source.example, check_trace=False)
        graph = ov.convert_model(traced, example_input=source.example)
    graph.reshape({i: ov.PartialShape(shape) for i, shape in shapes.items()})
    return graph


def _of_batch(graph: ov.Model, batch: int) -> ov.Model:
    """The graph for exactly so many rows."""
    made = graph.clone()
    shapes = [entry.get_partial_shape() for entry in made.inputs]
    made.reshape({i: ov.PartialShape([batch, *shape[1:]]) for i, shape in enumerate(shapes)})
    return made


def _read(core: ov.Core, folder: Path, name: str) -> ov.Model | None:
    """The cached graph, or None where there is none that can be trusted."""
    manifest = folder / f"{name}.json"
    try:
        digests = json.loads(manifest.read_text("utf-8"))
        paths = [folder / f"{name}.xml", folder / f"{name}.bin"]
        if [_digest(path) for path in paths] != [digests["xml"], digests["bin"]]:
            raise ValueError("its files are not those that were written")
        return core.read_model(paths[0])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        log.warning("%s cannot be used and is built again: %s", manifest, error)
        return None


def _write(folder: Path, name: str, graph: ov.Model) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as made:
            xml = Path(made) / f"{name}.xml"
            ov.save_model(graph, xml, compress_to_fp16=False)
            paths = {"xml": xml, "bin": xml.with_suffix(".bin")}
            manifest = Path(made) / f"{name}.json"
            digests = {kind: _digest(path) for kind, path in paths.items()}
            manifest.write_text(json.dumps(digests), "utf-8")
            for path in (*paths.values(), manifest):  # the manifest last: it vouches for the rest
                os.replace(path, folder / path.name)
    except (OSError, RuntimeError) as error:
        log.warning("cannot keep the converted model in %s: %s", folder, error)


def _weight_bytes(graph: ov.Model) -> int:
    return sum(
        node.get_byte_size() for node in graph.get_ops() if node.get_type_name() == "Constant"
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
