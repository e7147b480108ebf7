"""Bodies, clothes and long hair for rendered heads, drawn on the device as shapes of capsules.

Renders end at the chest and wear plain shirts; what people bring shows arms, dresses, robes and
hair of any kind. Places are in sizes of the face from the face's middle, x to the right, y down.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wsavatar.training.landmarks.styles import smooth_noise
from wsavatar.training.landmarks.views import chance, over, rand

__all__ = ["Frame", "dressed"]

Texture = Callable[[int], Tensor]
"""How many -> RGB [n, 3, side, side]."""


class Frame:
    """Where each pixel of squares lies, seen from their faces.

    ``middle`` [n, 2] and ``size`` [n] of the faces, in parts of the side.
    """

    def __init__(self, middle: Tensor, size: Tensor, side: int) -> None:
        line = (torch.arange(side, device=size.device) + 0.5) / side
        self.x = ((line[None] - middle[:, :1]) / size[:, None])[:, None, :]
        self.y = ((line[None] - middle[:, 1:]) / size[:, None])[:, :, None]
        self.pixel = (1 / (side * size))[:, None, None]
        self.count, self.side, self.size = len(size), side, size

    def rand(self, low: float, high: float) -> Tensor:
        """A number for each, [n]."""
        return rand(self.count, low, high, self.size)

    def chance(self, probability: float) -> Tensor:
        """[n, 1, 1]."""
        return chance(self.count, probability, self.size)[:, None, None]

    def capsule(
        self, a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], first: Tensor, last: Tensor
    ) -> Tensor:
        """Distance [n, h, w] from a segment with a radius at each end; inside it is negative."""
        ax, ay, bx, by, first, last = (v[:, None, None] for v in (*a, *b, first, last))
        dx, dy = bx - ax, by - ay
        x, y = self.x - ax, self.y - ay
        along = ((x * dx + y * dy) / (dx**2 + dy**2).clamp(min=1e-6)).clamp(0, 1)
        return torch.hypot(x - along * dx, y - along * dy) - (first + along * (last - first))

    def cover(self, distance: Tensor, folds: float) -> Tensor:
        """Alpha [n, 1, h, w] of a shape whose outline is uneven by about ``folds``."""
        like = distance[:, None]
        noise = smooth_noise(like, int(torch.randint(4, 40, ())))[:, 0]
        uneven = distance + noise * (torch.rand(()).item() * folds)
        soft = self.pixel * (0.4 + 2.2 * self.rand(0, 1)[:, None, None] ** 3)
        return torch.sigmoid(-uneven / soft)[:, None]


def _layer(cover: Tensor, texture: Tensor, distance: Tensor) -> Tensor:
    """RGB multiplied by alpha, and alpha; darker towards the outline on some."""
    n = len(cover)
    depth = rand(n, 0, 0.6, cover)[:, None, None]
    shade = 1 - depth * torch.exp(distance.clamp(max=0) / 0.12)
    return torch.cat([(texture * shade[:, None]).clamp(0, 1) * cover, cover], 1)


def _join(front: Tensor, back: Tensor) -> Tensor:
    """One picture with alpha over another."""
    return front + (1 - front[:, 3:4]) * back


def _body(frame: Frame, texture: Texture, skin: Tensor) -> Tensor:
    """Shoulders, trunk, arms and what is worn below, [n, 4, side, side]."""
    n, zero = frame.count, frame.rand(0, 0)
    wide, high = frame.rand(0.75, 1.5), frame.rand(1.25, 1.75)
    drop, hips = frame.rand(0.0, 0.45), frame.rand(3.6, 5.2)
    wide = torch.where(chance(n, 0.12, wide), wide * 0.7, wide)  # children, caricatures
    chest = wide * frame.rand(0.7, 0.95)
    trunk = torch.minimum(
        frame.capsule(
            (zero, high + chest - 0.2), (zero, hips + chest), chest, frame.rand(0.7, 1.2)
        ),
        torch.minimum(
            frame.capsule((zero, high), (-wide, high + drop), frame.rand(0.3, 0.45), zero + 0.33),
            frame.capsule((zero, high), (wide, high + drop), frame.rand(0.3, 0.45), zero + 0.33),
        ),
    )
    robe = frame.capsule(
        (zero, high), (zero, frame.rand(4, 9)), frame.rand(0.5, 0.9), frame.rand(1.6, 3.4)
    )
    trunk = torch.where(frame.chance(0.2), torch.minimum(trunk, robe), trunk)
    legs = torch.minimum(
        frame.capsule((-0.5 + zero, hips), (frame.rand(-1.2, -0.3), frame.rand(9, 11)),
                      frame.rand(0.5, 0.7), frame.rand(0.25, 0.5)),
        frame.capsule((0.5 + zero, hips), (frame.rand(0.3, 1.2), frame.rand(9, 11)),
                      frame.rand(0.5, 0.7), frame.rand(0.25, 0.5)),
    )  # fmt: skip
    skirt = frame.capsule(
        (zero, hips - 0.6), (frame.rand(-0.7, 0.7), frame.rand(6, 10)),
        frame.rand(0.7, 1.0), frame.rand(1.2, 3.2),
    )  # fmt: skip
    below = torch.where(frame.chance(0.55), skirt, legs)
    made = _layer(frame.cover(below, 0.1), texture(n), below)
    made = _join(_layer(frame.cover(trunk, 0.1), texture(n), trunk), made)
    for side in (-1.0, 1.0):
        made = _join(_arm(frame, side * wide, high + drop, texture, skin), made)
    return made


def _arm(frame: Frame, x: Tensor, y: Tensor, texture: Texture, skin: Tensor) -> Tensor:
    """An arm in a sleeve or bare, with its hand."""
    n = frame.count
    outwards = torch.sign(x)
    raised = chance(n, 0.12, x)
    upper = torch.where(raised, frame.rand(0.8, 2.2), frame.rand(-0.15, 0.8)) * outwards
    lower = upper + outwards * torch.where(raised, frame.rand(-0.3, 1.2), frame.rand(-2.4, 0.3))
    long, short = frame.rand(1.5, 2.1), frame.rand(1.3, 1.9)
    elbow = (x + long * torch.sin(upper), y + long * torch.cos(upper))
    wrist = (elbow[0] + short * torch.sin(lower), elbow[1] + short * torch.cos(lower))
    thick, sleeve = frame.rand(0.28, 0.45), frame.rand(0.2, 0.45)
    whole = torch.minimum(
        frame.capsule((x, y), elbow, thick, sleeve),
        frame.capsule(elbow, wrist, sleeve, sleeve * 0.8),
    )
    tip = (wrist[0] + 0.35 * torch.sin(lower), wrist[1] + 0.35 * torch.cos(lower))
    hand = frame.capsule(wrist, tip, frame.rand(0.18, 0.3), frame.rand(0.1, 0.25))
    bare = chance(n, 0.25, x)[:, None, None, None]
    cloth = torch.where(bare, skin.expand(n, 3, frame.side, frame.side), texture(n))
    made = _layer(frame.cover(hand, 0.03), skin.expand(n, 3, frame.side, frame.side), hand)
    return _join(_layer(frame.cover(whole, 0.08), cloth, whole), made)


def _hair(frame: Frame, colour: Tensor, *, front: bool) -> Tensor:
    """A mass of hair behind the head, or strands before the shoulders; on some alone."""
    zero = frame.rand(0, 0)
    if front:
        parts = []
        for side in (-1.0, 1.0):
            top = (side * frame.rand(0.5, 0.68), frame.rand(-0.4, 0.1))
            end = (side * frame.rand(0.45, 1.1), frame.rand(0.6, 3.0))
            strand = frame.capsule(top, end, frame.rand(0.08, 0.2), frame.rand(0.05, 0.4))
            parts.append(torch.where(frame.chance(0.7), strand, 9.0))
        shape = torch.minimum(*parts)
    else:
        shape = frame.capsule(
            (frame.rand(-0.12, 0.12), frame.rand(-0.5, -0.1)),
            (frame.rand(-0.3, 0.3), frame.rand(-0.1, 2.6)),
            frame.rand(0.68, 1.15), frame.rand(0.4, 1.2),
        )  # fmt: skip
        bun = torch.hypot(frame.x - frame.rand(-0.5, 0.5)[:, None, None],
                          frame.y + frame.rand(0.7, 1.1)[:, None, None])  # fmt: skip
        bun = bun - frame.rand(0.12, 0.4)[:, None, None]
        shape = torch.where(frame.chance(0.25), torch.minimum(shape, bun), shape)
    like = shape[:, None]
    curls = (
        smooth_noise(like, int(torch.randint(8, 60, ())))
        * frame.rand(0, 0.04 if front else 0.1)[:, None, None, None]
    )
    strands = smooth_noise(like, int(torch.randint(20, 100, ())))
    strands = 1 + strands * frame.rand(0, 0.3)[:, None, None, None]
    cover = frame.cover(shape + curls[:, 0], 0.1)
    some = chance(frame.count, 0.22 if front else 0.3, zero)[:, None, None, None]
    return _layer(cover * some, (colour * strands).clamp(0, 1), shape)


def dressed(heads: Tensor, frame: Frame, texture: Texture, skin: Tensor, hair: Tensor) -> Tensor:
    """Heads [n, 4, side, side] with a body behind them, or in clothes before them, or as they are.

    ``skin`` and ``hair``: colours [n, 3, 1, 1].
    """
    zero = frame.rand(0, 0)
    kind = torch.rand(frame.count, device=heads.device)[:, None, None, None]
    body = _body(frame, texture, skin)
    made = _join(heads, body * (kind < 0.4))
    neck = frame.capsule(
        (zero, zero + 0.2), (frame.rand(-0.1, 0.1), frame.rand(1.2, 2.4)),
        frame.rand(0.45, 0.75), frame.rand(0.05, 0.5),
    )  # fmt: skip
    clothes = body * (1 - frame.cover(neck, 0.06)) * (frame.y > 0.55)[:, None]
    made = _join(clothes * (kind > 0.6), made)
    made = _join(made, _hair(frame, hair, front=False))
    return _join(_hair(frame, hair, front=True), made)


def before(things: Tensor, person: Tensor) -> Tensor:
    """Things [n, 4, h, w] that a person holds, which then belong to it."""
    return torch.cat(
        [over(things, person[:, :3]), things[:, 3:] + (1 - things[:, 3:]) * person[:, 3:]], 1
    )
