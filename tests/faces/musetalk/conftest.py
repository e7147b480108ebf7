"""What the tests of MuseTalk share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from wsavatar.faces.musetalk.random import write_random_model


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch's threads spin for each other, which takes seconds on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest model of the official layout, with random weights."""
    directory = tmp_path_factory.mktemp("weights") / "mini"
    write_random_model(directory, size="mini")
    return directory
