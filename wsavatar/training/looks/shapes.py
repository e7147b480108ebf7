"""Meshes of glasses, headwear and of things in front of the face, fitted to a head at rest.

Pure arrays in the renderer's head coordinates: cm, x to the picture's right, y up, z to the camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wsavatar.training.looks.look import Colour, Glasses, Headwear, Occluder
from wsavatar.training.looks.vectors import unit

__all__ = ["Finish", "Mesh", "glasses", "hair_outside", "headwear", "occluder"]

_CENTRE = np.array([0.0, 4.2, 0.3])  # of the skull


@dataclass(frozen=True, slots=True)
class Finish:
    """How a surface takes light."""

    roughness: float = 0.6
    reflectance: float = 0.03
    wrap: float = 0.1  # light that bends around: 0.4 for skin
    weave: float = 0.0  # strength of a knit pattern
    lens: float = 0.0  # above 0: a lens with this tint
    shine: float = 0.0  # of the lens


@dataclass(frozen=True, slots=True)
class Mesh:
    points: np.ndarray  # float [n, 3]
    triangles: np.ndarray  # int [m, 3]
    colours: np.ndarray  # float [n, 3]
    finish: Finish


def _grid(points: np.ndarray, colour: Colour | np.ndarray, finish: Finish, *, closed: bool) -> Mesh:
    """A surface from points [rows, columns, 3]; ``closed``: the last column meets the first."""
    rows, columns = points.shape[:2]
    r, c = np.meshgrid(
        np.arange(rows - 1), np.arange(columns if closed else columns - 1), indexing="ij"
    )
    a, b = r * columns + c, r * columns + (c + 1) % columns
    quads = np.stack([a, a + columns, b, b, a + columns, b + columns], -1)
    colours = np.broadcast_to(colour, points.shape)
    return Mesh(points.reshape(-1, 3), quads.reshape(-1, 3), colours.reshape(-1, 3), finish)


def _tube(
    path: np.ndarray, radius: Any, colour: Colour | np.ndarray, finish: Finish, *,
    closed: bool = False, flat: float = 1.0,
) -> Mesh:  # fmt: skip
    """A tube along a path [n, 3] with rounded ends; ``flat``: its extent to the camera."""
    n = len(path)
    radius = np.broadcast_to(radius, n).astype(float).copy()
    if not closed:
        ends = np.linspace(0, 1, 5)[1:]
        cap = np.sqrt(1 - ends**2)
        first = path[:1] - unit(path[1:2] - path[:1]) * radius[0] * ends[:, None]
        last = path[-1:] + unit(path[-1:] - path[-2:-1]) * radius[-1] * ends[:, None]
        path = np.vstack([first[::-1], path, last])
        radius = np.concatenate([radius[0] * cap[::-1], radius, radius[-1] * cap])
    along = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    along = unit(along)
    hint = np.array([0.0, 0.0, 1.0])
    if np.abs(along @ hint).mean() > 0.8:
        hint = np.array([0.0, 1.0, 0.0])
    side = unit(np.cross(along, hint))
    front = np.cross(side, along)
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ring = (
        np.cos(angle)[None, :, None] * side[:, None]
        + flat * np.sin(angle)[None, :, None] * front[:, None]
    )
    surface = path[:, None] + ring * radius[:, None, None]
    if closed:
        surface = np.concatenate([surface, surface[:1]])
    return _grid(surface, colour, finish, closed=True)


def _ball(centre: Any, radii: Any, colour: Colour | np.ndarray, finish: Finish) -> Mesh:
    polar = np.linspace(0, np.pi, 14)[:, None]
    around = np.linspace(0, 2 * np.pi, 20, endpoint=False)[None]
    sphere = np.stack(
        [
            np.sin(polar) * np.cos(around),
            np.cos(polar) + 0 * around,
            np.sin(polar) * np.sin(around),
        ],
        -1,
    )
    return _grid(np.asarray(centre) + sphere * np.asarray(radii), colour, finish, closed=True)


# ---------------------------------------------------------------- glasses


def _rim(kind: Glasses, angle: np.ndarray) -> np.ndarray:
    """The outline of one lens [n, 2], outer side at x > 0."""
    power = {"round": 2.0, "square": 4.5, "aviator": 2.4, "cat": 2.8, "half": 3.4}[kind.shape]
    c, s = np.cos(angle), np.sin(angle)
    outline = np.stack(
        [np.sign(c) * np.abs(c) ** (2 / power), np.sign(s) * np.abs(s) ** (2 / power)], -1
    ) * [kind.width, kind.height]
    x, y = outline[:, 0] / kind.width, outline[:, 1] / kind.height
    if kind.shape == "aviator":
        outline[:, 1] -= np.where(y < 0, 0.35 * kind.height * (0.4 + 0.6 * x) * -y, 0)
    elif kind.shape == "cat":
        outline[:, 1] += 0.3 * kind.height * np.clip(x, 0, 1) ** 2 * (y > -0.3)
        outline[:, 0] += 0.25 * np.clip(x, 0, 1) * np.clip(y, 0, 1)
    return outline


def glasses(base: np.ndarray, skin: np.ndarray, kind: Glasses) -> list[Mesh]:
    """Frame and lenses in front of the eyes. ``base``: the mesh; ``skin``: its face vertices."""
    face = base[skin]
    face = face[(face[:, 2] > 4) & (np.abs(face[:, 1] - 3) < 5)]
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    outline = _rim(kind, angle)
    middle = np.array([max(3.2, kind.width + 0.75), 3.15])
    bow = 0.03

    def depth(x: np.ndarray) -> np.ndarray:
        return front - bow * x**2

    front, rim = 10.9, outline + middle
    for x, y in rim[::2]:
        close = np.abs(face[:, :2] - (x, y)).max(1) < 0.35
        if close.any():
            front = max(front, face[close, 2].max() + 0.1 + bow * x**2)
    front = min(front, 12.6)
    finish = Finish(roughness=0.25, reflectance=0.05, wrap=0.0)
    lens = Finish(lens=max(kind.tint, 0.01), shine=kind.shine)
    meshes = []
    for side in (-1.0, 1.0):
        ring = np.stack([side * rim[:, 0], rim[:, 1], depth(rim[:, 0])], -1)
        thick = kind.thickness * (1 + 0.5 * (np.sin(angle) > 0) * (kind.shape == "cat"))
        if kind.shape == "half":
            thick = np.where(np.sin(angle) > -0.15, kind.thickness, 0.025)
        meshes.append(_tube(ring, thick, kind.colour, finish, closed=True, flat=0.8))
        levels = np.linspace(1, 0, 5)[:, None, None]
        flat = outline[None] * levels + middle
        surface = np.stack([side * flat[..., 0], flat[..., 1], depth(flat[..., 0]) + 0.03], -1)
        meshes.append(_grid(surface, kind.colour, lens, closed=True))
        outer = middle + [kind.width * 0.97, kind.height * 0.45]
        ear = np.array([side * 8.25, 4.3, 0.3])
        hinge = np.array([side * (outer[0] + 0.15), outer[1], depth(outer[:1])[0] - 0.1])
        knee = np.array([hinge[0] + side * 0.25, hinge[1], hinge[2] - 0.8])
        arm = np.array(
            [
                hinge,
                knee,
                *(knee + (ear - knee) * t for t in (0.4, 0.75, 1.0)),
                ear + [0, -1.5, -1.2],
            ]
        )
        meshes.append(_tube(arm, min(0.2, kind.thickness * 1.2), kind.colour, finish))
    inner = middle[0] - kind.width * 0.98
    x = np.linspace(-inner, inner, 9)
    bridge = np.stack([x, middle[1] + 0.55 + 0.35 * (1 - (x / inner) ** 2), depth(x) + 0.05], -1)
    meshes.append(_tube(bridge, max(0.07, kind.thickness), kind.colour, finish))
    return meshes


# ---------------------------------------------------------------- headwear


class _Skull:
    """The distance of the head's surface from the skull's centre, by direction."""

    def __init__(self, heads: Any, base: np.ndarray) -> None:
        rest = heads.V0[:11248]
        ear = (np.abs(rest[:, 0]) > 8.2) & (rest[:, 1] < 4.4) & (rest[:, 2] > -2)
        offset = base[:11248][~ear] - _CENTRE
        self.radius = np.linalg.norm(offset, axis=1)
        self.tree = heads.cKDTree(offset / self.radius[:, None])

    def surface(self, direction: np.ndarray, smooth: int) -> np.ndarray:
        """Radii of a grid of unit directions [rows, columns, 3]; columns go around."""
        _, nearest = self.tree.query(direction, k=5)
        radius = self.radius[nearest].mean(-1)
        for _ in range(smooth):
            across = (np.roll(radius, 1, 1) + np.roll(radius, -1, 1)) / 2
            down = (np.vstack([radius[:1], radius[:-1]]) + np.vstack([radius[1:], radius[-1:]])) / 2
            radius = np.maximum(radius * 0.5, 0.25 * across + 0.25 * down + 0.5 * radius)
        result: np.ndarray = radius
        return result


def _rim_height(kind: Headwear, z: np.ndarray) -> np.ndarray:
    """Height of the rim of a hat, by depth: lower at the back."""
    front, slope = {
        "beanie": (8.1, 0.36), "cap": (8.5, 0.26), "hat": (8.3, 0.22), "headband": (8.0, 0.30),
        "turban": (8.1, 0.34),
    }[kind.kind]  # fmt: skip
    height: np.ndarray = front - kind.lower + slope * (z - 9.5)
    return height


def hair_outside(kind: Headwear, points: np.ndarray) -> np.ndarray:
    """Which points of hair [n, 3] the headwear leaves free."""
    if kind.kind == "scarf":
        return np.zeros(len(points), bool)
    free: np.ndarray = points[:, 1] < _rim_height(kind, points[:, 2]) + 0.15
    if kind.kind == "headband":
        free |= points[:, 1] > _rim_height(kind, points[:, 2]) + 2.6
    return free


def headwear(heads: Any, base: np.ndarray, kind: Headwear) -> list[Mesh]:
    """A hat, cap, scarf or band around the head."""
    rng = np.random.default_rng(kind.seed)
    skull = _Skull(heads, base)
    if kind.kind == "scarf":
        return _scarf(rng, skull, kind)
    around = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    rows = np.linspace(0, 1, 22)
    rim = _rim_elevation(kind, skull, around)
    elevation = rim[None] + (np.pi / 2 - rim[None]) * rows[:, None]
    direction = np.stack(
        [np.cos(elevation) * np.sin(around), np.sin(elevation), np.cos(elevation) * np.cos(around)],
        -1,
    )
    radius = skull.surface(direction, 14)
    wool = Finish(roughness=0.9, reflectance=0.015, wrap=0.15, weave=0.9)
    cloth = Finish(roughness=0.8, reflectance=0.02, wrap=0.1, weave=0.35)
    colours = np.broadcast_to(np.array(kind.colour), direction.shape).copy()
    if kind.kind == "beanie":
        fold = rows[:, None] < 0.3
        radius = radius + 0.55 + 0.35 * fold + 0.5 * rng.uniform(0, 2) * rows[:, None] ** 3
        radius *= 1 + 0.006 * np.sin(around * 48) * (rows[:, None] < 0.95)
        colours[fold[:, 0]] = kind.trim
        return [_grid(_CENTRE + direction * radius[..., None], colours, wool, closed=True)]
    if kind.kind == "turban":
        wraps = np.sin(rows[:, None] * 16 + 1.2 * np.cos(around)[None] + rng.uniform(0, 6))
        radius = (
            radius + 1.0 + 0.8 * np.sin(np.pi * np.minimum(rows * 1.3, 1))[:, None] + 0.16 * wraps
        )
        return [_grid(_CENTRE + direction * radius[..., None], colours, cloth, closed=True)]
    if kind.kind == "headband":
        wide = rng.uniform(0.1, 0.22)
        part = direction[rows < wide]
        return [
            _grid(
                _CENTRE + part * (radius[rows < wide] + 0.55)[..., None],
                colours[rows < wide],
                cloth,
                closed=True,
            )
        ]
    radius = radius + 0.5 + 0.3 * np.sin(np.pi * rows)[:, None]
    crown = _CENTRE + direction * radius[..., None]
    if kind.kind == "cap":
        visor = _visor(crown[0], around, rng.uniform(4.5, 6.5))
        seams = 0.93 + 0.07 * np.abs(np.cos(around * 3)) ** 0.1
        return [
            _grid(crown, colours * seams[None, :, None], cloth, closed=True),
            _grid(visor, kind.trim, cloth, closed=False),
        ]
    lift = rng.uniform(1.5, 4.0)
    flat = np.clip(rows * 1.25, 0, 1)[:, None]
    crown[..., 1] += lift * np.sin(flat * np.pi / 2)
    colours[rows < 0.22] = kind.trim
    out = np.linspace(0, rng.uniform(3.5, 7.5), 8)[:, None, None]
    level = crown[0] - _CENTRE * [0, 0, 1]
    away = unit(level * [1, 0, 1])
    wave = rng.uniform(-0.12, 0.05) + 0.06 * np.sin(around * 2 + rng.uniform(0, 6))[None, :, None]
    brim = crown[:1] + out * away[None] + np.array([0, 1, 0]) * out * (wave + 0.012 * out)
    return [_grid(crown, colours, cloth, closed=True), _grid(brim, kind.colour, cloth, closed=True)]


def _rim_elevation(kind: Headwear, skull: _Skull, around: np.ndarray) -> np.ndarray:
    """Angle above the skull's centre at which each column meets the rim."""
    elevation = np.full_like(around, 0.3)
    for _ in range(12):
        direction = np.stack(
            [
                np.cos(elevation) * np.sin(around),
                np.sin(elevation),
                np.cos(elevation) * np.cos(around),
            ],
            -1,
        )
        place = _CENTRE + direction * (skull.surface(direction[None], 0)[0] + 0.5)[:, None]
        elevation += 0.08 * (_rim_height(kind, place[:, 2]) - place[:, 1])
        elevation = np.clip(elevation, -0.9, 1.2)
    smooth: np.ndarray = (np.roll(elevation, 1) + 2 * elevation + np.roll(elevation, -1)) / 4
    return smooth


