"""Pictures of a video in any order: those of decoding it from its start, in little memory."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.media.test_video import write
from wsavatar.media import video_pictures
from wsavatar.media.video import VideoError, read_video
from wsavatar.media.video_pictures import GROUP_FRAMES, UnfitVideoError, VideoPictures
from wsavatar.media.video_writer import VideoWriter

W, H, COUNT = 96, 64, 4 * GROUP_FRAMES + 3
FPS = Fraction(30_000, 1001)


def moving(count: int = COUNT) -> list[np.ndarray]:
    """Blurred coloured noise that moves, so that frames need each other and colours have edges."""
    random = np.random.default_rng(0)
    wide = random.integers(0, 256, (H // 4, W // 4 + count, 3), dtype=np.uint8)
    wide = wide.repeat(4, axis=0).repeat(4, axis=1)
    return [np.ascontiguousarray(wide[:, 3 * n : 3 * n + W]) for n in range(count)]


def written(path: Path, *, group_frames: int = GROUP_FRAMES, count: int = COUNT) -> Path:
    with VideoWriter(path, width=W, height=H, fps=FPS, crf=15, group_frames=group_frames) as video:
        for picture in moving(count):
            video.write(picture)
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("video") / "a.mp4")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first pictures of the groups that are decoded, in order."""
    seen: list[int] = []
    decode = VideoPictures._decode

    def watched(self: VideoPictures, group: video_pictures._Group) -> list[av.VideoFrame]:
        seen.append(group.first)
        return decode(self, group)

    monkeypatch.setattr(VideoPictures, "_decode", watched)
    return seen


def test_every_picture_is_the_decoded_videos_whatever_the_order(video: Path) -> None:
    """Bit for bit: forward, backward and jumping about."""
    info, frames = read_video(video)
    pictures = VideoPictures(video)
    assert len(pictures) == pictures.info.frame_count == COUNT
    assert (pictures.info.width, pictures.info.height, pictures.info.fps) == (W, H, info.fps)
    for index in [
        *range(COUNT),
        *reversed(range(COUNT)),
        *np.random.default_rng(1).permutation(COUNT),
    ]:
        np.testing.assert_array_equal(pictures[int(index)], frames[index])
    np.testing.assert_array_equal(np.stack(pictures[3:9]), frames[3:9])
    np.testing.assert_array_equal(pictures[-1], frames[-1])
    with pytest.raises(IndexError):
        pictures[COUNT]


@pytest.mark.parametrize(
    "region", [(0, 0, W, H), (32, 16, 48, 32), (0, 48, 16, 16), (80, 0, 16, 64), (33, 17, 31, 11)]
)
def test_a_part_has_the_pixels_of_the_whole(video: Path, region: tuple[int, int, int, int]) -> None:
    """Colours are stored at half the size, but a region's border shows none of it."""
    x, y, w, h = region
    _, frames = read_video(video)
    pictures = VideoPictures(video)
    for index in range(COUNT):
        part = pictures.part(index, region)
        np.testing.assert_array_equal(part, frames[index, y : y + h, x : x + w])


def test_a_cycle_decodes_each_group_once_a_way(
    video: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[int]
) -> None:
    """Forward and backward, though only two groups are kept."""
    monkeypatch.setattr(video_pictures, "_KEPT_BYTES", 0)
    pictures = VideoPictures(video)
    assert pictures.nbytes == 2 * GROUP_FRAMES * W * H * 2
    decoded.clear()
    for index in [*range(COUNT), *reversed(range(COUNT))]:
        pictures[index]
    first = list(range(0, COUNT, GROUP_FRAMES))
    assert decoded == [*first[1:], *reversed(first[:-2])]  # the ends were still there


def test_threads_that_want_the_same_pictures_wait_for_one_decoder(
    video: Path, decoded: list[int]
) -> None:
    """Sessions share what is decoded."""
    pictures = VideoPictures(video)
    decoded.clear()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(pictures.__getitem__, list(range(COUNT)) * 4))
    assert sorted(decoded) == list(range(GROUP_FRAMES, COUNT, GROUP_FRAMES))


def test_a_file_may_be_removed_but_not_written_to(tmp_path: Path) -> None:
    """What is open stays readable; a file that was cut off is an error of the picture alone."""
    path = written(tmp_path / "a.mp4")
    _, frames = read_video(path)
    pictures = VideoPictures(path)
    path.unlink()
    np.testing.assert_array_equal(pictures[COUNT - 1], frames[-1])
    path = written(tmp_path / "b.mp4")
    pictures = VideoPictures(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(VideoError, match="b.mp4"):
        pictures[COUNT - 1]
    np.testing.assert_array_equal(pictures[0], frames[0])


def varying(path: Path) -> Path:
    return write(path, [0, 40, 80, 150, 170, 200])


def wide_pixels(path: Path) -> Path:
    return write(path, [0, 40, 80], pixel_aspect=Fraction(4, 3))


def few_key_frames(path: Path) -> Path:
    return written(path, group_frames=0)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (few_key_frames, "over 16 frames between two key frames"),
        (varying, "its frame rate is not constant"),
        (wide_pixels, "not shown as they are stored"),
    ],
)
def test_an_unfit_video_is_refused_in_words(
    tmp_path: Path, make: Callable[[Path], Path], why: str
) -> None:
    """Nothing is shown that decoding from the start would not show."""
    with pytest.raises(UnfitVideoError, match=why):
        VideoPictures(make(tmp_path / "a.mp4"))
