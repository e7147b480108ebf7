"""Beards and moustaches: where they grow, and strands that follow the deformed skin.

Pure arrays; ``drawing`` puts them on the screen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wsavatar.training.looks.look import FacialHair
from wsavatar.training.looks.vectors import unit

__all__ = ["Strands", "growth", "grow"]

_STRANDS = 9000  # of a full beard


def _step(start: Any, end: Any, x: np.ndarray) -> np.ndarray:
    """Smooth step from 0 at ``start`` to 1 at ``end``; ``end`` may be the smaller."""
    t = np.clip((x - start) / (end - start), 0, 1)
    smooth: np.ndarray = t * t * (3 - 2 * t)
    return smooth


def growth(heads: Any, rest: np.ndarray, hair: FacialHair) -> np.ndarray:
    """How densely hair grows at points of the face at rest [..., 3]: 0 to 1."""
    across, y, z = np.abs(rest[..., 0]), rest[..., 1], rest[..., 2]
    lips = heads.V0[heads.LM[48:60]]
    order = [*range(0, 7)]
    top = np.interp(rest[..., 0], lips[order, 0], lips[order, 1])
    order = [0, *range(11, 5, -1)]
    bottom = np.interp(rest[..., 0], lips[order, 0], lips[order, 1])
    above_lips = _step(top + 0.04, top + 0.22, y)
    below_lips = _step(bottom - 0.15, bottom - 0.4, y)
    beside_lips = _step(2.55, 2.75, across)
    off_lips = np.maximum(np.maximum(above_lips, below_lips), beside_lips)
    skin = _step(0.8, 2.6, z) * _step(-10.6, -8.9, y - 0.04 * z) * off_lips

    line_x = [0, 1.5, 2.6, 3.2, 4.2, 5.4, 6.3, 6.8, 7.6]
    line = np.interp(across, line_x, [-4.5, -4.3, -3.7, -2.7, -2.4, -1.9, -0.5, 2.2, 2.4])
    full = _step(line + 0.35, line - 0.55, y) * _step(8.0, 7.3, across)
    if hair.beard == "full":
        beard = full
    elif hair.beard == "goatee":
        beard = full * _step(3.0, 2.2, across) * _step(-4.2, -4.6, y) * _step(4, 6.5, z)
    elif hair.beard == "chin":
        beard = full * _step(2.0, 1.3, across) * _step(-4.4, -5.0, y) * _step(5, 7, z)
    elif hair.beard == "chinstrap":
        jaw = np.interp(across, line_x, [-6.3, -6.1, -5.7, -5.5, -4.9, -3.5, -1.8, 1.6, 2.4])
        beard = full * _step(jaw + 0.5, jaw, y)
    elif hair.beard == "sideburns":
        beard = full * _step(4.3, 5.6, across)
    else:
        beard = np.zeros_like(y)
    if hair.moustache == "none":
        moustache = np.zeros_like(y)
    else:
        moustache = _step(-1.1, -1.65, y) * above_lips * _step(2.95, 2.45, across) * (y > -3.4)
        moustache *= 0.45 + 0.55 * _step(0.05, 0.5, across)
    if hair.moustache == "horseshoe" or (
        hair.beard in ("full", "goatee") and hair.moustache != "none"
    ):
        corner = _step(2.35, 2.7, across) * _step(3.7, 3.1, across) * _step(-2.0, -2.6, y)
        lowest = -7.0 if hair.moustache == "horseshoe" else -5.2
        moustache = np.maximum(moustache, corner * _step(lowest - 0.5, lowest, y))
    zone: np.ndarray = np.maximum(beard, moustache) * skin * (z > 0)
    return zone


def _frames(corners: np.ndarray, normals: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, ...]:
    """Roots [n, 3] and local axes [n, 3, 3] (rows: along an edge, across it, normal)."""
    roots = np.einsum("nk,nkd->nd", shares, corners)
    normal = unit(np.einsum("nk,nkd->nd", shares, normals))
    edge = corners[:, 1] - corners[:, 0]
    along = unit(edge - normal * (edge * normal).sum(-1, keepdims=True))
    return roots, np.stack([along, np.cross(normal, along), normal], 1)


class Strands:
    """Ribbons in the local axes of the skin under their roots."""

    def __init__(
        self, triangles: np.ndarray, shares: np.ndarray, local: np.ndarray, sides: np.ndarray,
        rest: np.ndarray, tone: np.ndarray,
    ) -> None:  # fmt: skip
        self.triangles = triangles  # [n, 3] vertices under each root
        self.shares = shares  # [n, 3] barycentric
        self.local = local  # [n, K, 3] points from the root
        self.sides = sides  # [n, K, 3] half widths
        self.rest = rest  # [n, 3] roots of the face at rest
        self.tone = tone  # [n] random, 0 to 1

    def vertices(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Ribbons on the deformed mesh: float32 [n, K, 2, 9] (place, tangent, normal)."""
        roots, axes = _frames(points[self.triangles], normals[self.triangles], self.shares)
        places = np.einsum("nkj,njd->nkd", self.local, axes) + roots[:, None]
        sides = np.einsum("nkj,njd->nkd", self.sides, axes)
        tangents = unit(np.gradient(places, axis=1))
        outwards = np.broadcast_to(axes[:, 2:3], places.shape)
        both = np.stack([places - sides, places + sides], 2)
        rest = np.stack([tangents, outwards], 2).reshape(*places.shape[:2], 1, 6)
        rest = np.broadcast_to(rest, (*places.shape[:2], 2, 6))
        return np.concatenate([both, rest], -1).astype(np.float32)

    def fixed(self) -> np.ndarray:
        """What does not change: float32 [n, K, 2, 5] (root at rest, share of length, tone)."""
        n, count = self.local.shape[:2]
        share = np.broadcast_to(np.linspace(0, 1, count)[None, :, None], (n, count, 1))
        roots = np.broadcast_to(self.rest[:, None], (n, count, 3))
        tone = np.broadcast_to(self.tone[:, None, None], (n, count, 1))
        row = np.concatenate([roots, share, tone], -1)[:, :, None]
        return np.broadcast_to(row, (n, count, 2, 5)).astype(np.float32)

    def indices(self) -> np.ndarray:
        """Triangles of the ribbons: int32 [m]."""
        n, count = self.local.shape[:2]
        start = np.arange(n)[:, None] * count * 2 + np.arange(count - 1)[None] * 2
        return (
            np.stack([start, start + 1, start + 2, start + 2, start + 1, start + 3], -1)
            .astype(np.int32)
            .ravel()
        )


