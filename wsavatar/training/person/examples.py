"""Training examples of the person mask, made on the device: people in places, and their alpha."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from wsavatar.training.landmarks.styles import (
    backdrop,
    blur,
    degrade,
    hue,
    recolour,
    restyle,
    smooth_noise,
)
from wsavatar.training.landmarks.views import (
    Pool,
    Warp,
    chance,
    cut,
    over,
    places_of,
    rand,
    similarity,
)
from wsavatar.training.person.figures import Frame, before, dressed

__all__ = ["Examples", "Pools", "examples", "hints"]

_FACES = (0.045, 0.3), (0.16, 0.52)
"""Sizes of faces in parts of the picture's side: of whole people, and of head and shoulders."""


@dataclass(slots=True)
class Pools:
    """Heads with alpha and points; other things with alpha; RGB scenes, float [n, 3, 256, 256]."""

    heads: Pool
    things: Pool
    scenes: Tensor


@dataclass(slots=True)
class Examples:
    """``seen`` [n, 4, s, s]: RGB and the hint; ``alpha`` [n, 1, s, s]: how much is the person.

    The faces' ``middle`` [n, 2] and ``size`` [n] are in parts of the side.
    """

    seen: Tensor
    alpha: Tensor
    middle: Tensor
    size: Tensor


@torch.no_grad()
def examples(pools: Pools, n: int, side: int) -> Examples:
    """Random people, dressed, in front of random backgrounds, in random styles."""
    person, middle, size = _people(pools, n, side)
    ground = _ground(pools, person, side)
    ground = _shadow(ground, person)
    person = _softened(person)
    picture = over(person, ground)
    picture, alpha = _table(pools, picture, person[:, 3:])
    picture = _styled(picture.clamp(0, 1))
    seen = torch.cat([picture, hints(middle, size, side)], 1)
    return Examples(seen, alpha.clamp(0, 1), middle, size)


def _styled(picture: Tensor) -> Tensor:
    """Most pictures as of any light, style and camera; the others clean."""
    for share, change in ((0.6, restyle), (0.6, degrade)):
        some = torch.nonzero(chance(len(picture), share, picture))[:, 0]
        if len(some):
            picture[some] = change(picture[some])
    return picture


def hints(middle: Tensor, size: Tensor, side: int) -> Tensor:
    """`wsavatar.person.mask.face_hint` of faces as a detector finds them: [n, 1, side, side]."""
    n = len(size)
    size = size * torch.exp(torch.randn(n, device=size.device).clamp(-2, 2) * 0.06)
    middle = middle + torch.randn((n, 2), device=size.device).clamp(-2, 2) * 0.05 * size[:, None]
    frame = Frame(middle, size, side)
    return torch.exp(-(frame.x**2 + frame.y**2) / (2 * 0.33**2))[:, None]


