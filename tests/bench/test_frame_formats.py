"""What a frame costs in each format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsavatar.bench.frame_formats import main


def test_each_format_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whole frames and mouths, in time and bytes; a picture without alpha is refused."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 4), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    main([str(tmp_path / "a.png")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines][::3] == [
        ["whole", "96x64", "jpeg"],
        ["mouth", "36x20", "jpeg"],
    ]
    assert len(lines) == 6 and all(line.endswith(" kB") for line in lines)
    Image.fromarray(noise[..., :3].copy()).save(tmp_path / "b.png")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "b.png")])
