"""HDR pictures to SDR: PQ and HLG in BT.2020 to sRGB, as a screen of 203 nits would show them.

Formulas: SMPTE ST 2084, ITU-R BT.2100-2 (HLG with a system gamma of 1.2, at 1000 nits), BT.2087
(colours) and BT.2408 (white at 203 nits). Pure arithmetic.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

__all__ = ["HDR_TRANSFERS", "to_sdr"]

HDR_TRANSFERS = (16, 18)
"""PQ and HLG, as ITU-T H.273 numbers transfer characteristics."""

_PQ = 16
_WHITE_NITS, _HLG_PEAK_NITS = 203.0, 1000.0
_HLG_GAMMA = 1.2
_KNEE = 0.6  # of white: darker colours stay as they are, brighter ones are compressed below white
_LUMINANCE = np.array([[0.2627, 0.6780, 0.0593]], dtype=np.float32)
_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    dtype=np.float32,
)
_STEPS = 4096


def to_sdr(picture: np.ndarray, transfer: int) -> np.ndarray:
    """uint16 [H, W, 3] full-range RGB of BT.2020 -> uint8 [H, W, 3] sRGB.

    ``transfer`` is one of `HDR_TRANSFERS`.
    """
    light: np.ndarray = _linear(transfer)[picture]  # float32, 1 is white
    if transfer != _PQ:
        scene = cv2.transform(light, _LUMINANCE)
        light *= (_HLG_PEAK_NITS / _WHITE_NITS) * cv2.pow(scene, _HLG_GAMMA - 1)[..., None]
    light = np.maximum(cv2.transform(light, _TO_BT709), 0)
    brightest = light.max(axis=2)
    over = np.maximum(brightest - _KNEE, 0) / (1 - _KNEE)
    shown = np.minimum(brightest, _KNEE) + (1 - _KNEE) * (1 - np.exp(-over))
    light *= (shown / np.maximum(brightest, 1e-6))[..., None]
    return np.asarray(_srgb()[np.rint(light * (_STEPS - 1)).astype(np.uint16)])


@cache
def _linear(transfer: int) -> np.ndarray:
    """Light of each 16-bit code: over white for PQ, of the scene for HLG."""
    code = np.arange(65536) / 65535
    if transfer == _PQ:
        power = code ** (32 / 2523)
        low, high = np.maximum(power - 0.8359375, 0), 18.8515625 - 18.6875 * power
        light = 10_000 / _WHITE_NITS * (low / high) ** (16384 / 2610)
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    return np.asarray(light, dtype=np.float32)


@cache
def _srgb() -> np.ndarray:
    light = np.arange(_STEPS) / (_STEPS - 1)
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * coded), dtype=np.uint8)
