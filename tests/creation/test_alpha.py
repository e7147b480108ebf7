"""A file with transparent parts says itself where the person is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.avatars.drawn_avatar import CountingModel
from tests.creation.drawn import DrawnFaceDetector, drawn
from wsavatar.avatars.format import read_avatar_file
from wsavatar.avatars.store import AvatarStore
from wsavatar.config import AvatarSettings
from wsavatar.creation import AvatarRequest, create_avatar

W, H = 320, 256


def cut_out(x: float = W / 2) -> Image.Image:
    """A face on shoulders; around them nothing."""
    mask = np.zeros((H, W), np.uint8)
    cv2.ellipse(mask, (int(x), 105), (60, 80), 0, 0, 360, 255, -1)
    cv2.ellipse(mask, (int(x), 290), (110, 110), 0, 0, 360, 255, -1)
    return Image.fromarray(
        np.dstack([drawn(W, H, (x, 115), 90), cv2.GaussianBlur(mask, (5, 5), 0)])
    )


def moving(path: Path) -> None:
    frames = [cut_out(W / 2 + shift) for shift in range(12)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, lossless=True)


@pytest.mark.parametrize("name", ["cut.png", "cut.webp"])
def test_a_cut_out_file_makes_an_avatar_for_any_background(tmp_path: Path, name: str) -> None:
    """A photo's alpha moves with its head, a clip's is that of each frame; no mask is computed."""
    cut_out().save(tmp_path / name) if name == "cut.png" else moving(tmp_path / name)
    made = create_avatar(
        tmp_path / name, tmp_path / "avatars", DrawnFaceDetector(), AvatarRequest()
    )
    assert read_avatar_file(made.folder).alpha == "alpha.mp4"
    settings = AvatarSettings(directory=tmp_path / "avatars", cache=tmp_path / "cache")
    store = AvatarStore(settings, CountingModel())
    for picture in store.get("cut", background="transparent").pictures[:10:5]:
        assert picture[:20, :20, 3].max() < 5 and picture[100:130, 150:170, 3].min() > 250
    for picture in store.get("cut", background="#0000ff").pictures[:10:5]:
        assert np.abs(picture[:20, :20].astype(int) - (0, 0, 255)).max() < 5


def test_an_alpha_channel_that_hides_nothing_is_not_kept(tmp_path: Path) -> None:
    """Many PNG files have one."""
    opaque = cut_out()
    opaque.putalpha(255)
    opaque.save(tmp_path / "cut.png")
    made = create_avatar(
        tmp_path / "cut.png", tmp_path / "avatars", DrawnFaceDetector(), AvatarRequest()
    )
    assert read_avatar_file(made.folder).alpha is None
    assert not (made.folder / "alpha.mp4").exists()
