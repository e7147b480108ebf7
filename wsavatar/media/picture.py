"""Picture files in: photographs, drawings and animated pictures as RGB arrays.

This module owns what Pillow reads: formats, orientation, colour profiles, transparency, and limits
that are checked before anything is decoded. It knows neither faces nor models.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import cache, partial
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from wsavatar.errors import WsavatarError
from wsavatar.media.constant_rate import Shown, Timed, at_constant_rate
from wsavatar.media.frame import BACKGROUND, fitted
from wsavatar.media.video import MAX_FRAMES, VideoInfo

__all__ = [
    "BACKGROUND",
    "PictureError",
    "is_animated",
    "is_picture",
    "open_animation",
    "read_still",
]

MAX_PIXELS = 80_000_000
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF", "BMP", "TIFF")
_ANIMATED = {"GIF", "WEBP", "PNG", "AVIF"}  # the frames of others (MPO, TIFF) do not move
_DEFAULT_DURATION_MS = 100  # what browsers take for a frame that states 10 ms or less
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    ImageCms.PyCMSError,
)


class PictureError(WsavatarError, ValueError):
    """A file cannot be read as a picture; the message names it and says why."""


@cache
def _formats() -> tuple[str, ...]:
    """Those that are taken and can be read here; HEIC with ``pip install pillow-heif``."""
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def is_picture(path: Path) -> bool:
    """Whether the file's content is a picture, whatever its name is. Reads its header only."""
    try:
        with Image.open(path, formats=_formats()):
            return True
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return True
    except _UNREADABLE:
        return False


def is_animated(path: Path) -> bool:
    """Whether a picture has more than one frame that are shown one after the other."""
    with _opened(path, MAX_PIXELS) as image, _reading(path):
        return image.format in _ANIMATED and getattr(image, "n_frames", 1) > 1


def read_still(
    file: Path | BytesIO, *, max_side: int, max_pixels: int = MAX_PIXELS, alpha: bool = False
) -> np.ndarray:
    """A picture of a file, or its content, upright, sRGB, scaled to ``max_side``: uint8 [H, W, 3].

    Of an animated one, the first frame. ``alpha``: one with transparency is [H, W, 4], its colours
    before grey as without. Raises PictureError.
    """
    with _opened(file, max_pixels) as image, _reading(file):
        # A JPEG can be decoded at an eighth to a half of its size, in as much less memory.
        image.draft(None, fitted(*image.size, max_side))
        return _rgb(image, max_side, alpha)


@contextmanager
def open_animation(
    path: Path,
    *,
    slowest: int,
    fastest: int,
    max_side: int,
    max_pixels: int = MAX_PIXELS,
    alpha: bool = False,
    go_on: Callable[[], None] = lambda: None,
) -> Iterator[tuple[VideoInfo, Iterator[Shown]]]:
    """An animated GIF, WebP, PNG or AVIF, as `wsavatar.media.video.open_video` gives a video.

    All of it is decoded once to learn how long it is, which may take minutes; ``go_on`` is called
    before each frame, and may raise. Raises PictureError.
    """
    with _opened(path, max_pixels) as image:
        times = _times_s(path, image, go_on)
        with _reading(path):
            image.seek(0)
            height, width = _rgb(image, max_side).shape[:2]
        count = len(times) - 1
        own = Fraction(count) / times[-1]
        fps = min(max(own.limit_denominator(1001), Fraction(slowest)), Fraction(fastest))

        def frames() -> Iterator[Timed]:
            for number, (start_s, end_s) in enumerate(pairwise(times)):
                with _reading(path):
                    image.seek(number)
                    picture = _rgb(image, max_side, alpha)
                yield Timed(start_s, end_s - start_s, partial(_same, picture))

        info = VideoInfo(width, height, fps, count, image.size, own)
        yield info, at_constant_rate(frames(), fps)


def _times_s(path: Path, image: Image.Image, go_on: Callable[[], None]) -> list[Fraction]:
    """When each frame begins, and when the last one ends."""
    with _reading(path):
        count = min(getattr(image, "n_frames", 1), MAX_FRAMES)
    times = [Fraction(0)]
    for number in range(count):
        go_on()
        with _reading(path):
            image.seek(number)
            image.load()  # a WebP says only now how long the frame is shown
            times.append(times[-1] + _duration_s(image))
    return times


def _same(picture: np.ndarray) -> np.ndarray:
    return picture


@contextmanager
def _opened(file: Path | BytesIO, max_pixels: int) -> Iterator[Image.Image]:
    with _reading(file):
        image = Image.open(file, formats=_formats())
    with image:
        width, height = image.size
        if width * height > max_pixels:
            raise _too_large(file, max_pixels, f"{width}x{height}, ")
        yield image


@contextmanager
def _reading(file: Path | BytesIO) -> Iterator[None]:
    """What Pillow and the disk say, as PictureError."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(file, MAX_PIXELS) from error
    except _UNREADABLE as error:
        if isinstance(file, BytesIO):
            raise PictureError("the picture cannot be read; send a JPEG, PNG or WebP") from error
        if not file.is_file():
            raise PictureError(f"{file}: no such file") from error
        raise PictureError(f"{file}: cannot be read as a picture ({error})") from error


def _too_large(file: Path | BytesIO, max_pixels: int, size: str = "") -> PictureError:
    limit = max_pixels // 1_000_000
    name = f"{file}:" if isinstance(file, Path) else "the picture"
    return PictureError(f"{name} is {size}over {limit} million pixels; scale it down")


def _duration_s(image: Image.Image) -> Fraction:
    stated = float(image.info.get("duration") or 0)
    return Fraction(round(stated) if stated > 10 else _DEFAULT_DURATION_MS, 1000)


def _rgb(image: Image.Image, max_side: int, keeps_alpha: bool = False) -> np.ndarray:
    """Of the frame that ``image`` stands at: upright, before grey, sRGB, scaled."""
    profile = image.info.get("icc_profile")
    frame = ImageOps.exif_transpose(image)
    if frame.mode.startswith("I;16"):
        frame = Image.fromarray((np.asarray(frame) >> 8).astype(np.uint8))
    has_alpha = frame.mode in ("LA", "RGBA", "PA", "La", "RGBa") or "transparency" in image.info
    alpha = None
    if has_alpha:
        frame = frame.convert("RGBA")
        alpha = frame.getchannel("A")
        frame = frame.convert("RGB")
    frame = _in_srgb(frame, profile)
    size = fitted(*frame.size, max_side)
    if alpha is not None:
        frame = Image.composite(frame, Image.new("RGB", frame.size, BACKGROUND), alpha)
    frame = _scaled(frame, size)
    if alpha is not None and keeps_alpha:
        frame.putalpha(_scaled(alpha, size))
    return np.array(frame)


def _scaled(frame: Image.Image, size: tuple[int, int]) -> Image.Image:
    return frame if frame.size == size else frame.resize(size, Image.Resampling.LANCZOS)


def _in_srgb(frame: Image.Image, profile: bytes | None) -> Image.Image:
    """Phones write Display P3, printers CMYK; a profile that cannot be used is ignored."""
    if profile and frame.mode in ("RGB", "CMYK", "L"):
        with suppress(ImageCms.PyCMSError, OSError, ValueError):
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(frame, source, target, outputMode="RGB")
            if converted is not None:
                return converted
    return frame.convert("RGB")