def _visor(rim: np.ndarray, around: np.ndarray, length: float) -> np.ndarray:
    """The visor of a cap: from the front of its rim forwards and a little down."""
    turned = (around + np.pi) % (2 * np.pi) - np.pi
    order = np.argsort(turned)
    front = order[np.abs(turned[order]) < 1.05]
    edge, share = rim[front], turned[front] / 1.05
    out = np.linspace(0, 1, 8)[:, None]
    reach = length * np.sqrt(np.clip(1 - share**2, 0, 1))[None] * out
    visor = np.repeat(edge[None], 8, 0)
    visor[..., 2] += reach * 0.95
    visor[..., 1] -= reach * 0.22 + 0.9 * (share**2)[None] * out * 0.6
    return visor


def _scarf(rng: np.random.Generator, skull: _Skull, kind: Headwear) -> list[Mesh]:
    """A scarf around face, ears and neck: a surface from the face's outline to the back."""
    around = np.linspace(0, 2 * np.pi, 120, endpoint=False)  # from the right over the top
    rows = np.linspace(0, 1, 30)
    up = np.sin(around)
    opening = np.where(up > 0, 0.70 - 0.1 * kind.lower, 1.06) * np.abs(up) + 0.86 * (1 - np.abs(up))
    polar = opening[None] + (np.pi - opening[None]) * rows[:, None]
    direction = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * up, np.cos(polar)], -1)
    radius = skull.surface(direction, 18)
    folds = np.sin(around * 9 + 3 * np.sin(rows * 4)[:, None] + rng.uniform(0, 6)) * rows[:, None]
    radius = radius + 0.35 + 0.75 * np.sin(np.minimum(rows * 3, np.pi / 2))[:, None] + 0.13 * folds
    below = np.clip(-up, 0, 1)[None] * np.clip(rows * 2, 0, 1)[:, None]
    ears = np.exp(-(((direction[..., 1] + 0.15) / 0.3) ** 2)) * np.abs(direction[..., 0]) ** 4
    radius += 2.0 * below + 0.9 * ears
    cloth = Finish(roughness=0.85, reflectance=0.02, wrap=0.12, weave=0.25)
    head = _grid(_CENTRE + direction * radius[..., None], kind.colour, cloth, closed=True)
    height = np.linspace(0, 1, 12)[:, None]
    turned = around[None]
    ring = np.stack(
        [(6.6 + 6.5 * height**1.5) * np.cos(turned), -6.9 - 9 * height + 0 * turned,
         0.2 + (7.6 + 3.5 * height**1.5) * np.sin(turned)], -1
    )  # fmt: skip
    ring[..., 2] = np.where(ring[..., 2] > 0, ring[..., 2] * 0.95, ring[..., 2])
    pleats = 0.3 * np.sin(turned * 7 + 5 * height + rng.uniform(0, 6)) * height
    ring *= 1 + 0.05 * pleats[..., None]
    return [head, _grid(ring, kind.colour, cloth, closed=True)]