def grow(heads: Any, head: Any, hair: FacialHair, scale: float = 1.0) -> Strands | None:
    """Grow the strands on a head. ``scale``: share of the strands, each wider instead."""
    rng = np.random.default_rng(hair.seed)
    triangles = heads.TRI[heads.TM == 0]
    rest = heads.V0[triangles]
    zone = growth(heads, rest.mean(1), hair) * (rest.mean(1)[:, 2] > 0)
    a, b, c = (head.base[triangles[:, k]] for k in range(3))
    weight = zone * np.linalg.norm(np.cross(b - a, c - a), axis=1)
    stubble = hair.length < 0.4
    full = weight.sum() / 110  # a full beard covers about this area
    count = int(_STRANDS * (1.5 if stubble else 1.0) * hair.density * min(1.0, full) ** 0.8 * scale)
    if count < 10:
        return None
    pick = rng.choice(len(triangles), count, p=weight / weight.sum())
    shares = rng.dirichlet([1, 1, 1], count)
    roots = np.einsum("nk,nkd->nd", shares, rest[pick])
    kept = rng.uniform(size=count) < np.clip(growth(heads, roots, hair) * 1.3, 0, 1)
    pick, shares, roots = pick[kept], shares[kept], roots[kept]
    normals = heads.normals(head.base)
    corners = triangles[pick]
    _, axes = _frames(head.base[corners], normals[corners], shares)
    places = _shapes(rng, hair, roots, axes[:, 2])
    tangents = unit(np.gradient(places, axis=1))
    across = unit(np.cross(tangents, np.broadcast_to(axes[:, 2:3], tangents.shape)))
    out = np.cross(across, tangents)
    tilt = rng.normal(0, 0.6, len(roots))[:, None, None]
    width = (0.028 if stubble else 0.045 + 0.012 * min(hair.length, 2.0)) / scale**0.5
    width = width * rng.uniform(0.6, 1.3, len(roots))
    taper = np.minimum(1, (1 - np.linspace(0, 1, places.shape[1])) * 2.0 + 0.12)
    sides = (across * np.cos(tilt) + out * np.sin(tilt)) * (width[:, None] * taper)[..., None] / 2
    return Strands(
        corners, shares,
        np.einsum("nkd,njd->nkj", places, axes), np.einsum("nkd,njd->nkj", sides, axes),
        roots, rng.uniform(0, 1, len(roots)),
    )  # fmt: skip


