"""The synthetic people: looks, poses and idle motion.

Plain data and small pure functions; ``synthesis`` uses them with a renderer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["BUNDLED", "Person", "idle_motion", "random_motion", "turned"]

Motion = tuple[dict[str, float], tuple[float, float, float], tuple[float, float, float]]
"""Upper-face controls, head rotation in degrees (pitch, yaw, roll), head shift in cm."""


@dataclass(frozen=True, slots=True)
class Person:
    """A look: arguments of the renderer's ``Head``, a light rig, a background, uniforms to set."""

    id: str
    name: str
    description: str
    head: dict[str, Any]
    light: str
    background: tuple[tuple[float, ...], tuple[float, ...]]
    uniforms: dict[str, Any] = field(default_factory=dict)
    motion_seed: int = 0


_TEETH = (0.82, 0.79, 0.72)

BUNDLED = (
    Person(
        id="mei",
        name="Mei",
        description="A woman with a black bob and a green V-neck sweater.",
        head=dict(
            seed=112, hair="bob", hairc="black", skin=(232, 192, 160), eyes="dark", makeup=0.3,
            lip=0.45, cloth=(0.16, 0.22, 0.20), neckline="vneck", shoulder=17.5, brow=0.9,
        ),
        light="window",
        background=((0.70, 0.68, 0.64), (0.40, 0.38, 0.36)),
        uniforms=dict(toothc=_TEETH, oil=0.8),
        motion_seed=11,
    ),
    Person(
        id="leo",
        name="Leo",
        description="A man with short light-brown hair and a navy sweater.",
        head=dict(
            seed=106, hair="crop", hairc="brown", skin=(222, 172, 146), eyes="blue", stubble=0.12,
            lip=0.12, cloth=(0.05, 0.075, 0.13), neckline="crew", shoulder=20.5, brow=1.1, lash=0.6,
            rest=dict(eyeWide=0.08, mouthSmile=0.15, cheekSquint=0.05),
        ),
        light="warm",
        background=((0.48, 0.44, 0.41), (0.20, 0.18, 0.17)),
        uniforms=dict(toothc=_TEETH, oil=0.8),
        motion_seed=23,
    ),
    Person(
        id="amara",
        name="Amara",
        description="A woman with black hair in a bun and a yellow top.",
        head=dict(
            seed=111, hair="bun", hairc="black", skin=(128, 90, 68), eyes="dark", makeup=0.3,
            lip=0.4, cloth=(0.42, 0.25, 0.05), neckline="scoop", shoulder=17.5,
        ),
        light="soft",
        background=((0.45, 0.55, 0.56), (0.17, 0.24, 0.26)),
        uniforms=dict(toothc=_TEETH, oil=0.55),
        motion_seed=37,
    ),
    Person(
        id="clara",
        name="Clara",
        description="A woman with long dark hair and a burgundy sweater.",
        head=dict(
            seed=113, hair="long", hairc="dark", skin="light", eyes="green", makeup=0.35, lip=0.55,
            cloth=(0.26, 0.07, 0.09), neckline="crew", shoulder=17.5, brow=0.9,
        ),
        light="studio",
        background=((0.62, 0.66, 0.72), (0.30, 0.33, 0.38)),
        uniforms=dict(toothc=_TEETH, oil=0.8),
        motion_seed=53,
    ),
)  # fmt: skip


def _smooth_noise(rng: np.random.Generator, count: int, fps: float, slowest_s: float) -> np.ndarray:
    """A slow random walk of unit size: a few incommensurate sines."""
    t = np.arange(count) / fps
    total = np.zeros(count)
    for k in range(4):
        period = slowest_s / (1.0 + 0.83 * k)
        total += np.sin(2 * np.pi * t / period + rng.uniform(0, 2 * np.pi)) / (1 + k)
    return total / 1.6


def idle_motion(seed: int, count: int, fps: float = 25.0) -> list[Motion]:
    """Idle motion: blinks every 2 to 4 s, a slowly moving head, breathing. No mouth controls."""
    rng = np.random.default_rng(seed)
    pitch, yaw, roll = (_smooth_noise(rng, count, fps, s) for s in (9.0, 11.0, 13.0))
    brow = _smooth_noise(rng, count, fps, 6.0)
    breath = np.sin(2 * np.pi * np.arange(count) / fps / 4.2)
    blink = np.zeros(count)
    at = rng.uniform(0.8, 2.0)
    while at < count / fps:
        # An eyelid closes in about 80 ms and opens in about 160.
        d = np.arange(count) / fps - at
        blink = np.maximum(blink, np.clip(1 - np.where(d < 0, -d / 0.08, d / 0.17), 0, 1))
        at += rng.uniform(2.0, 4.0)
    return [
        (
            {"eyeBlink": float(blink[i] ** 0.7), "browInnerUp": float(0.06 + 0.06 * brow[i])},
            (float(1.1 * pitch[i]), float(2.2 * yaw[i]), float(1.0 * roll[i])),
            (0.0, float(0.06 * breath[i]), 0.0),
        )
        for i in range(count)
    ]


def random_motion(rng: np.random.Generator) -> Motion:
    """One random pose for training, with a wider range than idle motion."""
    blink = float(rng.uniform(0.2, 1.0)) if rng.uniform() < 0.15 else 0.0
    return (
        {"eyeBlink": blink, "browInnerUp": float(rng.uniform(0, 0.3))},
        (float(rng.normal(0, 3)), float(rng.normal(0, 6)), float(rng.normal(0, 2.5))),
        tuple(float(v) for v in rng.normal(0, (0.25, 0.2, 0.6))),  # type: ignore[return-value]
    )


def turned(motion: Motion, yaw: float) -> Motion:
    """The same moment with the head turned by ``yaw`` degrees more."""
    upper, (pitch, old, roll), shift = motion
    return upper, (pitch, old + yaw, roll), shift
