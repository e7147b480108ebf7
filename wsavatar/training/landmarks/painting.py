"""Painting on rendered heads: glasses, beards, hats, hair, make-up, hands; and faces drawn by hand.

All in the plane, by the 68 points, with random shapes and colours: the detector must not depend on
what a face wears or on how it is drawn. Pictures are float32 [h, w, 4], RGB multiplied by alpha,
all from 0 to 1, and are changed in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

__all__ = ["decorate", "draw_face"]

_JAW, _LEFT_EYE, _RIGHT_EYE = slice(0, 17), slice(36, 42), slice(42, 48)
_OUTER_LIPS, _INNER_LIPS = slice(48, 60), slice(60, 68)
_HAIR = np.array(
    [[0.02, 0.02, 0.02], [0.12, 0.07, 0.04], [0.3, 0.18, 0.1], [0.6, 0.45, 0.25], [0.5, 0.15, 0.05],
     [0.6, 0.6, 0.6], [0.9, 0.88, 0.85]]
)  # fmt: skip
_SKIN = np.array(
    [[0.96, 0.84, 0.76], [0.9, 0.72, 0.6], [0.8, 0.6, 0.46], [0.6, 0.42, 0.3], [0.36, 0.24, 0.18]]
)


class _Face:
    """What the painters need to know of a face: its points, its axes and its size."""

    def __init__(self, points: np.ndarray) -> None:
        self.points = points.astype(np.float64)
        eyes = self.points[_LEFT_EYE].mean(0), self.points[_RIGHT_EYE].mean(0)
        self.bridge, chin = self.points[27], self.points[8]
        self.height = float(np.linalg.norm(self.bridge - chin))
        self.up = (self.bridge - chin) / max(self.height, 1e-6)
        self.right = np.array([-self.up[1], self.up[0]])
        self.eyes = eyes
        across = (self.points - self.bridge) @ self.right
        self.left_end, self.right_end = float(across.min()), float(across.max())

    def at(
        self, across: np.ndarray | float, upwards: np.ndarray | Sequence[float] | float
    ) -> np.ndarray:
        """Points from the nose bridge, in parts of the height from the chin to it."""
        u, v = np.broadcast_arrays(np.asarray(across, float), np.asarray(upwards, float))
        where: np.ndarray = self.bridge + self.height * (
            u[..., None] * self.right + v[..., None] * self.up
        )
        return where


def _fill(shape: tuple[int, ...], *polygons: np.ndarray) -> np.ndarray:
    mask = np.zeros(shape[:2], np.uint8)
    for polygon in polygons:
        cv2.fillPoly(mask, [np.round(polygon * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask.astype(np.float32) / 255


def _line(
    shape: tuple[int, ...], points: np.ndarray, width: float, closed: bool = False
) -> np.ndarray:
    mask = np.zeros(shape[:2], np.uint8)
    cv2.polylines(
        mask, [np.round(points * 16).astype(np.int32)], closed, 255, max(1, round(width)),
        cv2.LINE_AA, 4,
    )  # fmt: skip
    return mask.astype(np.float32) / 255


def _paint(picture: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> None:
    keep = 1 - mask[..., None]
    picture[..., :3] = picture[..., :3] * keep + mask[..., None] * colour
    picture[..., 3:] = picture[..., 3:] * keep + mask[..., None]


def _colour(rng: np.random.Generator, table: np.ndarray, spread: float = 0.05) -> np.ndarray:
    weights = rng.dirichlet(np.full(len(table), 0.3))
    mixed: np.ndarray = np.clip(weights @ table + rng.normal(0, spread, 3), 0, 1)
    return mixed


def _any_colour(rng: np.random.Generator) -> np.ndarray:
    colour: np.ndarray = rng.uniform(0, 1) * rng.uniform(0.1, 1, 3)
    return colour


def _strands(
    rng: np.random.Generator, shape: tuple[int, ...], up: np.ndarray, colour: np.ndarray
) -> np.ndarray:
    """A texture of hair along ``up``."""
    noise: np.ndarray = rng.normal(0, 1, shape[:2]).astype(np.float32)
    length = int(rng.integers(5, 14))
    kernel = np.zeros((length, length), np.float32)
    middle = (length - 1) / 2
    turned = up * middle
    cv2.line(
        kernel, tuple(np.round(middle - turned).astype(int).tolist()),
        tuple(np.round(middle + turned).astype(int).tolist()), 1.0,
    )  # fmt: skip
    noise = cv2.filter2D(noise, -1, kernel / kernel.sum())
    noise = noise / (noise.std() + 1e-6)
    hair: np.ndarray = np.clip(colour * (1 + rng.uniform(0.15, 0.5) * noise[..., None]), 0, 1)
    return hair


def _glasses(picture: np.ndarray, face: _Face, rng: np.random.Generator) -> None:
    shape, colour = picture.shape, _any_colour(rng) * 0.7
    thickness = face.height * rng.uniform(0.012, 0.05)
    tint = rng.uniform(0.6, 1) if rng.uniform() < 0.12 else rng.uniform(0, 0.25)
    power, wide, high = rng.uniform(2, 5), rng.uniform(0.85, 1.25), rng.uniform(0.55, 1.0)
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.stack([np.cos(turn), np.sin(turn)], 1)
    ring = np.sign(ring) * np.abs(ring) ** (2 / power)
    glass = np.clip(colour + rng.uniform(-0.2, 0.4), 0, 1)
    edges = []
    for corners, middle in ((slice(36, 40, 3), face.eyes[0]), (slice(42, 46, 3), face.eyes[1])):
        a, b = face.points[corners]
        half = float(np.linalg.norm(b - a)) * wide
        outline = (
            middle - face.up * 0.03 * face.height
            + ring[:, :1] * half * face.right + ring[:, 1:] * max(half, 0.3 * face.height)
            * high * face.up
        )  # fmt: skip
        _paint(picture, _fill(shape, outline) * tint, glass)
        if rng.uniform() < 0.3:  # a reflection
            streak = _fill(shape, outline) * _line(
                shape, np.stack([middle - half, middle + half * rng.uniform(-1, 1, 2)]), half * 0.3
            )
            _paint(picture, streak * rng.uniform(0.2, 0.8), np.ones(3))
        _paint(picture, _line(shape, outline, thickness, True), colour)
        along = outline @ face.right
        edges.append((outline[along.argmin()], outline[along.argmax()]))
    bars = [
        (edges[0][1], edges[1][0]),
        (face.points[0], edges[0][0]),
        (edges[1][1], face.points[16]),
    ]
    for a, b in bars:
        _paint(picture, _line(shape, np.stack([a, b]), thickness), colour)


def _beard(picture: np.ndarray, face: _Face, rng: np.random.Generator) -> None:
    shape, p, kind = picture.shape, face.points, rng.uniform()
    lips = _fill(shape, p[_OUTER_LIPS])
    longer = face.up * face.height * rng.uniform(-0.02, 0.35)
    mask: np.ndarray = np.zeros(shape[:2], np.float32)
    if kind < 0.6:  # a beard, on the whole jaw or on the chin
        first = int(rng.integers(1, 7))
        outer = (
            p[first : 17 - first] - longer * np.sin(np.linspace(0, np.pi, 17 - 2 * first))[:, None]
        )
        low = p[57] - face.up * 0.06 * face.height * rng.uniform(0, 1)
        inner = np.stack(
            [p[16 - first], (p[54] + p[13]) / 2, p[54], low, p[48], (p[48] + p[3]) / 2]
        )
        mask = np.maximum(mask, _fill(shape, np.concatenate([outer, inner])))
    if kind > 0.35 or rng.uniform() < 0.6:  # a moustache
        reach, drop = rng.uniform(0, 0.16), rng.uniform(-0.05, 0.22)
        left, right = (
            p[48] - (reach * face.right + drop * face.up) * face.height,
            p[54] + (reach * face.right - drop * face.up) * face.height,
        )
        upper = np.stack(
            [left, (p[48] + p[31]) / 2, p[31], p[33], p[35], (p[54] + p[35]) / 2, right]
        )
        under = np.stack([p[53], p[52], p[51], p[50], p[49]])
        under = under - face.up * face.height * rng.uniform(-0.02, 0.07)
        shape_of = _fill(shape, np.concatenate([upper, under]))
        mask = np.maximum(mask, shape_of)
        lips = lips * (1 - shape_of * float(rng.uniform() < 0.6))
    soft = face.height * rng.uniform(0.01, 0.06)
    mask = cv2.GaussianBlur(mask, (0, 0), soft) * (1 - 0.9 * lips)
    ragged = cv2.GaussianBlur(rng.normal(0, 1, shape[:2]).astype(np.float32), (0, 0), 1.5) * 0.6
    mask = np.clip(mask * (1 + ragged) * rng.uniform(0.6, 1.4), 0, 1) * rng.uniform(0.5, 1)
    hair = _strands(rng, shape, face.up, _colour(rng, _HAIR))
    _paint(picture, mask, hair)


def _hat(picture: np.ndarray, face: _Face, rng: np.random.Generator) -> None:
    shape, colour = picture.shape, _any_colour(rng)
    low, high = rng.uniform(0.28, 0.6), rng.uniform(0.9, 1.6)
    left, right = (
        face.left_end / face.height - rng.uniform(0, 0.2),
        face.right_end / face.height + rng.uniform(0, 0.2),
    )
    turn = np.linspace(0, 1, 16)
    bow = rng.uniform(-0.12, 0.12)
    across = left + (right - left) * turn
    rim = face.at(across, low + bow * np.sin(np.pi * turn))
    dome = face.at(
        across[::-1] * rng.uniform(0.6, 1.2), low + (high - low) * np.sin(np.pi * turn) ** 0.5
    )
    dome_mask = _fill(shape, np.concatenate([rim, dome]))
    pattern = colour * (1 + rng.uniform(0, 0.3) * cv2.GaussianBlur(
        rng.normal(0, 1, shape[:2]).astype(np.float32), (0, 0), rng.uniform(0.6, 6)
    )[..., None] * 3)  # fmt: skip
    if rng.uniform() < 0.3:  # a scarf or a hood: around the face as well
        turn = np.linspace(0, 2 * np.pi, 48)
        outline = np.stack([np.cos(turn), np.sin(turn)], 1)
        grown = cv2.convexHull(np.concatenate([face.points[_JAW], rim]).astype(np.float32))[:, 0]
        middle = grown.mean(0)
        hole = _fill(shape, middle + (grown - middle) * rng.uniform(0.98, 1.12))
        outer = _fill(shape, middle + outline * face.height * rng.uniform(1.2, 1.7, 2))
        dome_mask = np.maximum(outer * (1 - hole), dome_mask)
    _paint(picture, dome_mask, np.clip(pattern, 0, 1))
    if rng.uniform() < 0.6:  # its brim
        wider, lower = rng.uniform(0.05, 0.8), rng.uniform(-0.15, 0.1)
        across = left - wider + (right - left + 2 * wider) * np.linspace(0, 1, 16)
        top = face.at(across, low + bow * np.sin(np.pi * np.linspace(0, 1, 16)) + 0.04)
        under = face.at(across[::-1], low + lower * np.sin(np.pi * np.linspace(0, 1, 16)) - 0.05)
        _paint(
            picture, _fill(shape, np.concatenate([top, under])),
            np.clip(colour * rng.uniform(0.5, 1.3), 0, 1),
        )  # fmt: skip


def _fringe(picture: np.ndarray, face: _Face, rng: np.random.Generator, colour: np.ndarray) -> None:
    """Hair over the forehead, and perhaps down both cheeks."""
    shape = picture.shape
    left, right = face.left_end / face.height - 0.15, face.right_end / face.height + 0.15
    count = int(rng.integers(4, 24))
    across = np.linspace(left, right, count)
    parting = rng.uniform(left, right)
    lowest = rng.uniform(-0.12, 0.45)
    ends = lowest + rng.uniform(0, 0.3, count) + 0.25 * rng.uniform() * np.exp(
        -((across - parting) ** 2) * 8
    )  # fmt: skip
    if rng.uniform() < 0.5:  # curtains at the sides
        side = np.minimum(across - left, right - across)
        ends = np.where(side < rng.uniform(0.05, 0.3), rng.uniform(-1.6, -0.2), ends)
    lower = face.at(across, ends)
    between = face.at((across[:-1] + across[1:]) / 2, ends[:-1] + rng.uniform(0, 0.15, count - 1))
    jagged = np.empty((2 * count - 1, 2))
    jagged[::2], jagged[1::2] = lower, between
    turn = np.linspace(0, np.pi, 12)
    middle, half = (left + right) / 2, (right - left) / 2 * rng.uniform(1, 1.15)
    top = face.at(middle + half * np.cos(turn), 0.35 + rng.uniform(0.55, 0.9) * np.sin(turn))
    mask = _fill(shape, np.concatenate([jagged, top]))
    mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.4, 1.5))
    _paint(picture, mask * rng.uniform(0.8, 1), _strands(rng, shape, face.up, colour))


def _make_up(picture: np.ndarray, face: _Face, rng: np.random.Generator) -> None:
    shape, p = picture.shape, face.points
    lips = _fill(shape, p[_OUTER_LIPS]) * (1 - _fill(shape, p[_INNER_LIPS]))
    red = np.array([rng.uniform(0.3, 0.9), rng.uniform(0, 0.4), rng.uniform(0, 0.5)])
    if rng.uniform() < 0.7:
        soft = cv2.GaussianBlur(lips, (0, 0), rng.uniform(0.3, 1.5))
        _paint(picture, soft * rng.uniform(0.2, 0.9) * picture[..., 3], red)
    if rng.uniform() < 0.6:
        dark = _any_colour(rng) * 0.4
        for upper in (p[36:40], p[42:46]):
            stroke = _line(shape, upper, face.height * rng.uniform(0.01, 0.06))
            _paint(picture, stroke * rng.uniform(0.4, 1), dark)
    if rng.uniform() < 0.4:
        for cheek in ((p[1] + p[31] + p[40]) / 3, (p[15] + p[35] + p[47]) / 3):
            blush = np.zeros(shape[:2], np.float32)
            centre = np.round(cheek).astype(int).tolist()
            cv2.circle(blush, tuple(centre), round(0.15 * face.height), 1.0, -1)
            soft = cv2.GaussianBlur(blush, (0, 0), face.height * 0.07)
            _paint(picture, soft * rng.uniform(0.1, 0.6) * picture[..., 3], red)
    if rng.uniform() < 0.4:
        colour = _colour(rng, _HAIR)
        for brow in (p[17:22], p[22:27]):
            stroke = _line(shape, brow, face.height * rng.uniform(0.02, 0.1))
            _paint(picture, cv2.GaussianBlur(stroke, (0, 0), 0.8) * rng.uniform(0.4, 1), colour)


def _hand(picture: np.ndarray, face: _Face, rng: np.random.Generator) -> None:
    """A hand before the lower face: a palm and fingers."""
    shape = picture.shape
    skin = _colour(rng, _SKIN)
    base = face.at(rng.uniform(-0.7, 0.7), rng.uniform(-1.5, -0.5))
    angle = rng.uniform(0, 2 * np.pi)
    unit = face.height * rng.uniform(0.5, 0.9)
    for finger in range(int(rng.integers(2, 6))):
        turn = angle + (finger - 2) * rng.uniform(0.1, 0.25)
        tip = base + unit * rng.uniform(0.9, 1.3) * np.array([np.cos(turn), np.sin(turn)])
        bone = np.stack([base, (base + tip) / 2 + rng.normal(0, 0.05 * unit, 2), tip])
        _paint(picture, _line(shape, bone, unit * 0.27), skin * 0.75)
        _paint(picture, _line(shape, bone, unit * 0.22), skin)
    palm = np.zeros(shape[:2], np.float32)
    cv2.circle(palm, tuple(np.round(base).astype(int).tolist()), round(unit * 0.45), 1.0, -1)
    _paint(picture, cv2.GaussianBlur(palm, (0, 0), 1), skin * rng.uniform(0.85, 1.05))


def decorate(picture: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> None:
    """Add some of everything to a head, or nothing."""
    face = _Face(points)
    if face.height < 8:
        return
    hair = _colour(rng, _HAIR)
    chances: list[tuple[float, Callable[[], None]]] = [
        (0.22, lambda: _make_up(picture, face, rng)),
        (0.20, lambda: _beard(picture, face, rng)),
        (0.18, lambda: _glasses(picture, face, rng)),
        (0.18, lambda: _fringe(picture, face, rng, hair)),
        (0.14, lambda: _hat(picture, face, rng)),
        (0.05, lambda: _hand(picture, face, rng)),
    ]
    for chance, paint in chances:
        if rng.uniform() < chance:
            paint()


def draw_face(points: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A face drawn from its points, in a random simple style: float32 [size, size, 4]."""
    picture = np.zeros((size, size, 4), np.float32)
    face, p, shape = _Face(points), points.astype(np.float64), (size, size)
    skin, hair, ink = _colour(rng, _SKIN, 0.1), _colour(rng, _HAIR, 0.12), _any_colour(rng) * 0.4
    if rng.uniform() < 0.12:  # ink on paper
        skin = hair = np.full(3, rng.uniform(0.85, 1))
    pen = max(1.0, face.height * rng.uniform(0.008, 0.04))
    outlined = rng.uniform() < 0.7
    middle = (face.left_end + face.right_end) / 2 / face.height
    half = (face.right_end - face.left_end) / 2 / face.height
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)

    def part(polygon: np.ndarray, colour: np.ndarray, line: bool = outlined) -> None:
        _paint(picture, _fill(shape, polygon), colour)
        if line:
            _paint(picture, _line(shape, polygon, pen, True), ink)

    if rng.uniform() < 0.85:  # hair behind the head
        wide, low = half * rng.uniform(1.15, 1.6), rng.uniform(0.9, 1.5)
        part(face.at(middle + wide * np.cos(turn), 0.1 + np.where(
            np.sin(turn) > 0, rng.uniform(0.9, 1.2), low) * np.sin(turn)), hair)  # fmt: skip
    shoulders = face.at(
        middle + half * np.array([-0.5, -0.5, -2.3, -2.6, 2.6, 2.3, 0.5, 0.5]),
        [-0.6, -1.3, -1.5, -3.5, -3.5, -1.5, -1.3, -0.6],
    )
    part(shoulders, _any_colour(rng))
    part(face.at(middle + half * np.array([-0.5, -0.55, 0, 0.55, 0.5]),
                 [-0.5, -1.3, -1.6, -1.3, -0.5]), skin * 0.9)  # fmt: skip
    for end, side in ((p[0], -1), (p[16], 1)):
        ear = rng.uniform(0.08, 0.2) * face.height
        middle_of = end + side * 0.3 * ear * face.right - 0.1 * face.height * face.up
        ring = np.cos(turn)[:, None] * face.right * 0.6 + np.sin(turn)[:, None] * face.up
        part(middle_of + ear * ring, skin)
    arc = np.linspace(0, np.pi, 16)
    forehead = face.at(middle + half * np.cos(arc), 0.05 + rng.uniform(0.65, 0.95) * np.sin(arc))
    hull = cv2.convexHull(np.concatenate([p[_JAW], forehead]).astype(np.float32))[:, 0]
    part(hull.astype(np.float64), skin)
    if rng.uniform() < 0.4:  # a shadow on one side
        dark = _fill(shape, hull) * _fill(
            shape, face.at(middle + rng.uniform(-0.3, 0.3) + np.array([0, 2, 2, 0]), [2, 2, -2, -2])
        )
        if rng.uniform() < 0.5:
            dark = cv2.GaussianBlur(dark, (0, 0), face.height * 0.1)
        _paint(picture, dark * rng.uniform(0.2, 0.6) * picture[..., 3], skin * 0.4)
    _draw_features(picture, face, rng, part, pen, ink, skin)
    if rng.uniform() < 0.65:
        _fringe(picture, face, rng, hair)
    if rng.uniform() < 0.5:
        decorate(picture, points, rng)
    return picture


