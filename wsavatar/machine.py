"""Describes this computer: processor, memory, CUDA devices; and lowers thread priorities.

`doctor` and `bench` print the description. This module measures nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "CudaDevice",
    "Machine",
    "cuda_devices",
    "describe",
    "may_have_gpu",
    "one_torch_thread",
    "usable_cores",
    "yield_to_others",
]

_CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16")
"""CPU features that decide the speed of networks."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A computer. ``memory_gib`` is 0 where unknown."""

    cpu: str
    cores: int
    features: tuple[str, ...]
    memory_gib: float
    system: str
    python: str


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """A CUDA device of torch: ``cuda:0``, its product name, and memory."""

    name: str
    title: str
    memory_gib: float
    free_gib: float


def describe() -> Machine:
    """Describe this machine. ``cores`` are those that this process may use."""
    fields = _cpuinfo()
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return Machine(
        cpu=fields.get("model name") or platform.processor() or platform.machine(),
        cores=usable_cores(),
        features=tuple(name for name in _CPU_FEATURES if name in flags),
        memory_gib=_memory_gib(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
    )


def cuda_devices() -> list[CudaDevice]:
    """The CUDA devices that torch can use. Imports torch."""
    import torch

    devices = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        title = torch.cuda.get_device_name(index)
        devices.append(CudaDevice(f"cuda:{index}", title, _gib(total), _gib(free)))
    return devices


def may_have_gpu() -> bool:
    """False where no driver of a GPU is installed, so that torch need not be asked: importing it
    takes seconds."""
    if sys.platform != "linux" or Path("/dev/kfd").exists():  # AMD's
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _cpuinfo() -> dict[str, str]:
    """The first processor's fields of /proc/cpuinfo; empty without /proc."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def usable_cores() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_gib() -> float:
    try:
        return _gib(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return 0.0


def _gib(size: int) -> float:
    return round(size / 2**30, 1)


_WORK_NICENESS = 10


def yield_to_others() -> None:
    """Lower the priority of the calling thread and of the threads that it starts later.

    Rendering uses all cores. The event loop, and a browser on the same machine, must come first: a
    frame that is rendered a millisecond later is still in time, one that is painted a refresh later
    is not. Works on Linux, where each thread has its own niceness; elsewhere it does nothing.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _WORK_NICENESS)


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Torch computes on one thread meanwhile. For much work on little data, as loading a network
    or tracing it: there several threads mostly wait for each other, at full load. Imports torch."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
