"""Picture files in: upright, opaque, in sRGB, within limits that are checked before decoding."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsavatar.media.frame import BACKGROUND
from wsavatar.media.picture import (
    PictureError,
    is_animated,
    is_picture,
    open_animation,
    read_still,
)

LEFT, RIGHT = (200, 40, 40), (40, 40, 200)


def halves(width: int = 96, height: int = 64) -> Image.Image:
    """Red on the left, blue on the right."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[:, : width // 2], picture[:, width // 2 :] = LEFT, RIGHT
    return Image.fromarray(picture)


def near(colour: np.ndarray, wanted: tuple[int, ...]) -> bool:
    return bool(np.abs(colour.astype(int) - wanted).max() <= 12)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tif", "a.gif", "a.avif"])
def test_formats_are_read_whatever_the_name_says(tmp_path: Path, name: str) -> None:
    """By content: a PNG named .jpg is a PNG."""
    path = tmp_path / name
    halves().save(path)
    path = path.rename(tmp_path / "a.jpg")
    assert is_picture(path) and not is_animated(path)
    picture = read_still(path, max_side=1280)
    assert picture.shape == (64, 96, 3) and near(picture[32, 20], LEFT)


def test_a_phone_that_was_held_upright(tmp_path: Path) -> None:
    """EXIF orientation 6: the stored picture is turned clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    halves().save(tmp_path / "a.jpg", exif=exif, quality=95)
    picture = read_still(tmp_path / "a.jpg", max_side=1280)
    assert picture.shape == (96, 64, 3)
    assert near(picture[20, 32], LEFT) and near(picture[76, 32], RIGHT)


def test_large_pictures_are_scaled(tmp_path: Path) -> None:
    """To the longer side; small ones stay as they are."""
    halves(1500, 1000).save(tmp_path / "a.jpg")
    assert read_still(tmp_path / "a.jpg", max_side=300).shape == (200, 300, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_grey(tmp_path: Path, mode: str) -> None:
    """Not black, which is what hides under the alpha of most pictures."""
    picture = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    picture.paste((200, 200, 200, 255), (0, 0, 32, 64))
    picture.convert(mode).save(tmp_path / "a.png")
    found = read_still(tmp_path / "a.png", max_side=1280)
    assert near(found[32, 10], (200, 200, 200)) and near(found[32, 50], BACKGROUND)
    layered = read_still(tmp_path / "a.png", max_side=1280, alpha=True)
    assert (layered[..., :3] == found).all()
    assert layered[32, 10, 3] == 255 and layered[32, 50, 3] == 0


def test_what_is_transparent_stays_grey_when_it_is_scaled(tmp_path: Path) -> None:
    """Not black: an avatar of the picture has these colours in its original background."""
    layered = np.array(halves(200, 100).convert("RGBA"))
    layered[:, 100:, 3] = 0
    Image.fromarray(layered).save(tmp_path / "a.png")
    opaque, kept = (read_still(tmp_path / "a.png", max_side=50, alpha=keeps) for keeps in (0, 1))
    assert near(opaque[10, 40], BACKGROUND) and (kept[..., :3] == opaque).all()
    assert kept[10, 5, 3] == 255 and kept[10, 40, 3] == 0


def test_sixteen_bits_and_grey(tmp_path: Path) -> None:
    """A 16-bit grey PNG keeps its brightness."""
    Image.fromarray(np.full((40, 40), 128 * 256, np.uint16)).save(tmp_path / "a.png")
    assert near(read_still(tmp_path / "a.png", max_side=1280)[5, 5], (128, 128, 128))


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_animations_are_shown_at_a_constant_rate(tmp_path: Path, name: str) -> None:
    """Each frame about as long as the file says: a period shows the frame nearest in time."""
    frames = [Image.new("RGB", (64, 48), (level, level, level)) for level in (40, 120, 220)]
    frames[0].save(
        tmp_path / name, save_all=True, append_images=frames[1:], duration=[200, 400, 200]
    )
    assert is_animated(tmp_path / name)
    with open_animation(tmp_path / name, slowest=10, fastest=30, max_side=1280) as (info, shown):
        levels = [int(picture[0, 0, 0]) for _, picture in shown]
    assert (info.width, info.height, info.fps) == (64, 48, 10)
    shares = [sum(abs(level - wanted) <= 6 for level in levels) for wanted in (40, 120, 220)]
    assert levels == sorted(levels) and len(levels) == sum(shares) == 8
    np.testing.assert_allclose(shares, [2, 4, 2], atol=1)


def test_errors_of_whom_it_is_read_for_are_their_own(tmp_path: Path) -> None:
    """A reader's block may raise what it likes: only what reading says is about the file."""
    frames = [Image.new("RGB", (64, 48), (level, 0, 0)) for level in (40, 120)]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    with pytest.raises(ValueError, match="^not my face$"):
        with open_animation(path, slowest=10, fastest=30, max_side=1280) as (_, shown):
            next(shown)
            raise ValueError("not my face")


def test_a_picture_too_large_is_not_decoded(tmp_path: Path) -> None:
    """A small file may claim any size; the error has both."""
    size = struct.pack(">II5B", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", size), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        data += struct.pack(">I", len(body)) + kind + body
        data += struct.pack(">I", zlib.crc32(kind + body))
    path = tmp_path / "bomb.png"
    path.write_bytes(data)
    with pytest.raises(PictureError, match=r"bomb\.png: is .*over 80 million pixels"):
        read_still(path, max_side=1280)
    halves(200, 100).save(path)
    with pytest.raises(PictureError, match="200x100, over 0 million"):
        read_still(path, max_side=1280, max_pixels=10_000)


@pytest.mark.parametrize("kind", ["cut off", "text", "empty"])
def test_what_cannot_be_read_is_one_error(tmp_path: Path, kind: str) -> None:
    """Named, and never a traceback of a decoder."""
    path = tmp_path / "a.jpg"
    halves(400, 300).save(path)
    data = path.read_bytes()
    path.write_bytes(
        {"cut off": data[: len(data) // 3], "text": b"Dear diary,", "empty": b""}[kind]
    )
    assert is_picture(path) == (kind == "cut off")
    with pytest.raises(PictureError, match=r"a\.jpg: cannot be read as a picture"):
        read_still(path, max_side=1280)
