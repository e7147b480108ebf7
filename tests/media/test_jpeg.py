"""JPEG: what a client decodes is what was encoded, with or without the native library."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from tests.drawn_faces import draw_face, face_landmarks
from wsavatar.media import jpeg


@pytest.fixture
def picture() -> np.ndarray:
    return draw_face(200, 160, face_landmarks((100, 70), 90))


@pytest.fixture
def fresh_encoder() -> Iterator[None]:
    jpeg._encoder.cache_clear()
    yield
    jpeg._encoder.cache_clear()


def decode(data: bytes) -> np.ndarray:
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def chroma_sampling(data: bytes) -> tuple[int, int]:
    """Horizontal and vertical sampling of luma, from the frame header (SOF0 or SOF2)."""
    start = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[start + 11] >> 4, data[start + 11] & 15


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def test_colours_survive_in_rgb_order(picture: np.ndarray) -> None:
    """The picture comes back in its own colours: red stays red."""
    assert psnr(decode(jpeg.encode(picture, 90)), picture) > 32


def test_chroma_is_halved_both_ways(picture: np.ndarray) -> None:
    """4:2:0, which every client decodes fastest."""
    assert chroma_sampling(jpeg.encode(picture)) == (2, 2)


def test_more_quality_costs_bytes_and_gives_fidelity(picture: np.ndarray) -> None:
    """The quality setting does what it says."""
    low, high = jpeg.encode(picture, 20), jpeg.encode(picture, 95)
    assert len(high) > len(low)
    assert psnr(decode(high), picture) > psnr(decode(low), picture) + 3


def test_views_and_odd_sizes_are_fine(picture: np.ndarray) -> None:
    """A cut-out of a larger picture encodes as itself, whatever its size."""
    cut = picture[3:78, 5:96]
    assert not cut.flags.c_contiguous
    assert psnr(decode(jpeg.encode(cut, 90)), cut) > 30


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_picture_is_refused(wrong: np.ndarray) -> None:
    """Another shape or type raises ValueError rather than read foreign memory."""
    with pytest.raises(ValueError, match="uint8"):
        jpeg.encode(wrong)


def test_threads_do_not_disturb_each_other(picture: np.ndarray) -> None:
    """Pictures encoded at once on several threads are the same as one by one."""
    pictures = [np.roll(picture, shift, axis=1) for shift in range(24)]
    alone = [jpeg.encode(one) for one in pictures]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(jpeg.encode, pictures)) == alone


def test_without_the_native_library_it_falls_back_with_one_warning(
    picture: np.ndarray,
    fresh_encoder: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without libturbojpeg OpenCV encodes, with one warning."""

    def missing() -> None:
        raise RuntimeError("Unable to locate turbojpeg library automatically")

    monkeypatch.setattr("turbojpeg.TurboJPEG", missing)
    with caplog.at_level(logging.WARNING):
        data = [jpeg.encode(picture, 90) for _ in range(3)]
    assert jpeg.encoder_name() == "opencv"
    assert psnr(decode(data[0]), picture) > 32
    assert chroma_sampling(data[0]) == (2, 2)
    assert [r.levelname for r in caplog.records if "libturbojpeg" in r.message] == ["WARNING"]