def _shapes(
    rng: np.random.Generator, hair: FacialHair, roots: np.ndarray, normal: np.ndarray
) -> np.ndarray:
    """Points of each strand from its root [n, K, 3], in the axes of the head at rest."""
    n = len(roots)
    across, y = np.abs(roots[:, 0]), roots[:, 1]
    side = np.where(across < 0.1, rng.choice([-1.0, 1.0], n), np.sign(roots[:, 0]))
    moustache = (y > -2.9) & (across < 3.0)
    clump = roots[rng.integers(0, n, max(1, n // 16))]
    nearest = _nearest(roots, clump)
    shared = rng.standard_normal((len(clump), 4))[nearest]
    count = 4 if hair.length < 0.4 else 7
    if hair.length < 0.4:
        length = hair.length * rng.uniform(0.5, 1.2, n)
    else:
        length = hair.length * (0.35 + 0.65 * _step(-2.0, -6.2, y)) * rng.uniform(0.55, 1.15, n)
        length *= 1 - 0.5 * _step(4.5, 7.0, across)
        longest = {"handlebar": 2.6}.get(hair.moustache, 1.25)
        trimmed = np.minimum(hair.length * 0.8, longest) * rng.uniform(0.7, 1.15, n)
        length = np.where(moustache, np.minimum(trimmed, 0.5 + 0.7 * across), length)
    down = np.stack([0.12 * side * _step(1, 5, across), -np.ones(n), 0.25 * np.ones(n)], 1)
    droop = 0.35 if hair.moustache == "handlebar" else 0.85
    outward = np.stack([side * (0.35 + 0.25 * across), -droop * np.ones(n), 0.1 * np.ones(n)], 1)
    fall = unit(np.where(moustache[:, None], outward, down) + 0.22 * shared[:, :3] / 1.5)
    fall = unit(fall + 0.18 * rng.standard_normal((n, 3)) * (0.5 + hair.curl))
    along = fall - normal * (fall * normal).sum(-1, keepdims=True)
    lift = np.where(moustache, 0.35, 0.55) * rng.uniform(0.5, 1.3, n)
    direction = unit(unit(along) + lift[:, None] * normal)
    step = (length / (count - 1))[:, None]
    points = [np.zeros((n, 3))]
    swing = rng.uniform(0, 2 * np.pi, n) * 0.3 + 2 * shared[:, 3]
    for k in range(1, count):
        share = k / (count - 1)
        wave = np.stack(
            [np.cos(swing + 2.3 * k), 0.3 * np.sin(swing + 1.7 * k), np.sin(swing + 2.3 * k)], 1
        )
        # Hair lies on the skin near its root, and hangs from there.
        wanted = unit(unit(along) * (1 - 0.5 * share) + fall * 0.9 * share + 0.28 * normal)
        direction = unit(direction * 0.6 + wanted * 0.4 + hair.curl * 0.5 * wave)
        if hair.moustache == "handlebar":
            curl_up = _step(0.55, 1.0, np.full(n, share)) * moustache
            direction = unit(direction + np.stack([0 * y, curl_up * 0.9, 0 * y], 1))
        points.append(points[-1] + direction * step)
    places = np.stack(points, 1)
    sunk = np.minimum((places * normal[:, None]).sum(-1, keepdims=True) - 0.02, 0)
    lifted: np.ndarray = places - sunk * normal[:, None]
    return lifted


def _nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Index of each point's nearest centre."""
    found = np.empty(len(points), np.int64)
    for first in range(0, len(points), 1000):
        part = points[first : first + 1000]
        found[first : first + 1000] = ((part[:, None] - centres[None]) ** 2).sum(-1).argmin(1)
    return found
