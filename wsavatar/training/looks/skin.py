"""Changes to a head's skin texture and mesh: age, make-up, lips, the shade under a beard.

They are made before a head's first picture. This module knows no drawing.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from wsavatar.training.looks.look import FacialHair, Lips, Skin
from wsavatar.training.looks.strands import growth

__all__ = ["paint_skin", "shape_lips"]

_FOLDS = (  # lines of age in rest coordinates (|x|, y): points, width, depth
    ([(1.75, 0.1), (2.5, -1.2), (3.1, -2.6), (3.35, -3.7)], 0.13, 1.0),
    ([(2.75, -3.9), (3.0, -4.9), (2.9, -6.0)], 0.12, 0.7),
    ([(1.5, 2.4), (2.6, 1.65), (3.8, 1.7), (4.8, 2.3)], 0.10, 0.5),
    ([(1.6, 2.0), (2.8, 1.0), (4.2, 0.9), (5.2, 1.6)], 0.12, 0.4),
    ([(5.0, 3.7), (5.8, 4.2), (6.6, 4.9)], 0.07, 0.6),
    ([(5.0, 3.4), (5.9, 3.4), (6.8, 3.6)], 0.07, 0.6),
    ([(5.0, 3.1), (5.8, 2.6), (6.5, 2.1)], 0.07, 0.6),
    ([(0.45, 5.0), (0.55, 6.2)], 0.08, 0.6),
    ([(0.35, -1.6), (0.4, -2.3)], 0.05, 0.3),
    ([(0.95, -1.6), (1.05, -2.4)], 0.05, 0.35),
    ([(1.5, -1.7), (1.65, -2.6)], 0.05, 0.35),
    ([(0.0, -5.5), (0.9, -5.45), (1.7, -5.9)], 0.16, 0.5),
)


def _linear(srgb: np.ndarray) -> np.ndarray:
    linear: np.ndarray = np.where(srgb < 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return linear


def _encoded(linear: np.ndarray) -> np.ndarray:
    linear = np.clip(linear, 0, 1)
    bright = 1.055 * linear ** (1 / 2.4) - 0.055
    encoded: np.ndarray = np.where(linear < 0.0031308, linear * 12.92, bright)
    return encoded


def _near(points: np.ndarray, centre: tuple[float, float, float], radius: float) -> np.ndarray:
    """A soft ball on both sides of the face, 1 at its centre."""
    offset = np.stack([np.abs(points[..., 0]), points[..., 1], points[..., 2]], -1) - centre
    near: np.ndarray = np.exp(-(offset**2).sum(-1) / radius**2)
    return near


def _line(points: np.ndarray, line: list[tuple[float, float]], width: float) -> np.ndarray:
    """A soft line through (|x|, y) points that fades at its ends."""
    at = np.stack([np.abs(points[..., 0]), points[..., 1]], -1)
    nearest = np.full(points.shape[:-1], 1e9, np.float32)
    fade = np.ones(points.shape[:-1], np.float32)
    for k, (a, b) in enumerate(zip(line, line[1:], strict=False)):
        start, along = np.array(a), np.array(b) - np.array(a)
        share = np.clip(((at - start) @ along) / (along @ along), 0, 1)
        distance = np.linalg.norm(at - start - share[..., None] * along, axis=-1)
        closer = distance < nearest
        place = (k + share) / (len(line) - 1)
        fade = np.where(closer, np.sin(np.pi * np.clip(0.08 + 0.84 * place, 0, 1)), fade)
        nearest = np.where(closer, distance, nearest)
    soft: np.ndarray = np.exp(-((nearest / width) ** 2)) * fade
    return soft


def paint_skin(
    heads: Any, head: Any, skin: Skin, lips: Lips, facial_hair: FacialHair | None
) -> None:
    """Change the head's textures: colour and relief (``img``), oil and lips (``aux``)."""
    size = len(head.img)
    rng = np.random.default_rng(skin.seed)
    mapped = head.R.uvmap(0, size)
    known, rest = mapped[..., 3] > 0.5, mapped[..., :3]
    colour = _linear(head.img[..., :3].astype(np.float32) / 255)
    relief = head.img[..., 3].astype(np.float32) / 255
    lip = head.lipmask[..., None]
    front = (known & (rest[..., 2] > 2))[..., None]

    if skin.wrinkles > 0:
        shift = 0.09 * heads.noise2(rng, size, 14, 2)[..., None] * np.array([1, 1, 0])
        warped = rest + shift.astype(np.float32)
        folds = np.zeros((size, size), np.float32)
        for line, width, depth in _FOLDS:
            folds += depth * rng.uniform(0.5, 1.2) * _line(warped, line, width * 1.3)
        folds *= skin.wrinkles * front[..., 0] * (1 - head.lipmask)
        relief -= 0.30 * folds
        colour *= 1 - folds[..., None] * np.array([0.16, 0.24, 0.26])
        relief += skin.wrinkles * 0.05 * heads.noise2(rng, size, size // 12, 2)
    for amount, tone, radius in (
        (skin.spots, np.array([0.3, 0.42, 0.5]), (2.0, 7.0)),
        (skin.blemishes, np.array([0.02, 0.35, 0.32]), (1.5, 5.0)),
    ):
        spots = _spots(rng, size, known & (rest[..., 2] > 3), int(70 * amount), radius)
        colour *= 1 - (spots[..., None] * (1 - lip)) * tone
    if skin.blush > 0:
        glow = skin.blush * _near(rest, (4.9, 0.2, 8.6), 2.3)[..., None]
        colour *= 1 - glow * np.array([-0.05, 0.3, 0.25])
    if skin.eye_shadow > 0:
        lid = np.clip(1.3 * skin.eye_shadow * _near(rest, (3.3, 4.6, 9.4), 1.15), 0, 0.85)
        colour += (np.array(skin.shadow_colour) * 0.8 - colour) * lid[..., None] * front
    if lips.colour is not None:
        share = np.clip(lip * lips.strength, 0, 1)
        shaded = np.array(lips.colour) * (0.6 + 0.8 * colour.mean(-1, keepdims=True))
        colour += (shaded - colour) * share
    if facial_hair is not None:
        zone = growth(heads, rest, facial_hair) * front[..., 0]
        grain = 0.75 + 0.25 * heads.noise2(rng, size, size // 4, 1)
        strength = np.clip(0.30 + 0.4 * facial_hair.length, 0, 0.72) * facial_hair.density
        share = np.clip(zone * strength * grain, 0, 0.85)[..., None]
        hair = np.array(facial_hair.colour) * (1 - facial_hair.grey) + 0.3 * facial_hair.grey
        colour += (1.3 * hair - colour) * share

    head.img[..., :3] = np.clip(_encoded(colour) * 255 + 0.5, 0, 255)
    head.img[..., 3] = np.clip(relief * 255 + 0.5, 0, 255)
    gloss = head.aux[..., 0] + 160 * lips.gloss * head.lipmask
    head.aux[..., 0] = np.clip(gloss, 0, 255)


def _spots(
    rng: np.random.Generator, size: int, where: np.ndarray, count: int, radius: tuple[float, float]
) -> np.ndarray:
    """Soft round spots, float32 [size, size] in 0 to 1."""
    drawn = np.zeros((size, size), np.float32)
    for _ in range(count):
        x, y = (int(v) for v in rng.integers(0, size, 2))
        if where[y, x]:
            r = rng.uniform(*radius) * size / 1024
            cv2.circle(drawn, (x, y), max(1, round(r)), float(rng.uniform(0.3, 1)), -1, cv2.LINE_AA)
    return cv2.GaussianBlur(drawn, (0, 0), 1.2 * size / 1024)


def shape_lips(heads: Any, head: Any, thickness: float) -> None:
    """Make the lips thinner (below 0) or fuller."""
    rest = heads.V0
    upper, lower = rest[heads.LM[61:64]], rest[[heads.LM[i] for i in (67, 66, 65)]]
    corners = rest[[heads.LM[60], heads.LM[64]]]
    middle = np.vstack([corners[:1], (upper + lower) / 2, corners[1:]])
    part = np.where(
        (np.abs(rest[:, 0]) < 3.2) & (rest[:, 2] > 8.5) & (rest[:, 1] > -6.2) & (rest[:, 1] < -1.2)
        & (np.arange(len(rest)) < 14062)
    )[0]  # fmt: skip
    height = rest[part, 1] - np.interp(rest[part, 0], middle[:, 0], middle[:, 1])
    near = np.exp(-((height / 1.1) ** 2)) * np.clip((3.2 - np.abs(rest[part, 0])) / 0.7, 0, 1)
    head.base[part, 1] += thickness * near * height
    head.base[part, 2] += 0.25 * thickness * near
