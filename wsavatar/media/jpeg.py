"""RGB pictures to JPEG bytes, as fast as the machine can.

libturbojpeg where it is installed; elsewhere OpenCV's encoder, which is slower, and a warning that
says so once. Both are called without shared state, so any thread may encode at any time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

__all__ = ["encode", "encoder_name"]

_log = logging.getLogger(__name__)
_Encoder = Callable[[np.ndarray, int], bytes]


def encode(rgb: np.ndarray, quality: int = 85) -> bytes:
    """Encode uint8 [H, W, 3] RGB as a baseline 4:2:0 JPEG, quality 1 to 100.

    Raises ValueError where the picture has another shape or type.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise ValueError(f"a picture is uint8 [H, W, 3], not {rgb.dtype} {rgb.shape}")
    return _encoder()[1](np.ascontiguousarray(rgb), quality)


def encoder_name() -> str:
    """``turbojpeg`` or ``opencv``."""
    return _encoder()[0]


@cache
def _encoder() -> tuple[str, _Encoder]:
    try:
        return "turbojpeg", _turbojpeg()
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        _log.warning(
            "libturbojpeg is not usable (%s): encoding with OpenCV, which is slower. "
            "Install it with: apt-get install libturbojpeg0",
            error,
        )
        return "opencv", _opencv_encode


def _turbojpeg() -> _Encoder:
    from turbojpeg import (  # type: ignore[import-untyped]
        TJPF_RGB,
        TJSAMP_420,
        TurboJPEG,
    )

    # One compressor handle is made and destroyed inside each call, so this object has no state.
    library = TurboJPEG()

    def encode_turbo(rgb: np.ndarray, quality: int) -> bytes:
        data: bytes = library.encode(
            rgb, quality=quality, pixel_format=TJPF_RGB, jpeg_subsample=TJSAMP_420
        )
        return data

    return encode_turbo


def _opencv_encode(rgb: np.ndarray, quality: int) -> bytes:
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    ]
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    if not ok:
        raise ValueError(f"OpenCV could not encode a picture of {rgb.shape}")
    return data.tobytes()
