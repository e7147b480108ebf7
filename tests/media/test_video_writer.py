"""Video files out: whole, of even size, or an error that names the file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from wsavatar.media.video import VideoError, read_video
from wsavatar.media.video_writer import VideoWriter


def test_odd_sizes_gain_one_row_or_column(tmp_path: Path) -> None:
    """H.264 4:2:0 has even sizes; the edge is repeated, nothing is scaled."""
    path = tmp_path / "odd.mp4"
    picture = np.zeros((47, 33, 3), np.uint8)
    picture[:, :, 0] = np.linspace(40, 200, 33)
    with VideoWriter(path, width=33, height=47, fps=Fraction(25)) as video:
        for _ in range(3):
            video.write(picture)
    info, frames = read_video(path)
    assert (info.width, info.height, len(frames)) == (34, 48, 3)
    assert np.abs(frames[1, :47, :33].astype(int) - picture).mean() < 3


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        (None, pytest.raises(VideoError, match=r"full\.mp4.*no space")),
        (KeyError("mine"), pytest.raises(KeyError, match="mine")),
    ],
)
def test_a_disk_that_fills_up_at_the_end_is_an_error(tmp_path: Path, mistake, told) -> None:
    """A VideoError with the file's name, unless the caller's own mistake came first."""
    with told, VideoWriter(tmp_path / "full.mp4", width=32, height=32, fps=Fraction(25)) as video:
        video.write(np.zeros((32, 32, 3), np.uint8))
        real = video._container
        video._container = FullDisk(real)
        if mistake is not None:
            raise mistake
    real.close()


class FullDisk:
    """A container that can be written, but for its end."""

    def __init__(self, container) -> None:
        self.mux = container.mux

    def close(self) -> None:
        raise OSError(28, "no space left on device")
