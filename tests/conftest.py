"""Fixtures for all tests: the folder of sample recordings, and a clean environment."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    # Kernels run in Triton's interpreter; it must be chosen before anything imports Triton.
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Avatars that users of this machine made are no part of a test; nothing is written here.
os.environ["XDG_DATA_HOME"] = str(Path(tempfile.gettempdir(), f"wsavatar-test-{os.getpid()}"))


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
