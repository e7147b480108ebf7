"""For all tests: the sample recordings, a clean environment, and their order in two processes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

_PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))  # pytest -n 2

if not torch.cuda.is_available():
    # Kernels run in Triton's interpreter; it must be chosen before anything imports Triton.
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Avatars that users of this machine made are no part of a test; nothing is written here.
os.environ["XDG_DATA_HOME"] = str(Path(tempfile.gettempdir(), f"wsavatar-test-{os.getpid()}"))

LONGEST = (
    "tests/clients/test_stock_clients.py",
    "tests/test_style.py",
    "tests/bench/test_bench.py",
    "tests/integrations/test_frameworks.py",
    "tests/bench/test_bench_sessions.py",
    "tests/clients/test_upstream.py",
)
"""These files come first where several processes share the work, so that none ends much later."""


def pytest_configure(config: pytest.Config) -> None:
    """Several processes take whole files: a file's tests share servers and models."""
    if getattr(config.option, "dist", "no") == "load":
        config.option.dist, config.option.loadscopereorder = "loadfile", False


def pytest_itemcollected(item: pytest.Item) -> None:
    """What drives a browser runs alone."""
    if item.get_closest_marker("browser") is not None:
        item.add_marker("alone")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if _PROCESSES > 1:
        rank = {path: place for place, path in enumerate(LONGEST)}
        items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(LONGEST)))


@pytest.fixture(scope="session")
def samples_dir() -> Path:
    """Real recordings beside the checkout; tests that need them are skipped without."""
    directory = Path(__file__).parents[1].parent / "shared" / "samples"
    if not directory.is_dir():
        pytest.skip(f"no recordings at {directory}")
    return directory


@pytest.fixture(autouse=True)
def no_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Remove WSAVATAR_ variables of the shell, which would change settings."""
    for name in [name for name in os.environ if name.startswith("WSAVATAR_")]:
        monkeypatch.delenv(name)
    yield
