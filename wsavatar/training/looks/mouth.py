"""The inside of a head's mouth: where teeth and tongue are, what they look like, how light it is.

The renderer's own heads speak with the tongue: their upper teeth end 1 to 4 mm below the lip, and
nearly closed lips show a dark inside. People speak with their upper teeth. Mesh changes are
made before a head's first picture. This module knows no drawing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wsavatar.training.looks.look import Teeth

__all__ = ["light_inside", "place_mouth", "shape_teeth"]

_TONGUE_DOWN, _TONGUE_BACK = 0.35, 0.15  # cm
_LEAST_LIGHT = 0.7  # of what the renderer gives a wide open mouth


def place_mouth(heads: Any, head: Any, teeth: Teeth) -> None:
    """Move teeth, gums and tongue so that a spoken "e" shows as much of them as ``teeth`` says.

    Call after `shape_teeth`. A tooth moves by at most 0.7 cm.
    """
    mesh = heads.deform(head.base, heads.VIS["EH"])
    upper_lip, lower_lip = mesh[heads.LM[62], 1], mesh[heads.LM[66], 1]
    single = _single_teeth(heads)
    above, below = (np.concatenate(single[k : k + 2]) for k in (7, 23))
    down = mesh[above, 1].min() - (upper_lip - teeth.upper_shown)
    sink = mesh[below, 1].max() - (lower_lip + teeth.lower_shown)
    down, sink = (float(np.clip(v, -0.7, 0.7)) for v in (down, sink))
    inside = np.unique(heads.TRI[np.isin(heads.TM, (2, 3))])
    is_above = np.zeros(heads.NV, bool)
    is_above[np.concatenate(single[:16])] = True
    gums = np.setdiff1d(inside, np.concatenate(single))
    middle = (heads.V0[heads.LM[62], 1] + heads.V0[heads.LM[66], 1]) / 2
    is_above[gums] = heads.V0[gums, 1] > middle
    tongue = heads.TW[inside] > 0
    head.base[inside, 1] -= np.where(is_above[inside] & ~tongue, down, sink + _TONGUE_DOWN * tongue)
    head.base[inside, 2] -= _TONGUE_BACK * tongue


def light_inside(renderer: Any) -> None:
    """Light teeth and tongue behind nearly closed lips; to be called before each drawing of them.

    The renderer has just set how open the mouth is, by which it darkens what is inside.
    """
    opening = renderer.face["P_MOUTH"]["mouthopen"]
    opening.value = _LEAST_LIGHT + (1 - _LEAST_LIGHT) * opening.value


def shape_teeth(heads: Any, head: Any, teeth: Teeth) -> None:
    """Change size, gaps and places of single teeth, and the colour of all."""
    rng = np.random.default_rng(teeth.seed)
    for number, vertices in enumerate(_single_teeth(heads)):
        points = head.base[vertices]
        above = number < 16
        centre = points.mean(0)
        root = points[:, 1].max() if above else points[:, 1].min()
        if number in teeth.missing:
            head.base[vertices] = [centre[0], root, centre[2] - 0.8]
            continue
        points = points + rng.normal(0, 0.06, 3) * teeth.crooked
        angle = rng.normal(0, 0.2) * teeth.crooked
        turn = np.array(
            [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
        )
        points = (points - centre) @ turn.T * [teeth.width, 1, 1] + centre
        height = teeth.height * (1 + 0.06 * rng.normal() * teeth.crooked)
        points[:, 1] = root + (points[:, 1] - root) * height
        if above and abs(centre[0]) < 3:
            points[:, 0] += np.sign(centre[0]) * teeth.gap / 2
        head.base[vertices] = points
    head.uni["toothc"] = teeth.colour


def _single_teeth(heads: Any) -> list[np.ndarray]:
    """Vertices of each tooth: 16 above, then 16 below, from left to right."""
    triangles = heads.TRI[heads.TM == 3]
    label = np.arange(heads.NV)
    while True:  # the smallest vertex number spreads over each connected part
        smallest = label[triangles].min(1)
        spread = label.copy()
        np.minimum.at(spread, triangles.ravel(), smallest.repeat(3))
        if (spread == label).all():
            break
        label = spread
    used = np.unique(triangles)
    parts = [used[label[used] == name] for name in np.unique(label[used])]
    rest = heads.V0
    middle = np.median([rest[part, 1].mean() for part in parts])
    return sorted(parts, key=lambda p: (rest[p, 1].mean() < middle, rest[p, 0].mean()))
