"""Looks of synthetic people: what can be promised without a renderer."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from wsavatar.training.looks import FacialHair, Glasses, Occluder, Teeth, random_look
from wsavatar.training.looks.look import BEARDS, FRAMES, MOUSTACHES, OCCLUDERS
from wsavatar.training.looks.mouth import light_inside, place_mouth, shape_teeth
from wsavatar.training.looks.shapes import glasses, hair_outside, occluder
from wsavatar.training.looks.strands import grow, growth

_LIPS = [
    (-2.5, -3.5), (-1.7, -2.8), (-0.7, -2.4), (0, -2.5), (0.7, -2.4), (1.7, -2.8), (2.5, -3.5),
    (1.8, -4.1), (1.0, -4.3), (0, -4.4), (-1.0, -4.3), (-1.8, -4.1),
]  # fmt: skip


def _depth(x: Any, y: Any) -> Any:
    return 11.5 - 0.09 * np.square(x) - 0.03 * np.square(np.add(y, 2))


def _normals(points: np.ndarray) -> np.ndarray:
    straight = np.zeros_like(points)
    straight[:, 2] = 1
    return straight


@pytest.fixture
def heads() -> SimpleNamespace:
    """A renderer's module with a curved sheet for a face, and two teeth of two triangles."""
    x, y = np.meshgrid(np.linspace(-8, 8, 65), np.linspace(-10, 8, 73))
    sheet = np.stack([x.ravel(), y.ravel(), _depth(x, y).ravel()], 1)
    cell = np.arange(len(sheet)).reshape(x.shape)
    a, b, c, d = (v.ravel() for v in (cell[:-1, :-1], cell[:-1, 1:], cell[1:, :-1], cell[1:, 1:]))
    skin = np.concatenate([np.stack([a, b, c], 1), np.stack([c, b, d], 1)])
    lips = np.array([(u, v, _depth(u, v)) for u, v in _LIPS])
    tooth = np.array([(0, -1, 10), (0.8, -1, 10), (0, -3, 10), (0.8, -3, 10)], float)
    teeth = np.concatenate([tooth - [0.9, 0, 0], tooth + [0.1, 0, 0]])
    n = len(sheet) + len(lips)
    biting = n + np.array([(0, 1, 2), (2, 1, 3), (4, 5, 6), (6, 5, 7)])
    return SimpleNamespace(
        V0=np.concatenate([sheet, lips, teeth]),
        TRI=np.concatenate([skin, biting]),
        TM=np.array([0] * len(skin) + [3] * len(biting)),
        NV=n + len(teeth),
        LM=[0] * 48 + [len(sheet) + k for k in range(12)],
        normals=_normals,
    )


