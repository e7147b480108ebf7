"""Training examples, made on the device: crops for the points, scenes for the finder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from wsavatar.landmarks.geometry import MIRROR
from wsavatar.training.landmarks.styles import backdrop, degrade, restyle
from wsavatar.training.landmarks.views import (
    Pool,
    Warp,
    chance,
    crop_reach,
    cut,
    over,
    places_of,
    rand,
    similarity,
)

__all__ = ["CropExamples", "Pools", "SceneExamples", "crop_examples", "scene_examples"]

FINDER_SIZES = (20.0, 52.0)
"""Face sizes in pixels that the finder must see."""


@dataclass(slots=True)
class Pools:
    """Heads with a face; heads from behind; other things; RGB scenes, float [n, 3, 256, 256]."""

    faces: Pool
    backs: Pool
    things: Pool
    scenes: Tensor


@dataclass(slots=True)
class CropExamples:
    """``pictures`` [n, 3, s, s]; ``points`` [n, 68, 2] in parts of the side; ``sure`` [n]: 1 where
    the points are to be found, 0 where there is no face."""

    pictures: Tensor
    points: Tensor
    sure: Tensor


@dataclass(slots=True)
class SceneExamples:
    """``pictures`` [n, 3, s, s]; ``places`` [n, k, 4]: x, y, size in pixels, roll; ``seen`` [n, k]:
    whether this face is in the scene."""

    pictures: Tensor
    places: Tensor
    seen: Tensor


def _backgrounds(pools: Pools, n: int, side: int) -> Tensor:
    """Pieces of scenes or made ones [n, 3, side, side]."""
    like = torch.zeros((n, 3, side, side), device=pools.scenes.device)
    which = torch.randint(len(pools.scenes), (min(32, len(pools.scenes)),), device=like.device)
    whole = (pools.scenes[which] * 255).to(torch.uint8)
    m = len(whole)
    reach = rand(m, 60, 240, like)
    matrix = similarity(
        torch.stack([rand(m, 60, 196, like), rand(m, 60, 196, like)], 1), reach,
        rand(m, -0.5, 0.5, like), chance(m, 0.5, like),
    )  # fmt: skip
    return backdrop(like, cut(whole, matrix, side))


def _things(pools: Pools, n: int, side: int, low: float, high: float) -> Tensor:
    """Animals and objects with alpha somewhere in squares [n, 4, side, side]; sizes in sides."""
    pictures, _ = pools.things.draw(n)
    size = pools.things.size
    reach = size / rand(n, low, high, pictures.float())
    shift = torch.stack([rand(n, -0.5, 0.5, reach), rand(n, -0.5, 0.5, reach)], 1)
    middle = size / 2 + shift * torch.maximum(reach, torch.full_like(reach, size))[:, None] * 0.9
    roll = torch.randn(n, device=reach.device) * 0.3
    return cut(pictures, similarity(middle, reach, roll, chance(n, 0.5, reach)), side)


def _hidden(picture: Tensor, pools: Pools, probability: float) -> Tensor:
    """Put a small thing, or a plain patch, before some pictures."""
    n, _, side, _ = picture.shape
    which = torch.nonzero(chance(n, probability, picture))[:, 0]
    if not len(which):
        return picture
    front = _things(pools, len(which), side, 0.15, 0.5)
    plain = chance(len(which), 0.4, picture)
    colour = torch.rand((len(which), 3, 1, 1), device=picture.device)
    alpha = front[:, 3:4]
    front[:, :3] = torch.where(plain[:, None, None, None], colour * alpha, front[:, :3])
    picture[which] = over(front, picture[which])
    return picture


def _cut_off(picture: Tensor, matrix: Tensor, probability: float) -> Tensor:
    """Black beyond a straight border through some pictures, as at the edge of a photograph."""
    n, _, side, _ = picture.shape
    line = (torch.arange(side, device=picture.device) + 0.5) / side - 0.5
    turn = matrix[:, :, :2] / matrix[:, :, :2].norm(dim=1, keepdim=True).clamp(min=1e-6)
    angle = torch.randint(4, (n,), device=picture.device) * (torch.pi / 2)
    normal = torch.stack([torch.cos(angle), torch.sin(angle)], 1)
    normal = (normal[:, None] @ turn)[:, 0]
    along = normal[:, :1, None] * line[None, None] + normal[:, 1:, None] * line[None, :, None]
    where = rand(n, 0.12, 0.5, picture)[:, None, None]
    gone = (along > where) & chance(n, probability, picture)[:, None, None]
    return torch.where(gone[:, None], torch.zeros_like(picture), picture)


def crop_examples(pools: Pools, n: int, side: int, negatives: float = 0.27) -> CropExamples:
    """Crops of faces as the detector's errors leave them, and of what is no face, mixed."""
    bad = int(n * negatives)
    good = n - bad
    picture, points, matrix = _face_crops(pools, n, side, bad)
    sure = torch.ones(n, device=picture.device)
    if bad:
        kind = torch.rand(bad, device=picture.device)
        picture[good:], sure[good:] = _other_crops(pools, picture[good:], kind, side)
    picture = _hidden(picture, pools, 0.22)
    picture = degrade(_cut_off(restyle(picture.clamp(0, 1)), matrix, 0.1))
    mixed = torch.randperm(n, device=picture.device)
    return CropExamples(picture[mixed], points[mixed], sure[mixed])


