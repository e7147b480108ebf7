"""Looks for synthetic people: beards, glasses, headwear, teeth, lips, age, light, things in front.

A look is data (`Look`, `random_look`); `apply` gives it to one head of an external renderer, whose
pictures then show it. This package knows neither a model nor what the pictures are for.
"""

from wsavatar.training.looks.drawing import apply, person_mask, transparent_background
from wsavatar.training.looks.look import (
    FacialHair,
    Glasses,
    Headwear,
    Lips,
    Look,
    Occluder,
    Skin,
    Teeth,
    random_look,
)

__all__ = [
    "FacialHair",
    "Glasses",
    "Headwear",
    "Lips",
    "Look",
    "Occluder",
    "Skin",
    "Teeth",
    "apply",
    "person_mask",
    "random_look",
    "transparent_background",
]
