"""The file that an avatar is made from: what it is, and its pictures within stated limits.

Knows files and their kinds; neither faces nor avatars' folders.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from wsavatar.avatars.format import AvatarError
from wsavatar.creation.request import UnfitFileError
from wsavatar.media.constant_rate import Shown
from wsavatar.media.picture import PictureError, is_animated, is_picture, open_animation, read_still
from wsavatar.media.video import VideoError, VideoInfo, open_video

__all__ = ["MAX_SIDE", "Source", "SourceLimits"]

MAX_SIDE = 1280
"""Larger pictures are scaled down to it: more pixels cost memory and time, and add no mouth."""
SLOWEST_FPS, FASTEST_FPS = 10, 30
_FOREVER_S = 1_000_000


@dataclass(frozen=True, slots=True)
class SourceLimits:
    """What a file may be at most; checked before it is decoded."""

    file_bytes: int = 2 * 1024**3
    pixels: int = 80_000_000
    """Of one picture."""
    seconds: float = 600.0


class Source:
    """One file. Raises UnfitFileError, in one sentence, for what is in it; else AvatarError.

    ``go_on`` is called while a long file is opened, and may raise.
    """

    def __init__(
        self, path: Path, limits: SourceLimits, go_on: Callable[[], None] = lambda: None
    ) -> None:
        self.path = path
        self._limits = limits
        self._go_on = go_on
        _check_file(path, limits)
        picture = is_picture(path)
        if not picture and _is_heic(path):
            raise AvatarError(
                f"{path}: is HEIC, which is not read here; pip install pillow-heif, or save it "
                "as JPEG"
            )
        with _said():
            self.is_moving = not picture or is_animated(path)
        self._is_picture = picture

    def still(self) -> np.ndarray:
        """The picture, uint8 [H, W, 3] RGB, upright; [H, W, 4] where parts are transparent."""
        with _said():
            return read_still(
                self.path, max_side=MAX_SIDE, max_pixels=self._limits.pixels, alpha=True
            )

    @contextmanager
    def moving(
        self,
        *,
        fastest: int = FASTEST_FPS,
        part_s: tuple[float, float] | None = None,
        alpha: bool = True,
    ) -> Iterator[tuple[VideoInfo, Iterator[Shown]]]:
        """The video's or animation's facts and pictures, as `still`'s, at a constant rate.

        ``alpha`` False: [H, W, 3] even where parts are transparent.
        """
        slowest = min(SLOWEST_FPS, fastest)
        with _said():
            if self._is_picture:
                with open_animation(
                    self.path,
                    slowest=slowest,
                    fastest=fastest,
                    max_side=MAX_SIDE,
                    max_pixels=self._limits.pixels,
                    alpha=alpha,
                    go_on=self._go_on,
                ) as (info, shown):
                    first, last = (round(at * info.fps) for at in part_s or (0, _FOREVER_S))
                    yield info, islice(shown, first, last)
                return
            with open_video(
                self.path,
                slowest=slowest,
                fastest=fastest,
                max_side=MAX_SIDE,
                part_s=part_s,
                alpha=alpha,
            ) as opened:
                yield opened


def _is_heic(path: Path) -> bool:
    """FFmpeg reads such a file as a video of its tiles."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:] in (b"heic", b"heix", b"heim", b"heis", b"mif1")


@contextmanager
def _said() -> Iterator[None]:
    """Errors of the readers as those of avatars."""
    try:
        yield
    except (PictureError, VideoError) as error:
        # What is not a picture was tried as a video.
        told = str(error).replace("be read as video", "be read as a photo or a video")
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno is not None:  # the system's: it may pass
            raise AvatarError(told) from error
        raise UnfitFileError(told) from error


def _check_file(path: Path, limits: SourceLimits) -> None:
    if path.is_dir():
        raise AvatarError(f"{path}: is a folder; name the photo or video in it")
    if not path.exists():
        raise AvatarError(f"{path}: no such file")
    if not path.is_file():
        raise AvatarError(f"{path}: is no regular file")
    if not os.access(path, os.R_OK):
        raise AvatarError(f"{path}: may not be read; change its permissions (chmod +r)")
    size = path.stat().st_size
    if size == 0:
        raise UnfitFileError(f"{path}: is empty")
    if size > limits.file_bytes:
        raise UnfitFileError(
            f"{path}: has {size / 1e6:.4g} MB, over {limits.file_bytes / 1e6:.4g} MB; "
            "cut it shorter or write it smaller"
        )
