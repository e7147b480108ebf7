"""The bench: its figures come from the renderer itself, and failed frames are no figures."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.fake_model import FakeModel, make_avatar
from wsavatar.bench import BenchError, _batch_sizes, _table, measure
from wsavatar.config import RenderSettings


def test_every_figure_is_measured() -> None:
    """Stages, frames per second at each batch size, and the first frame, ready for JSON."""
    model = FakeModel()
    report = measure([model], make_avatar(), RenderSettings(), 4, 1.0, directory=Path("mini"))
    assert report.frames == 25
    assert set(report.stages_ms) == {"features", "generate", "paste", "jpeg"}
    assert all(ms > 0 for ms in report.stages_ms.values())
    assert [row.batch_size for row in report.throughput] == [1, 2, 4]
    assert all(row.frames_per_s > 0 for row in report.throughput)
    assert 0 < report.first_frame.median_ms <= report.first_frame.p95_ms
    assert report.first_frame.chunks >= 20
    assert json.loads(json.dumps(asdict(report)))["machine"]["cores"] >= 1
    text = _table(report)
    assert "UNet and VAE" in text and "batch 4" in text and "p95" in text


def test_the_batch_asked_for_is_the_batch_that_runs() -> None:
    """Figures at batch 4 are measured in batches of 4, not of what the server would grow to."""
    model = FakeModel()
    settings = RenderSettings(batch_size=16, max_batch_size=32)
    measure([model], make_avatar(), settings, 4, 1.0, directory=Path("mini"))
    assert max(map(len, model.batches)) == 4


def test_a_model_that_fails_gives_no_figures() -> None:
    """A frame that was dropped must not count as a fast one."""
    model = FakeModel()
    stages = 3 * 25  # the frames of the stages' repetitions pass; then the device breaks

    real = model.generate

    def breaks(latents, condition):
        nonlocal stages
        stages -= len(condition)
        if stages < 0:
            raise RuntimeError("out of memory")
        return real(latents, condition)

    model.generate = breaks
    with pytest.raises(BenchError, match="could not be rendered"):
        measure([model], make_avatar(), RenderSettings(), 1, 1.0, directory=Path("mini"))


@pytest.mark.parametrize(("greatest", "sizes"), [(1, [1]), (4, [1, 2, 4]), (6, [1, 2, 4, 6])])
def test_batches_double_up_to_the_greatest(greatest: int, sizes: list[int]) -> None:
    """1, 2, 4, … and the one asked for."""
    assert _batch_sizes(greatest) == sizes
