"""Networks of torch, converted for OpenVINO and kept on the disk.

Converting takes seconds, and needs torch. What was kept is checked before it is trusted: a damaged
file is as good as none. Each version of the weights and of the libraries has a folder; those that
nobody uses any more are removed. This module knows no network.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openvino as ov

from wsavatar.machine import one_torch_thread
from wsavatar.resources import cache_fault

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ConvertedNetworks", "convert", "version_of"]

_UNUSED_S = 30 * 24 * 3600.0
"""After so long without a start that reads it, a folder may be removed."""

_log = logging.getLogger(__name__)


class ConvertedNetworks:
    """Networks by name, of one ``version``. One that cannot be written costs the next start its
    time, nothing else.

    ``cache``: the folder of caches. Nothing is logged where it cannot be used at all
    (`wsavatar.resources.cache_fault`).
    """

    def __init__(self, core: ov.Core, cache: Path, version: str) -> None:
        self._core = core
        self._place = cache / "openvino"
        self.folder = self._place / version

    @property
    def where(self) -> str:
        """For the log: what becomes of a network that is converted now."""
        if cache_fault(self._place):
            return "at every start"
        return f"once, and kept in {self.folder}"

    def read(self, name: str) -> ov.Model | None:
        """The network, or None where there is none that can be trusted."""
        manifest = self.folder / f"{name}.json"
        try:
            digests = json.loads(manifest.read_text("utf-8"))
            paths = [self.folder / f"{name}.xml", self.folder / f"{name}.bin"]
            if [_digest(path) for path in paths] != [digests["xml"], digests["bin"]]:
                raise ValueError("its files are not those that were written")
            graph = self._core.read_model(paths[0])
            self._mark_used()
            return graph
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            if not (isinstance(error, OSError) and cache_fault(self._place)):
                _log.warning("%s cannot be used and is built again: %s", manifest, error)
            return None

    def write(self, name: str, graph: ov.Model) -> None:
        """Keep a network; logs disk errors."""
        if cache_fault(self._place):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=f".{name}-") as made:
                xml = Path(made) / f"{name}.xml"
                ov.save_model(graph, xml, compress_to_fp16=False)
                paths = {"xml": xml, "bin": xml.with_suffix(".bin")}
                manifest = Path(made) / f"{name}.json"
                digests = {kind: _digest(path) for kind, path in paths.items()}
                manifest.write_text(json.dumps(digests), "utf-8")
                # The manifest last: it vouches for the rest.
                for path in (*paths.values(), manifest):
                    os.replace(path, self.folder / path.name)
            self._mark_used()
            _remove_unused(self.folder)
        except (OSError, RuntimeError) as error:
            _log.warning("cannot keep a converted network in %s: %s", self.folder, error)

    def _mark_used(self) -> None:
        with contextlib.suppress(OSError):  # a cache that can only be read
            os.utime(self.folder)


def _remove_unused(present: Path) -> None:
    """Remove versions of what is in ``present`` that were not used for long, but for the one that
    was used last before. A process that wants one of them just then converts it again."""
    others: list[tuple[float, Path]] = []
    for folder in present.parent.iterdir():
        with contextlib.suppress(OSError):  # another process removes it too
            if folder != present and _names(folder) & _names(present):
                others.append((folder.stat().st_mtime, folder))
    for used_s, folder in sorted(others)[:-1]:
        if time.time() - used_s > _UNUSED_S:
            _log.info("removing %s: it was not used for %d days", folder, _UNUSED_S / 86400)
            shutil.rmtree(folder, ignore_errors=True)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("[!.]*.json")}


def convert(
    module: nn.Module, example: tuple[Tensor, ...], shapes: Sequence[Sequence[int]]
) -> ov.Model:
    """The network for inputs of these shapes, where -1 is any. Imports torch; takes seconds."""
    import torch

    with warnings.catch_warnings(), torch.inference_mode(), one_torch_thread():
        warnings.simplefilter("ignore")  # tracing warns of every shape that is a constant here
        trace: Any = torch.jit.trace  # untyped
        traced = trace(module, example, check_trace=False)
        graph = ov.convert_model(traced, example_input=example)
    graph.reshape({i: ov.PartialShape(list(shape)) for i, shape in enumerate(shapes)})
    return graph


def version_of(libraries: Iterable[str], code: Iterable[Path]) -> str:
    """Changes with the version of a library, the content of a file, and this module's."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for library in libraries:
        digest.update(f"{library} {metadata.version(library)}\n".encode())
    for path in code:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