def _people(pools: Pools, n: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """People with alpha [n, 4, side, side]; their faces' middles and sizes in parts of the side."""
    heads, points = pools.heads.draw(n)
    like = points[:, 0, 0]
    warp = Warp.random(points, rand(n, 0, 1, like) * (~chance(n, 0.3, like)))
    middle, size, _ = places_of(warp.bent(points))
    small, near = (torch.exp(rand(n, math.log(low), math.log(high), like)) for low, high in _FACES)
    share = torch.where(chance(n, 0.55, like), near, small)
    share = torch.minimum(share, size * 1.5 / pools.heads.size)
    reach = size / share
    # Where the face is in the picture: anywhere, mostly above the middle.
    x = 0.5 + torch.randn(n, device=like.device).clamp(-2, 2) * 0.16
    y = 0.5 - rand(n, 0, 1, like) * (0.5 - 0.55 * share) + rand(n, 0, 0.12, like)
    at = torch.stack([x, y], 1)
    mirrored = chance(n, 0.5, like)
    roll = torch.randn(n, device=like.device).clamp(-2, 2) * 0.07
    matrix = similarity(middle, reach, roll, mirrored)
    offset = torch.einsum("nij,nj->ni", matrix[:, :, :2], at - 0.5)
    matrix[:, :, 2] -= offset
    heads = cut(heads, matrix, side, warp)
    frame = Frame(at, share, side)
    skin, hair = _colours(heads, frame)
    person = dressed(heads, frame, lambda m: _cloth(pools, m, side), skin, hair)
    some = torch.nonzero(chance(n, 0.12, like))[:, 0]
    if len(some):  # something held
        person[some] = before(_things(pools, len(some), side, at[some], share[some]), person[some])
    return _recoloured(person), at, share


def _colours(heads: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
    """Of the face, and of what is above it (or any, where nothing is): [n, 3, 1, 1]."""
    n = len(heads)
    inside = ((frame.x.abs() < 0.3) & (frame.y.abs() < 0.35)).float()[:, None]
    above = ((frame.x.abs() < 0.45) & ((frame.y + 0.75).abs() < 0.2)).float()[:, None]
    made = []
    for part in (inside, above):
        weight = (part * heads[:, 3:]).sum((2, 3), keepdim=True)
        made.append((heads[:, :3] * part).sum((2, 3), keepdim=True) / weight.clamp(min=1))
    other = torch.rand((n, 3, 1, 1), device=heads.device) ** 2
    return made[0], torch.where(chance(n, 0.35, heads)[:, None, None, None], other, made[1])


def _things(pools: Pools, n: int, side: int, at: Tensor, share: Tensor) -> Tensor:
    """Things near the chest, [n, 4, side, side]."""
    pictures, _ = pools.things.draw(n)
    reach = pools.things.size / (share * rand(n, 0.5, 1.6, share))
    where = at + share[:, None] * torch.stack([rand(n, -1, 1, share), rand(n, 1.4, 2.6, share)], 1)
    middle = pools.things.size / 2 + (0.5 - where) * reach[:, None]
    still = torch.zeros_like(share)
    return cut(pictures, similarity(middle, reach, still, still > 1), side)


def _scenes(pools: Pools, n: int, side: int, low: float, high: float) -> Tensor:
    """Pieces of the scenes, ``low`` to ``high`` pixels wide."""
    like = torch.zeros(n, device=pools.scenes.device)
    whole = pools.scenes[torch.randint(len(pools.scenes), (n,), device=like.device)]
    reach = rand(n, low, high, like)
    spare = (256 - reach).clamp(min=0) / 2
    middle = 128 + torch.stack([rand(n, -1, 1, like), rand(n, -1, 1, like)], 1) * spare[:, None]
    matrix = similarity(middle, reach, like, chance(n, 0.5, like))
    line = (torch.arange(side, device=like.device) + 0.5) / side
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), 2).view(1, -1, 2)
    where = grid @ matrix[:, :, :2].transpose(1, 2) + matrix[:, None, :, 2]
    where = (where / 128 - 1).view(n, side, side, 2)
    return F.grid_sample(whole, where, padding_mode="reflection", align_corners=False)


def _cloth(pools: Pools, n: int, side: int) -> Tensor:
    """Plain, shaded, patterned or striped material."""
    scenes = _scenes(pools, n, side, 40, 256)
    like = scenes[:, :1]
    colour = (
        torch.rand((n, 3, 1, 1), device=like.device) ** rand(n, 0.5, 2.5, like)[:, None, None, None]
    )
    folds = smooth_noise(like, int(torch.randint(3, 14, ())))
    plain = colour * (1 + rand(n, 0, 0.3, like)[:, None, None, None] * folds)
    fine = torch.randn_like(scenes) * rand(n, 0, 0.12, like)[:, None, None, None]
    phase = (
        smooth_noise(like, 3) * 2
        + smooth_noise(like, 1) * rand(n, 5, 40, like)[:, None, None, None]
    )
    stripes = plain * (1 + 0.5 * torch.sin(phase))
    kind = torch.rand((n, 1, 1, 1), device=like.device)
    made = torch.where(kind < 0.15, stripes, plain + fine)
    grey = scenes.mean(1, keepdim=True)
    made = torch.where((kind > 0.6) & (kind < 0.8), colour * (0.3 + grey * 1.4), made)
    return torch.where(kind >= 0.8, scenes, made).clamp(0, 1)


def _recoloured(person: Tensor) -> Tensor:
    """Other light and colours of some people than of what is behind them."""
    some = torch.nonzero(chance(len(person), 0.4, person))[:, 0]
    if len(some):
        alpha = person[some, 3:]
        plain = (person[some, :3] / alpha.clamp(min=1e-3)).clamp(0, 1)
        changed = recolour(plain)
        turned = chance(len(some), 0.3, person)[:, None, None, None]
        changed = torch.where(turned, hue(changed), changed)
        person[some, :3] = changed * alpha
    return person


