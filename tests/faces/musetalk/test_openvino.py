"""The OpenVINO backend: it computes what torch computes, and trusts its cache only when whole."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("openvino")

from wsavatar.faces.musetalk.openvino_backend import (  # noqa: E402
    CompiledStage,
    Precision,
    StageConfig,
    StageSource,
    compile_stages,
)


class Blend(nn.Module):
    """Two inputs, a convolution, and a shape that only the batch changes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, picture: Tensor, weight: Tensor) -> Tensor:
        return torch.relu(self.conv(picture)) * weight[:, :, None, None]


class Factory:
    """Counts how often something had to be converted."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> list[StageSource]:
        self.calls += 1
        example = (torch.zeros(2, 3, 8, 8), torch.zeros(2, 4))
        return [StageSource("blend", Blend().eval(), example)]


def compiled(
    cache: Path,
    factory: Factory,
    key: str = "model",
    config: StageConfig = StageConfig(),  # noqa: B008 - frozen
    threads: int = 1,
) -> CompiledStage:
    return compile_stages(factory, {"blend": config}, key=key, cache=cache, threads=threads)[
        "blend"
    ]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the stage in it, which tests read: a conversion takes seconds."""
    cache = tmp_path_factory.mktemp("cache")
    compiled(cache, Factory())
    return cache


def inputs(batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(batch)
    left, right = (rng.normal(size=(batch, *row)).astype(np.float32) for row in ((3, 8, 8), (4,)))
    return left, right


@torch.inference_mode()
def expected(batch: int) -> np.ndarray:
    made: np.ndarray = Blend().eval()(*map(torch.from_numpy, inputs(batch))).numpy()
    return made


def test_any_batch_gives_what_torch_gives(converted: Path) -> None:
    """Sizes it was made for and sizes it was not, all to float rounding."""
    stage = compiled(converted, Factory())
    stage.specialise(4)
    for batch in (1, 3, 4, 7):
        assert np.allclose(stage(*inputs(batch)), expected(batch), atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("rows_alone", [False, True])
def test_rows_keep_their_order_however_they_are_shared_out(
    converted: Path, rows_alone: bool, threads: int
) -> None:
    """Over groups of cores, in waves of eight where each runs alone: each row gets its own."""
    stage = compiled(converted, Factory(), config=StageConfig("f32", rows_alone), threads=threads)
    stage.specialise(2)
    stage.specialise(5)
    for batch in (1, 2, 5, 19):
        assert np.allclose(stage(*inputs(batch)), expected(batch), atol=1e-5)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_a_row_that_runs_alone_is_the_same_in_any_company(
    converted: Path, precision: Precision
) -> None:
    """Bit for bit, whatever the batch and its place in it."""
    stage = compiled(converted, Factory(), config=StageConfig(precision, True), threads=2)
    left, right = inputs(11)
    whole = stage(left, right)
    for row in range(11):
        assert np.array_equal(stage(left[row : row + 1], right[row : row + 1])[0], whole[row])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives each thread a priority")
def test_what_computes_yields_to_the_event_loop(converted: Path) -> None:
    """Threads that OpenVINO starts have a lower priority, though the main thread started it."""
    code = """
import contextlib, os, sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.faces.musetalk.test_openvino import Factory, StageConfig, compiled, inputs
before = set(os.listdir("/proc/self/task"))
stage = compiled(Path(sys.argv[1]), Factory(), config=StageConfig("f32", True), threads=2)
stage(*inputs(8))
new = set(os.listdir("/proc/self/task")) - before
nices = []
for thread in new:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        nices.append(os.getpriority(os.PRIO_PROCESS, int(thread)))
print(sorted(nices))
"""
    root = str(Path(__file__).parents[3])
    found = subprocess.run(
        [sys.executable, "-c", code, str(converted), root],
        capture_output=True,
        text=True,
        check=True,
    )
    nices = json.loads(found.stdout)
    assert nices and min(nices) >= 10


def test_a_result_is_the_callers(converted: Path) -> None:
    """The next call does not write into the last one's result."""
    stage = compiled(converted, Factory())
    first = stage(*inputs(2))
    kept = first.copy()
    left, right = inputs(2)
    stage(left + 1, right)
    assert np.array_equal(first, kept)


def test_any_thread_may_call(converted: Path) -> None:
    """Calls at once wait for each other; none gets another's result."""
    stage, made = compiled(converted, Factory()), {}

    def call(batch: int) -> None:
        made[batch] = stage(*inputs(batch))

    threads = [threading.Thread(target=call, args=(batch,)) for batch in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.allclose(made[batch], expected(batch), atol=1e-5) for batch in range(1, 9))


def test_the_second_start_converts_nothing(tmp_path: Path) -> None:
    """What was converted is kept, for the same model only."""
    factory = Factory()
    compiled(tmp_path, factory)
    assert np.allclose(compiled(tmp_path, factory)(*inputs(2)), expected(2), atol=1e-5)
    assert factory.calls == 1
    compiled(tmp_path, factory, key="another model")
    assert factory.calls == 2


@pytest.mark.parametrize("name", ["blend.bin", "blend.xml", "blend.json"])
@pytest.mark.parametrize("damage", ["changed", "emptied", "removed"])
def test_a_damaged_cache_is_built_again(
    converted: Path, tmp_path: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A flipped byte, an empty file, a missing one: never trusted, never fatal, and mended."""
    factory = Factory()
    cache = shutil.copytree(converted, tmp_path / "cache")
    (path,) = cache.rglob(name)
    content = bytearray(path.read_bytes())
    if damage == "changed":
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    elif damage == "emptied":
        path.write_bytes(b"")
    else:
        path.unlink()
    with caplog.at_level(logging.WARNING):
        stage = compiled(cache, factory)
    assert np.allclose(stage(*inputs(3)), expected(3), atol=1e-5)
    assert factory.calls == 1
    assert damage == "removed" or "built again" in caplog.text
    compiled(cache, factory)
    assert factory.calls == 1


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The next start converts again, and nothing is said to be kept or damaged."""
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    with caplog.at_level(logging.INFO):
        stage = compiled(blocked, Factory())
    assert np.allclose(stage(*inputs(2)), expected(2), atol=1e-5)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "done at every start" in caplog.text
