"""``python -m wsavatar.bench.frame_formats PICTURE``: what a frame costs in each format.

The picture has an alpha channel: transparent frames are made of it, opaque ones for JPEG. Times are
those of one processor core; the encoders are the server's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsavatar.media.matting import cut_out
from wsavatar.media.picture import read_still
from wsavatar.render.encoders import encoder_for

__all__ = ["main", "measured"]

_REPEATS = 20
_MOUTH = (10 / 32, 15 / 32, 22 / 32, 25 / 32)
"""Left, top, right and bottom, of a picture's sides: as a client gets with ``region`` "mouth"."""


def measured(picture: np.ndarray, codec: str, quality: int) -> tuple[float, int]:
    """Milliseconds of processor time, and bytes, of one picture."""
    encoder = encoder_for(codec)
    data = encoder.encode(picture, quality)
    begun_s = time.process_time()
    for _ in range(_REPEATS):
        encoder.encode(picture, quality)
    return 1000 * (time.process_time() - begun_s) / _REPEATS, len(data)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--quality", type=int, default=85)
    chosen = parser.parse_args(arguments)
    picture = read_still(chosen.picture, max_side=4096, alpha=True)
    if picture.shape[2] != 4:
        parser.error(f"{chosen.picture} has no alpha channel")
    picture = cut_out(picture[..., :3].copy(), picture[..., 3].copy())
    height, width = picture.shape[:2]
    left, top, right, bottom = (
        int(edge * side) for edge, side in zip(_MOUTH, (width, height) * 2, strict=True)
    )
    part = picture[top:bottom, left:right].copy()
    for name, one in (("whole", picture), ("mouth", part)):
        for codec in ("jpeg", "webp", "png"):
            shown = one[..., :3].copy() if codec == "jpeg" else one
            ms, size = measured(shown, codec, chosen.quality)
            shape = f"{shown.shape[1]}x{shown.shape[0]}"
            print(f"{name} {shape:>9} {codec:5} {ms:6.1f} ms {size / 1000:7.1f} kB")


if __name__ == "__main__":
    main()
