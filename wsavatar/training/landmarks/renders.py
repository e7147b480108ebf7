"""Renders heads for the landmark networks: pictures with alpha, exact points, random looks.

The renderer is not part of this package (`wsavatar.training.synthesis` says what it must offer).
A file is one person: ``pictures`` uint8 [n, 256, 256, 4], RGB multiplied by alpha; ``points``
float32 [n, 68, 2] in pixels; ``faces`` bool [n]: whether a face is seen at all.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wsavatar.training.landmarks.convention import as_mediapipe
from wsavatar.training.landmarks.painting import decorate, draw_face
from wsavatar.training.looks import apply, random_look, transparent_background

__all__ = ["SIZE", "HeadSource", "rendered_people", "start_renderers"]

SIZE = 256
_FRAMES = 28
_DRAWN, _BACKS = 0.17, 0.06
_LOOKS = 0.65
"""Share of people with a whole look: beard, glasses, headwear, age."""


class HeadSource:
    """One renderer; each `person` is a new random head, seen ``count`` times.

    ``wide``: seen from further away, with all of the shoulders, and never from behind.
    """

    def __init__(self, renderer_dir: Path, *, wide: bool = False) -> None:
        sys.path.insert(0, str(renderer_dir))
        import heads  # the renderer's module, named by the caller

        self.heads, self.wide = heads, wide
        self.renderer = heads.Renderer(SIZE, ss=1, shadow=512)
        transparent_background(self.renderer)

    def person(self, seed: int, count: int = _FRAMES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pictures, points and whether a face is seen, of a new random person."""
        rng = np.random.default_rng(seed)
        look, light, _ = self.heads.random_kwargs(seed)
        modes = self.heads.I.shape[0]
        look |= dict(
            idw=rng.standard_normal(modes) * rng.uniform(0.5, 1.25),
            skin=tuple(
                np.clip(np.array(look["skin"]) * rng.normal(1, (0.06, 0.03, 0.06)), 20, 250)
            ),
            brow=rng.uniform(0.2, 1.3),
        )
        if self.wide:
            look["shoulder"] = float(rng.uniform(14, 26))
        extra = random_look(rng, look) if rng.uniform() < _LOOKS else None
        if extra is not None:
            look |= extra.head
            light = extra.light or light
        head = self.heads.Head(self.renderer, tex=512, nstrand=3500, **look)
        if extra is not None:
            apply(self.heads, self.renderer, head, extra)
        head.uni.update(
            toothc=tuple(np.array([0.8, 0.77, 0.7]) * rng.uniform(0.6, 1.05)),
            oil=float(rng.uniform(0.2, 1)),
        )
        pictures = np.empty((count, SIZE, SIZE, 4), np.uint8)
        points = np.empty((count, 68, 2), np.float32)
        faces = np.ones(count, bool)
        for k in range(count):
            back = not self.wide and rng.uniform() < _BACKS
            camera = self._wide_camera(rng, look) if self.wide else self._camera(rng)
            pictures[k], points[k] = self._view(head, light, rng, back, camera)
            faces[k] = not back
        return pictures, points, faces

    def _camera(self, rng: np.random.Generator) -> dict[str, float]:
        distance = float(rng.choice([rng.uniform(46, 70), rng.uniform(70, 160)]))
        half = rng.uniform(13.5, 19)
        return dict(
            dist=distance, fov=float(2 * np.degrees(np.arctan(half / distance))),
            cx=float(rng.normal(0, 1)), cy=float(rng.uniform(-2, 3)),
        )  # fmt: skip

    def _wide_camera(self, rng: np.random.Generator, look: dict[str, Any]) -> dict[str, float]:
        half = max(look["shoulder"] + 1.5, rng.uniform(17, 34))
        distance = float(rng.uniform(75, 170))
        return dict(
            dist=distance, fov=float(2 * np.degrees(np.arctan(half / distance))),
            cx=0.0, cy=float(rng.uniform(17, 21) - half),
        )  # fmt: skip

    def _view(
        self,
        head: Any,
        light: dict[str, Any],
        rng: np.random.Generator,
        back: bool,
        camera: dict[str, float],
    ) -> tuple[np.ndarray, np.ndarray]:
        yaw = rng.normal(0, 16) if rng.uniform() < 0.55 else rng.uniform(-62, 62)
        if back:
            yaw = rng.choice([-1, 1]) * rng.uniform(115, 178)
        pose = (float(rng.normal(0, 10)), float(yaw), float(rng.normal(0, 7)))
        controls = self._expression(rng)
        self.renderer.render(
            head, controls, pose=pose, light=self._light(light, rng),
            bg=((0.0,) * 3, (0.0,) * 3), cam=camera,
        )  # fmt: skip
        raw = np.frombuffer(self.renderer.fb.read(components=4), np.uint8)
        picture = raw.reshape(SIZE, SIZE, 4)[::-1].astype(np.float32) / 255
        points = self.renderer.landmarks(head, controls, pose=pose, cam=camera)
        points = as_mediapipe(points)
        if not back:
            if rng.uniform() < _DRAWN and abs(yaw) < 40:
                picture = draw_face(points, SIZE, rng)
            elif rng.uniform() < 0.6:
                picture = np.ascontiguousarray(picture)
                decorate(picture, points, rng)
        made = np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)
        return made, points.astype(np.float32)

    def _expression(self, rng: np.random.Generator) -> dict[str, float]:
        names = list(self.heads.VIS)
        controls: dict[str, float] = {}
        for _ in range(2):
            strength = rng.uniform(0, 1)
            for name, value in self.heads.VIS[names[rng.integers(len(names))]].items():
                controls[name] = controls.get(name, 0.0) + strength * value
        if rng.uniform() < 0.5:
            controls = dict(self.heads.VIS["SIL"])
        extra = {
            "eyeBlink": (0.25, 1.0), "browInnerUp": (0.3, 0.8), "browDown": (0.3, 0.9),
            "mouthSmile": (0.35, 0.8), "mouthFrown": (0.2, 0.8), "eyeWide": (0.2, 0.8),
            "eyeSquint": (0.3, 0.9), "browOuterUp": (0.2, 0.8), "cheekPuff": (0.1, 0.7),
            "jawOpen": (0.12, 0.5), "mouthLeft": (0.08, 0.8), "mouthRight": (0.08, 0.8),
            "jawLeft": (0.08, 0.8), "noseSneer": (0.1, 0.8), "eyeLookDown": (0.2, 0.8),
            "eyeLookUp": (0.1, 0.8),
        }  # fmt: skip
        for name, (chance, most) in extra.items():
            if rng.uniform() < chance:
                controls[name] = controls.get(name, 0.0) + float(rng.uniform(0, most))
        return controls

    def _light(self, light: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        rigs = list(self.heads.LIGHTS.values())
        base = light if rng.uniform() < 0.4 else rigs[rng.integers(len(rigs))]
        hard = rng.uniform(0, 1)
        directions = np.array(base["dir"]) + rng.normal(0, 0.45, (4, 3))
        directions[:2, 2] = np.abs(directions[:2, 2]) - 0.2
        colours = (
            np.array(base["col"])
            * rng.uniform(0.3, 1.8, (4, 1))
            * (1 + rng.normal(0, 0.14, (4, 3)))
        )
        ambient = (1.3 - hard) * rng.uniform(0.3, 1.3)
        return dict(
            dir=directions, col=np.clip(colours, 0.02, 6),
            sky=tuple(np.array(base["sky"]) * ambient), gnd=tuple(np.array(base["gnd"]) * ambient),
            expo=float(base["expo"] * rng.uniform(0.4, 1.6)),
        )  # fmt: skip


def _render(
    renderer_dir: Path, out: Path, first: int, step: int, seconds: float, wide: bool
) -> None:
    cv2.setNumThreads(1)
    source = HeadSource(renderer_dir, wide=wide)
    until, seed, failed = time.monotonic() + seconds, first, 0
    while time.monotonic() < until:
        try:
            pictures, points, faces = source.person(seed)
        except Exception as error:  # one head that fails must not stop the rest
            failed += 1
            print(f"head {seed}: {error!r}", flush=True)
            if failed > 20:
                return
        else:
            part = out / f"{seed}.part"
            with part.open("wb") as file:
                np.savez(file, pictures=pictures, points=points, faces=faces)
            part.rename(out / f"{seed}.npz")
        seed += step


def start_renderers(
    renderer_dir: Path,
    out: Path,
    *,
    processes: int,
    first_seed: int,
    seconds: float,
    wide: bool = False,
) -> list[multiprocessing.process.BaseProcess]:
    """Start processes that each write one file after the other until the time is up."""
    out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    started = [
        context.Process(
            target=_render, args=(renderer_dir, out, first_seed + k, processes, seconds, wide),
            name=f"renderer-{k}", daemon=True,
        )
        for k in range(processes)
    ]  # fmt: skip
    for process in started:
        process.start()
    return list(started)


def rendered_people(folder: Path, most: int) -> Iterator[dict[str, np.ndarray]]:
    """Up to ``most`` of the files that renderers have written; each is deleted once it is read."""
    for path in sorted(folder.glob("*.npz"))[:most]:
        with np.load(path) as file:
            person = {name: file[name] for name in file.files}
        path.unlink()
        yield person