# ---------------------------------------------------------------- things in front of the face


def occluder(base: np.ndarray, skin: np.ndarray, kind: Occluder, tone: Colour) -> list[Mesh]:
    """A hand on the face, a mug, a microphone or a phone. ``tone``: linear colour of the skin."""
    if kind.kind == "hand":
        return _hand(base[skin], kind, tone)
    x, y = kind.place
    c, s = np.cos(kind.turn), np.sin(kind.turn)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    glossy = Finish(roughness=0.3, reflectance=0.05)
    if kind.kind == "microphone":
        at = np.array([x, -7.4 + 0.6 * y, 14.2])
        stem = at + (turn @ np.array([[0, -t, 0.15 * t] for t in (1.0, 3, 8, 14)]).T).T
        mesh = Finish(roughness=0.5, reflectance=0.08, weave=0.7)
        return [
            _ball(at, (1.9, 2.1, 1.9), kind.colour, mesh),
            _tube(stem, 1.1, (0.03, 0.03, 0.03), glossy),
        ]
    if kind.kind == "mug":
        angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        wall = np.array([[0.0, 0.0], [3.9, 0.0], [4.0, 8.5], [3.7, 8.6], [3.5, 2.0], [0.0, 1.8]])
        cup = np.stack(
            [wall[:, :1] * np.cos(angle), wall[:, 1:] + 0 * angle, wall[:, :1] * np.sin(angle)], -1
        )
        cup = (cup - [0, 8.5, 0]) @ turn.T + [x + kind.side, -6.0 + 0.5 * y, 16.6]
        return [_grid(cup, kind.colour, glossy, closed=True)]
    at = np.array([5.2 * kind.side + x, -5.5 + y, 13.8])
    return [_box((3.6, 7.2, 0.45), turn, at, kind.colour, glossy)]