def _face_crops(pools: Pools, n: int, side: int, misplaced: int) -> tuple[Tensor, Tensor, Tensor]:
    """Faces on backgrounds, their points and matrices; the last ones' crops are misplaced."""
    heads, points = pools.faces.draw(n)
    like = points[:, 0, 0]
    warp = Warp.random(points, rand(n, 0, 1.1, like) * (~chance(n, 0.15, like)))
    bent = warp.bent(points)
    middle, size, roll = places_of(bent)
    wide = torch.where(chance(n, 0.5, like), 1.0, 0.4)
    middle = (
        middle
        + torch.randn((n, 2), device=like.device).clamp(-2, 2) * (0.075 * wide * size)[:, None]
    )
    reach = crop_reach(size) * torch.exp(
        torch.randn(n, device=like.device).clamp(-2, 2) * 0.13 * wide
    )
    roll = roll + torch.randn(n, device=like.device).clamp(-2.2, 2.2) * 0.2 * wide
    if misplaced:
        m = misplaced
        far = chance(m, 0.5, like)
        direction = rand(m, 0, 6.283, like)
        away = torch.where(far, rand(m, 0.75, 1.6, like), rand(m, 0, 0.3, like)) * size[-m:]
        middle[-m:] += torch.stack([torch.cos(direction), torch.sin(direction)], 1) * away[:, None]
        zoom = torch.where(chance(m, 0.5, like), rand(m, 0.25, 0.42, like), rand(m, 2.6, 5, like))
        reach[-m:] *= torch.where(far, rand(m, 0.7, 1.4, like), zoom)
    mirrored = chance(n, 0.5, like)
    matrix = similarity(middle, reach, roll, mirrored)
    front = cut(heads, matrix, side, warp)
    back = _backgrounds(pools, n, side)
    offset = bent - matrix[:, None, :, 2]
    where = offset @ torch.linalg.inv(matrix[:, :, :2]).transpose(1, 2)
    flipped = where[:, torch.from_numpy(MIRROR).to(where.device)]
    where = torch.where(mirrored[:, None, None], flipped, where)
    return over(front, back), where, matrix