def _ground(pools: Pools, person: Tensor, side: int) -> Tensor:
    """What is behind people: scenes, patterns, walls with things and others, of any sharpness."""
    n = len(person)
    ground = backdrop(person[:, :3], _scenes(pools, n, side, 60, 256))
    for _ in range(2):
        ground = _panel(pools, ground)
    some = torch.nonzero(chance(n, 0.35, person))[:, 0]
    for _ in range(3):
        if len(some):
            pictures, _ = pools.things.draw(len(some))
            ground[some] = over(_anywhere(pictures, side, 0.15, 1.2), ground[some])
    some = torch.nonzero(chance(n, 0.22, person))[:, 0]
    for _ in range(2):
        if len(some):
            pictures, _ = pools.heads.draw(len(some))
            ground[some] = over(_recoloured(_anywhere(pictures, side, 0.3, 1.6)), ground[some])
            some = some[: len(some) // 2]
    ground = _alike(ground, person)
    for _ in range(2):
        some = torch.nonzero(chance(n, 0.22, person))[:, 0]
        if len(some):
            ground[some] = blur(ground[some], float(torch.rand(()) ** 2 * 8 + 0.6))
    return ground.clamp(0, 1)


def _anywhere(pictures: Tensor, side: int, low: float, high: float) -> Tensor:
    """Squares with alpha somewhere in larger ones; sizes in parts of the side."""
    n, _, size, _ = pictures.shape
    like = pictures[:, 0, 0, 0].float()
    reach = size / rand(n, low, high, like)
    where = torch.stack([rand(n, 0, 1, like), rand(n, 0.1, 1.1, like)], 1)
    middle = size / 2 + (0.5 - where) * reach[:, None]
    return cut(pictures, similarity(middle, reach, like * 0, chance(n, 0.5, like)), side)


def _panel(pools: Pools, ground: Tensor) -> Tensor:
    """A window, a door, a picture frame or a piece of furniture: a rectangle with a border."""
    n, _, side, _ = ground.shape
    line = (torch.arange(side, device=ground.device) + 0.5) / side
    x, y, half_x, half_y = (
        rand(n, low, high, ground)[:, None]
        for low, high in ((0, 1), (-0.1, 1), (0.05, 0.5), (0.05, 0.6))
    )
    away = torch.maximum(
        ((line[None] - x).abs() - half_x)[:, None, :], ((line[None] - y).abs() - half_y)[:, :, None]
    )[:, None]
    inner = (0.5 - away * side).clamp(0, 1)
    width = rand(n, 0, 0.06, ground)[:, None, None, None]
    outer = (0.5 - (away - width) * side).clamp(0, 1)
    some = chance(n, 0.3, ground)[:, None, None, None]
    shade = torch.rand((n, 3, 1, 1), device=ground.device)
    ground = ground + some * outer * (shade - ground)
    return ground + some * inner * (_cloth(pools, n, side) - ground)


def _alike(ground: Tensor, person: Tensor) -> Tensor:
    """Some backgrounds in a colour of the person, with little contrast."""
    n, _, side, _ = person.shape
    weight = person[:, 3].flatten(1) ** 4 + 1e-6
    pixel = torch.multinomial(weight, 1)[:, :, None].expand(-1, 3, -1)
    colour = person[:, :3].flatten(2).gather(2, pixel)[..., None]
    mean = ground.mean((2, 3), keepdim=True)
    close = colour + (ground - mean) * rand(n, 0.05, 0.5, ground)[:, None, None, None]
    close = close + 0.06 * torch.randn((n, 3, 1, 1), device=ground.device)
    return torch.where(chance(n, 0.25, ground)[:, None, None, None], close.clamp(0, 1), ground)


def _shadow(ground: Tensor, person: Tensor) -> Tensor:
    """The person's shadow on some walls."""
    some = torch.nonzero(chance(len(ground), 0.2, ground))[:, 0]
    if not len(some):
        return ground
    side = ground.shape[2]
    shift = ((torch.rand(2) - 0.5) * 0.2 * side).round().int().tolist()
    shade = blur(person[some, 3:], float(torch.rand(()) * 6 + 1))
    shade = (
        torch.roll(shade, shift, (2, 3)) * rand(len(some), 0.1, 0.6, ground)[:, None, None, None]
    )
    ground[some] = ground[some] * (1 - shade)
    return ground


def _softened(person: Tensor) -> Tensor:
    """Soft outlines, as of brushes or of a lens, on some."""
    for _ in range(2):
        some = torch.nonzero(chance(len(person), 0.15, person))[:, 0]
        if len(some):
            person[some] = blur(person[some], float(torch.rand(()) * 1.3 + 0.4))
    return person


def _table(pools: Pools, picture: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """A table or a margin at the bottom of some, in front of the person."""
    n, _, side, _ = picture.shape
    line = (torch.arange(side, device=picture.device) + 0.5) / side
    edge = rand(n, 0.75, 1.0, picture)[:, None]
    here = chance(n, 0.08, picture)[:, None]
    hidden = (((line[None] - edge) * side + 0.5).clamp(0, 1) * here)[:, None, :, None]
    picture = picture + hidden * (_cloth(pools, n, side) - picture)
    return picture, alpha * (1 - hidden)
