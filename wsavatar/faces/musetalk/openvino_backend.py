"""Runs a model's stages on a CPU through OpenVINO, two to three times as fast as eager torch.

Converting takes seconds to minutes, so the result is kept on disk, keyed by the model's
fingerprint, this code and the libraries' versions. The cache is checked before it is trusted: a
damaged file is built again. This module knows modules and shapes, not what they mean.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino as ov
import torch
from torch import Tensor, nn
from tqdm import tqdm

__all__ = ["CompiledStage", "Precision", "StageSource", "compile_stages"]

log = logging.getLogger(__name__)

Precision = Literal["f32", "bf16"]

_SPECIALISED_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StageSource:
    """What to convert: a module, an example of its inputs, and which batch it must take.

    ``batch`` is the first dimension of every input; None lets it vary from call to call.
    """

    name: str
    module: nn.Module
    example: tuple[Tensor, ...]
    batch: int | None = None


class CompiledStage:
    """A compiled module. Called from any thread with CPU tensors; one call runs at a time.

    Calls wait for each other because each already uses every core it was given. Any batch size
    runs; one that was given to `specialise` runs a tenth to a fifth faster.
    """

    def __init__(self, core: ov.Core, graph: ov.Model, config: dict[str, Any]) -> None:
        self._core, self._graph, self._config = core, graph, config
        self._lock = threading.Lock()
        self._any_size = core.compile_model(graph, "CPU", config).create_infer_request()
        self._for_size: dict[int, ov.InferRequest] = {}

    def specialise(self, batch: int) -> None:
        """Compile for exactly ``batch`` rows: half a second, and a copy of the weights.

        Does nothing for stages of one fixed batch, and for ones so large that the copy would cost
        more than the speed is worth.
        """
        fixed = self._graph.input(0).get_partial_shape()[0].is_static
        if fixed or batch in self._for_size or _weight_bytes(self._graph) > _SPECIALISED_BYTES:
            return
        graph = self._graph.clone()
        shapes = [entry.get_partial_shape() for entry in graph.inputs]
        graph.reshape({i: ov.PartialShape([batch, *shape[1:]]) for i, shape in enumerate(shapes)})
        compiled = self._core.compile_model(graph, "CPU", self._config)
        with self._lock:
            self._for_size[batch] = compiled.create_infer_request()

    def __call__(self, *inputs: Tensor) -> Tensor:
        arrays = [np.ascontiguousarray(tensor.numpy()) for tensor in inputs]
        with self._lock:
            request = self._for_size.get(len(arrays[0]), self._any_size)
            results = request.infer(arrays)
            return torch.from_numpy(np.array(results[0]))  # the request reuses its own memory


def compile_stages(
    sources: Callable[[], Sequence[StageSource]],
    precisions: Mapping[str, Precision],
    *,
    key: str,
    cache: Path,
    threads: int,
) -> dict[str, CompiledStage]:
    """Compile the stages named in ``precisions``, from ``cache`` where it holds them whole.

    ``sources`` is only called when something must be converted. ``threads`` 0 means all cores.
    A cache that cannot be written costs the next start its time, nothing else.
    """
    core = ov.Core()
    folder = cache / "openvino" / f"{key}-{_code_version()}"
    graphs = {name: _read(core, folder, name) for name in precisions}
    stale = [name for name in precisions if graphs[name] is None]
    if stale:
        log.info("converting the model for OpenVINO; this is done once and kept in %s", folder)
        for source in tqdm(sources(), desc="preparing the model", unit="stage", delay=2):
            if source.name in stale:
                graphs[source.name] = graph = _convert(source)
                _write(folder, source.name, graph)
    return {
        name: CompiledStage(core, graphs[name], _config(precision, threads))
        for name, precision in precisions.items()
    }


def _code_version() -> str:
    """Changes with whatever, besides the weights, decides what a converted stage computes."""
    digest = hashlib.sha256()
    for library in ("openvino", "torch", "diffusers", "transformers"):
        digest.update(f"{library} {metadata.version(library)}\n".encode())
    for name in ("features.py", "networks.py", "openvino_backend.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:12]


def _config(precision: Precision, threads: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        # Said outright: on a CPU with AMX the default would be bfloat16, unasked.
        "INFERENCE_PRECISION_HINT": precision,
    }
    return config | {"INFERENCE_NUM_THREADS": threads} if threads else config


def _convert(source: StageSource) -> ov.Model:
    shapes = [[-1, *tensor.shape[1:]] for tensor in source.example]
    with warnings.catch_warnings(), torch.inference_mode(), _one_torch_thread():
        warnings.simplefilter("ignore")  # tracing warns of every shape that is a constant here
        trace: Any = torch.jit.trace  # untyped
        traced = trace(source.module, source.example, check_trace=False)
        graph = ov.convert_model(traced, example_input=source.example)
    batch = -1 if source.batch is None else source.batch
    graph.reshape({i: ov.PartialShape([batch, *shape[1:]]) for i, shape in enumerate(shapes)})
    return graph


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Tracing runs each layer once on little data: on a busy machine two threads mostly wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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