def _head(heads: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(base=heads.V0.copy(), uni={})


def test_a_seed_gives_one_look_and_seeds_give_many() -> None:
    """Renders can be repeated: the look depends on the generator and the head alone."""
    looks = [repr(random_look(np.random.default_rng(seed))) for seed in (1, 1, 2)]
    assert looks[0] == looks[1] != looks[2]


def test_random_looks_have_all_that_the_renderer_can_show() -> None:
    """Over many people every kind of beard, frame and thing in front of the face occurs."""
    looks = [random_look(np.random.default_rng(seed)) for seed in range(1500)]
    hair = [look.facial_hair for look in looks if look.facial_hair]
    assert {h.beard for h in hair} == set(BEARDS)
    assert {h.moustache for h in hair} == set(MOUSTACHES)
    assert {g.shape for look in looks if (g := look.glasses)} == set(FRAMES)
    assert {o.kind for look in looks if (o := look.occluder)} == set(OCCLUDERS)
    assert any(look.light for look in looks) and any(look.teeth.missing for look in looks)
    assert min(h.length for h in hair) < 0.2 and max(h.length for h in hair) > 4


def test_a_made_up_head_gets_no_beard() -> None:
    """A head with make-up is a woman's."""
    looks = [random_look(np.random.default_rng(s), {"makeup": 0.4}) for s in range(100)]
    assert not any(look.facial_hair for look in looks)


@pytest.mark.parametrize("beard", [b for b in BEARDS if b != "none"])
def test_no_hair_grows_on_lips_nose_and_eyes(heads: SimpleNamespace, beard: str) -> None:
    """Beards have their places: chin or cheeks, never the lips or the upper face."""
    hair = FacialHair(beard=beard, moustache="plain")
    bare = np.array([(0, -2.9, 11), (1.2, -3.5, 11), (0, -4.0, 11), (0, 0.5, 12), (3, 3.5, 9.5)])
    cheek_or_chin = (6.9, -1.5, 5) if beard == "sideburns" else (0, -7, 10)
    grown = np.array([(0.8, -1.9, 11), cheek_or_chin])
    assert growth(heads, bare, hair).max() < 0.05
    assert growth(heads, grown, hair).min() > 0.3


def test_strands_follow_the_skin_under_their_roots(heads: SimpleNamespace) -> None:
    """A jaw that drops takes its beard along; the rest of the face keeps its hair."""
    head = _head(heads)
    strands = grow(heads, head, FacialHair("full", "plain", length=1.0, density=0.3))
    assert strands is not None
    closed = strands.vertices(head.base, _normals(head.base))[..., :3]
    lower = head.base.copy()
    lower[lower[:, 1] < -3.6] -= [0, 2, 0.5]
    opened = strands.vertices(lower, _normals(lower))[..., :3]
    moved = np.linalg.norm(opened - closed, axis=-1).mean((1, 2))
    chin, lip = strands.rest[:, 1] < -5, strands.rest[:, 1] > -3
    assert moved[chin].min() > 1.9 and moved[lip].max() < 1e-3
    roots = closed[:, 0].mean(1)
    assert np.abs(roots[:, 2] - _depth(roots[:, 0], roots[:, 1])).max() < 0.1


def test_longer_hair_reaches_further_and_none_enters_the_skin(heads: SimpleNamespace) -> None:
    """Lengths are cm, and strands lie outside the skin."""
    head, reach = _head(heads), []
    for length in (0.3, 1.0, 3.0):
        strands = grow(heads, head, FacialHair("full", length=length, density=0.3))
        assert strands is not None
        places = strands.local
        reach.append(np.linalg.norm(places[:, -1], axis=1).max())
        assert places[..., 2].min() > -1e-6
    assert 0.2 < reach[0] < 0.5 < reach[1] < 1.5 < reach[2] < 3.6


def test_glasses_stand_in_front_of_eyes_and_nose(heads: SimpleNamespace) -> None:
    """No lens or rim cuts into the face, for every shape of frame."""
    head, skin = _head(heads), np.unique(heads.TRI[heads.TM == 0])
    for shape in FRAMES:
        parts = glasses(head.base, skin, Glasses(shape=shape))
        lenses = [part for part in parts if part.finish.lens > 0]
        assert len(lenses) == 2
        for part in lenses:
            x, y, z = part.points.T
            assert (z > _depth(x, y)).all()
        for part in parts:
            assert part.triangles.max() < len(part.points) == len(part.colours)


def test_every_thing_in_front_of_the_face_is_in_front(heads: SimpleNamespace) -> None:
    """Hand, mug, microphone and phone are nearer to the camera than the skin behind them."""
    head, skin = _head(heads), np.unique(heads.TRI[heads.TM == 0])
    for kind in OCCLUDERS:
        parts = occluder(head.base, skin, Occluder(kind=kind), (0.5, 0.3, 0.2))
        x, y, z = np.concatenate([part.points for part in parts]).T
        near = (np.abs(x) < 6) & (y > -9)
        assert near.any() and (z > _depth(x, y))[near].mean() > 0.5


def test_headwear_covers_the_hair_above_its_rim() -> None:
    """Hair of the crown is hidden, hair at the shoulders is not; a scarf hides all."""
    looks = [random_look(np.random.default_rng(seed)) for seed in range(300)]
    points = np.array([(0, 14, 0), (8, -10, 0)])
    for kind in (look.headwear for look in looks):
        if kind:
            free = hair_outside(kind, points)
            wanted = {"scarf": [False, False], "headband": [True, True]}
            assert list(free) == wanted.get(kind.kind, [False, True])


def test_teeth_get_gaps_and_can_be_missing(heads: SimpleNamespace) -> None:
    """Each tooth is shaped by itself; the colour goes to the renderer."""
    head = _head(heads)
    teeth = Teeth(gap=0.3, colour=(0.9, 0.8, 0.6))
    shape_teeth(heads, head, teeth)
    left, right = head.base[-8:-4], head.base[-4:]
    assert right[:, 0].min() - left[:, 0].max() == pytest.approx(0.2 + 0.3)
    assert head.uni["toothc"] == (0.9, 0.8, 0.6)
    shape_teeth(heads, head, replace(teeth, missing=(1,)))
    assert np.ptp(head.base[-4:], axis=0).max() == 0 and np.ptp(head.base[-8:-4], axis=0).max() > 1


@pytest.mark.parametrize("lowest", [-3.1, -3.6])
def test_all_people_show_their_teeth_alike(lowest: float) -> None:
    """Wherever a head's teeth are, a spoken "e" shows as much of them; the tongue lies lower."""
    lips = [(0, -3, 11), (0, -5, 11)]
    tongue = [(-0.5, -4, 9), (0.5, -4, 9), (0, -4, 8)]
    across = np.linspace(-3, 3, 16)
    above = [[(x, -1, 10), (x + 0.2, -1, 10), (x, lowest, 10)] for x in across]
    below = [[(x, -6, 10), (x + 0.2, -6, 10), (x, lowest - 1.2, 10)] for x in across]
    rest = np.array([*lips, *tongue, *sum(above + below, [])], float)
    triangles = np.arange(2, len(rest)).reshape(-1, 3)
    heads = SimpleNamespace(
        V0=rest,
        NV=len(rest),
        TRI=triangles,
        TM=np.array([2] + [3] * 32),
        LM=[0] * 62 + [0, 0, 0, 0, 1],
        TW=np.array([0, 0, 1, 1, 1] + [0] * 96),
        VIS={"EH": {}},
        deform=lambda base, controls: base.copy(),
    )
    head = _head(heads)
    place_mouth(heads, head, Teeth(upper_shown=0.5, lower_shown=0.1))
    upper, lower = head.base[5:53], head.base[53:]
    assert upper[:, 1].min() == pytest.approx(-3 - 0.5)
    assert lower[:, 1].max() == pytest.approx(-5 + 0.1)
    assert (head.base[2:5, 1] < rest[2:5, 1]).all() and (head.base[:2] == rest[:2]).all()


def test_teeth_are_light_behind_nearly_closed_lips() -> None:
    """The renderer darkens the inside of a closed mouth to a third; here most light stays."""
    opening = SimpleNamespace(value=0.0)
    renderer: Any = SimpleNamespace(face={"P_MOUTH": {"mouthopen": opening}})
    light_inside(renderer)
    assert 0.5 < opening.value < 1
    opening.value = 1.0
    light_inside(renderer)
    assert opening.value == pytest.approx(1)