def _box(half: Any, turn: np.ndarray, at: np.ndarray, colour: Colour, finish: Finish) -> Mesh:
    """A box of half sizes [3]; its faces share no points, so that its edges are sharp."""
    square = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]], float)
    faces = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            faces.append(np.roll(square * [1, 1, sign], axis, 1))
    points = np.concatenate(faces) * half @ turn.T + at
    quads = np.arange(0, 24, 4)[:, None] + [0, 1, 2, 0, 2, 3]
    colours = np.broadcast_to(np.array(colour), points.shape)
    return Mesh(points, quads.reshape(-1, 3), colours, finish)


def _hand(face: np.ndarray, kind: Occluder, tone: Colour) -> list[Mesh]:
    """A hand whose fingers lie on cheek, chin or mouth; it comes from below."""
    face = face[face[:, 2] > 0]
    finish = Finish(roughness=0.55, reflectance=0.025, wrap=0.35)
    skin, red = np.array(tone), np.array(tone) * [1.05, 0.78, 0.74]
    lean = -0.35 * kind.side + kind.turn
    along = np.array([np.sin(lean), np.cos(lean), 0])
    across = np.array([along[1], -along[0], 0]) * -kind.side
    knuckles = np.array([3.6 * kind.side + kind.place[0], -6.3 + 0.7 * kind.place[1], 0.0])

    def on_face(point: np.ndarray, above: float) -> float:
        near = ((face[:, :2] - point[:2]) ** 2).sum(1) < 1.2
        return float(face[near, 2].max()) + above if near.any() else 7.5 + above

    meshes = []
    lengths, widths = (5.6, 6.6, 6.9, 6.0), (0.66, 0.76, 0.78, 0.74)
    roots = []
    for k in range(4):
        shares = np.linspace(0, 1, 12)
        path = np.array(
            [
                knuckles
                + across * (k - 1.5) * 1.62
                + along * lengths[k] * s
                + across * 0.25 * (k - 1.5) * s
                for s in shares
            ]
        )
        depth = np.array([on_face(p, widths[k] * 0.75) for p in path])
        for _ in range(3):
            depth = np.convolve(np.pad(depth, 2, mode="edge"), np.ones(5) / 5, "valid")
        path[:, 2] = depth + 0.5 * np.sin(np.pi * shares) * 0.8
        bulge = 1 + 0.08 * np.cos((shares - 0.38) * 14) * (shares < 0.9)
        radius = widths[k] * (1 - 0.22 * shares) * bulge
        blush = np.clip(np.cos((shares - 0.42) * 9), 0, 1)[:, None] * 0.5 + 0.5 * (
            shares[:, None] > 0.85
        )
        ends = np.concatenate([np.zeros((4, 1)), blush, np.full((4, 1), 0.5)])
        colour = (skin + (red - skin) * ends)[:, None]
        meshes.append(_tube(path, radius, colour, finish, flat=0.9))
        roots.append(path[0])
    middle = np.mean(roots, 0)
    wrist = middle - along * 8.5 + [1.5 * kind.side, -1, 0.5]
    palm = np.linspace(0, 1, 10)[:, None]
    path = middle + along * 0.8 + (wrist - middle - along * 0.8) * palm
    width = np.interp(palm[:, 0], [0, 0.25, 0.6, 1], [2.9, 3.2, 3.0, 2.4])
    meshes.append(_tube(path, width, skin, finish, flat=0.42))
    thumb = middle + np.array(
        [along * -4.5 - across * 2.4 * s + along * 3.2 * s**0.7 for s in np.linspace(0, 1.6, 8)]
    )
    thumb[:, 2] += 0.8
    meshes.append(_tube(thumb, np.linspace(1.05, 0.72, 8), skin, finish))
    arm = wrist + np.array(
        [[1.6 * kind.side * t, -3.2 * t, -0.6 * t] for t in np.linspace(0, 5, 6)]
    )
    meshes.append(_tube(arm, np.linspace(2.4, 3.6, 6), skin, finish, flat=0.8))
    return meshes
