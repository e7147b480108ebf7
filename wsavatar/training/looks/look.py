"""What a synthetic person looks like beyond the renderer's own head: plain data, and a random one.

A `Look` is independent of any renderer. Lengths are in cm, colours are linear RGB in 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = [
    "FacialHair",
    "Glasses",
    "Headwear",
    "Lips",
    "Look",
    "Occluder",
    "Skin",
    "Teeth",
    "random_look",
]

Colour = tuple[float, float, float]

BEARDS = ("none", "full", "goatee", "chin", "chinstrap", "sideburns")
MOUSTACHES = ("none", "plain", "horseshoe", "handlebar")
FRAMES = ("round", "square", "aviator", "cat", "half")
HEADWEAR = ("beanie", "cap", "hat", "scarf", "headband", "turban")
OCCLUDERS = ("hand", "mug", "microphone", "phone")


@dataclass(frozen=True, slots=True)
class FacialHair:
    """Beard and moustache: strands that grow from the skin and move with jaw and lips."""

    beard: str = "none"  # of BEARDS
    moustache: str = "none"  # of MOUSTACHES
    length: float = 1.5  # of the longest strands; below 0.4 it is stubble
    density: float = 1.0  # share of the usual number of strands
    curl: float = 0.2  # 0: straight, 1: tight curls
    colour: Colour = (0.06, 0.035, 0.02)
    grey: float = 0.0  # share of grey strands
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Glasses:
    shape: str = "round"  # of FRAMES
    width: float = 2.6  # half the width of one lens
    height: float = 2.0  # half the height of one lens
    thickness: float = 0.14  # radius of the rim
    colour: Colour = (0.02, 0.02, 0.02)
    tint: float = 0.04  # how much the lens darkens: 0 clear, 0.9 sunglasses
    shine: float = 0.5  # how much the lens reflects


@dataclass(frozen=True, slots=True)
class Headwear:
    kind: str = "beanie"  # of HEADWEAR
    colour: Colour = (0.1, 0.1, 0.15)
    trim: Colour = (0.1, 0.1, 0.15)  # rim, band or visor
    lower: float = 0.0  # the rim sits this much lower
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Teeth:
    colour: Colour = (0.82, 0.79, 0.72)
    width: float = 1.0
    height: float = 1.0
    gap: float = 0.0  # between the upper middle teeth
    crooked: float = 0.0  # 0: straight, 1: very crooked
    upper_shown: float = 0.5  # how far the upper ones reach below the lip in a spoken "e"
    lower_shown: float = 0.1  # and the lower ones above theirs
    missing: tuple[int, ...] = ()  # numbers 0 to 15 above, 16 to 31 below, left to right
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Lips:
    thickness: float = 0.0  # -0.6: thin, 0.4: full
    colour: Colour | None = None  # None: the head's own
    strength: float = 0.0  # of the colour
    gloss: float = 0.0


@dataclass(frozen=True, slots=True)
class Skin:
    """Age and make-up, as relief and colour of the skin."""

    wrinkles: float = 0.0
    spots: float = 0.0  # brown spots of age
    blemishes: float = 0.0  # red spots
    blush: float = 0.0
    eye_shadow: float = 0.0
    shadow_colour: Colour = (0.2, 0.1, 0.15)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Occluder:
    """A thing in front of the lower face; it moves with the head."""

    kind: str = "hand"  # of OCCLUDERS
    side: float = 1.0  # -1 or 1
    place: tuple[float, float] = (0.0, 0.0)  # shift across and up
    turn: float = 0.0  # radians
    colour: Colour = (0.5, 0.5, 0.5)  # of a thing; a hand has the head's skin


@dataclass(frozen=True, slots=True)
class Look:
    """One person's look.

    ``head`` are changed arguments of the renderer's ``Head``; ``light`` is a light rig of the
    renderer, or None for any.
    """

    head: dict[str, Any] = field(default_factory=dict)
    light: dict[str, Any] | None = None
    facial_hair: FacialHair | None = None
    glasses: Glasses | None = None
    headwear: Headwear | None = None
    teeth: Teeth = field(default_factory=Teeth)
    lips: Lips = field(default_factory=Lips)
    skin: Skin = field(default_factory=Skin)
    occluder: Occluder | None = None


def random_look(rng: np.random.Generator, head: Mapping[str, Any] | None = None) -> Look:
    """A random look. ``head``: the arguments of the renderer's ``Head`` that it will change.

    A head without ``makeup`` is taken for a man's, and gets a beard in seven of ten cases.
    """
    head = head or {}
    man = not head.get("makeup", 0)
    age = float(np.clip(rng.normal(0.35, 0.4), 0, 1))
    changes: dict[str, Any] = {"age": age}
    skin = head.get("skin", "light")
    dark = not isinstance(skin, str) and float(np.mean(skin)) < 115
    hair = _hair_colour(rng, dark, max(0.0, age - 0.45) * 1.7 * rng.uniform(0.2, 1.0))
    changes["hairc"] = hair
    if man:
        changes["stubble"] = 0.0
    changes["rest"] = dict(
        eyeWide=float(rng.uniform(0.0, 0.25)),
        mouthSmile=float(rng.uniform(-0.05, 0.4)),
        browInnerUp=float(rng.uniform(0, 0.15)),
        mouthFrown=float(max(0.0, rng.uniform(-0.5, 0.3))),
    )
    return Look(
        head=changes,
        light=_hard_light(rng) if rng.uniform() < 0.4 else None,
        facial_hair=_facial_hair(rng, hair[0]) if man and rng.uniform() < 0.7 else None,
        glasses=_glasses(rng) if rng.uniform() < 0.3 else None,
        headwear=_headwear(rng, man) if rng.uniform() < 0.22 else None,
        teeth=_teeth(rng),
        lips=_lips(rng, man, age),
        skin=_skin(rng, man, age),
        occluder=_occluder(rng) if rng.uniform() < 0.06 else None,
    )


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(1 << 30))


def _colour(rng: np.random.Generator, darkest: float, brightest: float) -> Colour:
    """A muted or a strong colour."""
    value = rng.uniform(darkest, brightest)
    colour = value * (1 + rng.uniform(0, 0.8) * rng.uniform(-1, 1, 3))
    r, g, b = (float(c) for c in np.clip(colour, 0.005, 0.9))
    return r, g, b


def _mixed(a: Colour, b: Colour, share: float) -> Colour:
    r, g, c = (float(x * (1 - share) + y * share) for x, y in zip(a, b, strict=True))
    return r, g, c


_HAIR: tuple[Colour, ...] = (
    (0.012, 0.010, 0.009),
    (0.035, 0.020, 0.012),
    (0.085, 0.045, 0.022),
    (0.12, 0.05, 0.022),
    (0.30, 0.19, 0.085),
    (0.22, 0.06, 0.018),
)


def _hair_colour(rng: np.random.Generator, dark: bool, grey: float) -> tuple[Colour, Colour]:
    """Colours at the root and at the tip. ``dark``: black or dark brown."""
    natural = _HAIR[rng.integers(2 if dark else len(_HAIR))]
    root = _mixed(natural, (0.42, 0.42, 0.42), min(1.0, grey))
    r, g, b = (float(c * f) for c, f in zip(root, rng.uniform(0.93, 1.07, 3), strict=True))
    return (r, g, b), (1.5 * r, 1.5 * g, 1.48 * b)


_STYLES = (  # beard, moustache, share
    ("full", "plain", 0.37), ("full", "handlebar", 0.05), ("full", "none", 0.05),
    ("goatee", "horseshoe", 0.10), ("goatee", "plain", 0.05), ("chin", "none", 0.03),
    ("chinstrap", "plain", 0.05), ("sideburns", "plain", 0.03), ("none", "plain", 0.15),
    ("none", "handlebar", 0.06), ("none", "horseshoe", 0.06),
)  # fmt: skip


def _facial_hair(rng: np.random.Generator, hair: Colour) -> FacialHair:
    beard, moustache, _ = _STYLES[rng.choice(len(_STYLES), p=[share for *_, share in _STYLES])]
    kind = rng.uniform()
    if kind < 0.3:
        length = rng.uniform(0.12, 0.4)
    elif kind < 0.8:
        length = rng.uniform(0.5, 1.8)
    else:
        length = rng.uniform(1.8, 6.0)
    brown: Colour = (0.14, 0.06, 0.025)
    return FacialHair(
        beard=beard,
        moustache=moustache,
        length=float(length),
        density=float(rng.uniform(0.55, 1.0)),
        curl=float(rng.uniform(0, 1) ** 1.5),
        colour=_mixed(hair, brown, float(rng.uniform(0, 0.4))),
        grey=float(max(0.0, rng.uniform(-1.5, 0.6))),
        seed=_seed(rng),
    )


def _glasses(rng: np.random.Generator) -> Glasses:
    dark = rng.uniform() < 0.55
    return Glasses(
        shape=FRAMES[rng.integers(len(FRAMES))],
        width=float(rng.uniform(2.1, 3.0)),
        height=float(rng.uniform(1.4, 2.4)),
        thickness=float(rng.uniform(0.05, 0.24)),
        colour=_colour(rng, 0.005, 0.03) if dark else _colour(rng, 0.05, 0.5),
        tint=float(rng.uniform(0.3, 0.9)) if rng.uniform() < 0.15 else float(rng.uniform(0, 0.08)),
        shine=float(rng.uniform(0.1, 1.0)),
    )


def _headwear(rng: np.random.Generator, man: bool) -> Headwear:
    shares = [0.25, 0.3, 0.25, 0.0, 0.1, 0.1] if man else [0.2, 0.15, 0.25, 0.25, 0.1, 0.05]
    colour = _colour(rng, 0.01, 0.6)
    return Headwear(
        kind=HEADWEAR[rng.choice(len(HEADWEAR), p=shares)],
        colour=colour,
        trim=_colour(rng, 0.01, 0.6) if rng.uniform() < 0.4 else colour,
        lower=float(rng.uniform(-0.4, 0.6)),
        seed=_seed(rng),
    )


def _teeth(rng: np.random.Generator) -> Teeth:
    """Mostly even ones: nobody can tell them from a closed mouth, and a model that has to guess
    draws the mean of all, which is grey."""
    white, yellow = np.array([0.95, 0.93, 0.89]), np.array([0.72, 0.62, 0.40])
    colour = white + (yellow - white) * 0.8 * rng.uniform() ** 3
    r, g, b = (float(c) for c in colour * rng.uniform(0.9, 1.2))
    lost = rng.choice([4, 5, 6, 7, 8, 9, 10, 20, 22, 23, 24, 26], rng.integers(1, 3))
    return Teeth(
        colour=(r, g, b),
        width=float(rng.uniform(0.92, 1.04)),
        height=float(rng.uniform(0.9, 1.15)),
        gap=float(max(0.0, rng.uniform(-0.9, 0.15))),
        crooked=float(max(0.0, rng.uniform(-0.6, 0.6))),
        upper_shown=float(rng.normal(0.5, 0.05)),
        lower_shown=float(rng.normal(0.1, 0.03)),
        missing=tuple(int(n) for n in lost) if rng.uniform() < 0.02 else (),
        seed=_seed(rng),
    )


def _lips(rng: np.random.Generator, man: bool, age: float) -> Lips:
    thickness = float(np.clip(rng.normal(-0.25 * age, 0.22), -0.65, 0.4))
    if man or rng.uniform() < 0.45:
        return Lips(thickness=thickness, gloss=float(rng.uniform(0, 0.3)))
    colours = ((0.45, 0.02, 0.03), (0.25, 0.02, 0.05), (0.5, 0.15, 0.14), (0.55, 0.12, 0.2))
    return Lips(
        thickness=thickness,
        colour=colours[rng.integers(len(colours))],
        strength=float(rng.uniform(0.3, 0.9)),
        gloss=float(rng.uniform(0, 1)),
    )


def _skin(rng: np.random.Generator, man: bool, age: float) -> Skin:
    made_up = not man and rng.uniform() < 0.5
    return Skin(
        wrinkles=float(np.clip(age * rng.uniform(0.6, 1.4), 0, 1)),
        spots=float(max(0.0, age - 0.5) * rng.uniform(0, 2)),
        blemishes=float(max(0.0, rng.uniform(-1.5, 0.8))),
        blush=float(rng.uniform(0, 0.8)) if made_up else float(max(0.0, rng.uniform(-1, 0.5))),
        eye_shadow=float(rng.uniform(0.2, 0.9)) if made_up else 0.0,
        shadow_colour=_colour(rng, 0.02, 0.3),
        seed=_seed(rng),
    )


def _hard_light(rng: np.random.Generator) -> dict[str, Any]:
    """One strong lamp or the sun from the side or from above, and little else."""
    azimuth, height = rng.uniform(-1.3, 1.3), rng.uniform(-0.1, 1.1)
    key = [np.sin(azimuth), np.tan(height), np.cos(azimuth)]
    warmth = rng.normal(0, 0.15)
    colour = np.array([1 + warmth, 1.0, 1 - warmth]) * rng.uniform(2.8, 4.6)
    fill = rng.uniform(0.05, 0.5)
    tint = 1 + rng.normal(0, 0.1, 3)
    return dict(
        dir=np.array([key, (-key[0], 0.2, 0.7), (0.6, 0.5, -0.8), (-0.8, 0.3, -0.6)]),
        col=np.array([colour, fill * tint, rng.uniform(0, 1.4, 3), rng.uniform(0, 0.7, 3)]),
        sky=tuple(float(c) for c in tint * rng.uniform(0.10, 0.3)),
        gnd=tuple(float(c) for c in tint * rng.uniform(0.04, 0.16)),
        expo=float(rng.uniform(0.65, 0.95)),
    )


def _occluder(rng: np.random.Generator) -> Occluder:
    return Occluder(
        kind=OCCLUDERS[rng.choice(len(OCCLUDERS), p=[0.55, 0.1, 0.25, 0.1])],
        side=float(rng.choice([-1.0, 1.0])),
        place=(float(rng.normal(0, 1.0)), float(rng.normal(0, 1.0))),
        turn=float(rng.normal(0, 0.35)),
        colour=_colour(rng, 0.01, 0.7),
    )