def _other_crops(pools: Pools, misplaced: Tensor, kind: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Crops without a face: misplaced ones, heads from behind, animals, things, backgrounds."""
    n = len(misplaced)
    made = misplaced.clone()
    ground = _backgrounds(pools, n, side)
    things = over(_things(pools, n, side, 0.6, 3.0), ground)
    here = (kind > 0.3)[:, None, None, None]
    made = torch.where(here, things, made)
    made = torch.where((kind > 0.78)[:, None, None, None], ground, made)
    if pools.backs.count:
        heads, _ = pools.backs.draw(n)
        like = kind
        middle = torch.stack([rand(n, 90, 166, like), rand(n, 70, 150, like)], 1)
        matrix = similarity(
            middle, rand(n, 100, 250, like), torch.randn(n, device=kind.device) * 0.3,
            chance(n, 0.5, like),
        )  # fmt: skip
        behind = over(cut(heads, matrix, side), ground)
        made = torch.where((kind > 0.86)[:, None, None, None], behind, made)
    return made, torch.zeros(n, device=made.device)


def scene_examples(pools: Pools, n: int, side: int, slots: int = 4) -> SceneExamples:
    """Scenes with some heads, animals and things of all sizes."""
    picture = _backgrounds(pools, n, side)
    device = picture.device
    places = torch.zeros((n, slots, 4), device=device)
    seen = torch.zeros((n, slots), dtype=torch.bool, device=device)
    for _ in range(2):
        some = torch.nonzero(chance(n, 0.4, picture))[:, 0]
        if len(some):
            picture[some] = over(_things(pools, len(some), side, 0.15, 1.3), picture[some])
    for slot in range(slots):
        _add_heads(pools, picture, places, seen, slot)
    if pools.backs.count:
        some = torch.nonzero(chance(n, 0.15, picture))[:, 0]
        _add_backs(pools, picture, places, seen, some)
    some = torch.nonzero(chance(n, 0.2, picture))[:, 0]
    if len(some):
        small = over(_things(pools, len(some), side, 0.04, 0.12), picture[some])
        picture[some] = small
    return SceneExamples(degrade(restyle(picture.clamp(0, 1))), places, seen)


def _add_heads(pools: Pools, picture: Tensor, places: Tensor, seen: Tensor, slot: int) -> None:
    """One more head in some scenes, where there is room for it."""
    n, _, side, _ = picture.shape
    heads, points = pools.faces.draw(n)
    like = points[:, 0, 0]
    warp = Warp.random(points, rand(n, 0, 1, like))
    bent = warp.bent(points)
    middle, size, roll = places_of(bent)
    low, high = torch.log(torch.tensor([12.0, 80.0]))
    wanted = torch.exp(rand(n, float(low), float(high), like))
    turned = torch.randn(n, device=like.device).clamp(-2.2, 2.2) * 0.32
    at = torch.stack([rand(n, 0.02, 0.98, like), rand(n, 0.02, 0.98, like)], 1) * side
    others, there = places[:, :slot], seen[:, :slot]
    gap = (others[:, :, :2] - at[:, None]).norm(dim=2)
    free = ((gap > 1.15 * (others[:, :, 2] + wanted[:, None]) / 1.2) | ~there).all(1)
    some = torch.nonzero(free & chance(n, 0.6 if slot == 0 else 0.4, like))[:, 0]
    if not len(some):
        return
    scale = size / wanted  # head's pixels for one of the scene
    mirrored = chance(n, 0.5, like)
    flip = torch.where(mirrored, -1.0, 1.0)
    # The face's roll in the scene is `turned`; the scene is seen from the head turned back.
    back = roll - turned * flip
    offset = (side / 2 - at) * scale[:, None]
    offset[:, 0] *= flip
    cosine, sine = torch.cos(back), torch.sin(back)
    centre = middle + torch.stack(
        [cosine * offset[:, 0] - sine * offset[:, 1], sine * offset[:, 0] + cosine * offset[:, 1]],
        1,
    )
    matrix = similarity(centre, side * scale, back, mirrored)
    some_warp = Warp(*(getattr(warp, name)[some] for name in Warp.__slots__))
    front = cut(heads[some], matrix[some], side, some_warp)
    picture[some] = over(front, picture[some])
    if slot:  # faces that the new head hides
        alpha = F.avg_pool2d(front[:, 3:4], 9, 1, 4)
        at_faces = (places[some][:, None, :slot, :2] / side * 2 - 1).clamp(-1, 1)
        hidden = F.grid_sample(alpha, at_faces, align_corners=False)[:, 0, 0] > 0.4
        seen[some, :slot] &= ~hidden
    places[some, slot] = torch.cat([at, wanted[:, None], turned[:, None]], 1)[some]
    seen[some, slot] = True


def _add_backs(pools: Pools, picture: Tensor, places: Tensor, seen: Tensor, some: Tensor) -> None:
    """A head from behind, away from the faces."""
    n, side = len(some), picture.shape[2]
    if not n:
        return
    heads, _ = pools.backs.draw(n)
    like = picture[:1, 0, 0, 0].expand(n)
    scale = torch.exp(rand(n, 0.3, 2.2, like))
    at = torch.stack([rand(n, 0, 1, like), rand(n, 0, 1, like)], 1) * side
    gap = (places[some][:, :, :2] - at[:, None]).norm(dim=2)
    far = gap > places[some][:, :, 2] * 0.8 + 128 / scale[:, None]
    free = (far | ~seen[some]).all(1)
    centre = 128 + (side / 2 - at) * scale[:, None]
    matrix = similarity(centre, side * scale, rand(n, -0.3, 0.3, like), chance(n, 0.5, like))
    front = cut(heads, matrix, side)
    front = front * free[:, None, None, None]
    picture[some] = over(front, picture[some])