def _draw_features(
    picture: np.ndarray,
    face: _Face,
    rng: np.random.Generator,
    part: Callable[[np.ndarray, np.ndarray, bool], None],
    pen: float,
    ink: np.ndarray,
    skin: np.ndarray,
) -> None:
    p, shape = face.points, picture.shape
    iris, white = _any_colour(rng), np.full(3, rng.uniform(0.85, 1))
    round_eyes, share = rng.uniform() < 0.3, rng.uniform(0.5, 1.0)
    for eye, upper in ((p[_LEFT_EYE], p[36:40]), (p[_RIGHT_EYE], p[42:46])):
        middle = eye.mean(0)
        wide = float(np.linalg.norm(eye[3] - eye[0]))
        high = max(float(np.linalg.norm((eye[1] + eye[2] - eye[4] - eye[5]) / 2)), 1.0)
        if round_eyes:
            turn = np.linspace(0, 2 * np.pi, 24)
            eye = middle + (
                np.cos(turn)[:, None] * face.right * wide / 2
                + np.sin(turn)[:, None] * face.up * high / 2
            )
        opening = _fill(shape, eye)
        part(eye, white, rng.uniform() < 0.6)
        ball = np.zeros(shape[:2], np.float32)
        look = middle + face.right * wide * rng.uniform(-0.1, 0.1)
        centre = (int(look[0] * 16), int(look[1] * 16))
        radius = min(wide / 2, high * 0.75) * share
        cv2.circle(ball, centre, int(radius * 16), 1.0, -1, cv2.LINE_AA, 4)
        _paint(picture, ball * opening, iris)
        ball[:] = 0
        cv2.circle(ball, centre, int(radius * 8), 1.0, -1, cv2.LINE_AA, 4)
        _paint(picture, ball * opening, ink * 0.3)
        _paint(picture, _line(shape, upper, pen * rng.uniform(0.8, 3)), ink)
    brow = pen * rng.uniform(1, 5)
    for points in (p[17:22], p[22:27]):
        _paint(picture, _line(shape, points, brow), ink)
    kind = rng.uniform()
    if kind < 0.6:
        _paint(picture, _line(shape, p[31:36], pen), ink)
    if kind < 0.35:
        _paint(picture, _line(shape, p[27:31], pen), ink)
    elif kind < 0.5:
        _paint(picture, _line(shape, np.concatenate([p[27:31], p[31:32]]), pen), ink)
    elif kind < 0.8:
        nose = np.concatenate([p[27:28], p[31:36]])
        _paint(picture, _fill(shape, nose) * rng.uniform(0.1, 0.5), skin * 0.6)
    else:
        _paint(picture, _line(shape, p[[31, 32]], pen), ink)
        _paint(picture, _line(shape, p[[34, 35]], pen), ink)
    lips = np.clip(skin * [1, 0.6, 0.6] + rng.normal(0, 0.1, 3), 0, 1)
    if rng.uniform() < 0.75:
        part(p[_OUTER_LIPS], lips, rng.uniform() < 0.4)
    gap = float(np.linalg.norm(p[62] - p[66]))
    if gap > 0.05 * face.height:
        teeth = np.full(3, 0.95) if rng.uniform() < 0.4 else np.array([0.25, 0.05, 0.05])
        part(p[_INNER_LIPS], teeth, rng.uniform() < 0.5)
    else:
        seam = np.concatenate([p[60:65]])
        _paint(picture, _line(shape, seam, pen * rng.uniform(0.8, 1.6)), ink)
