"""Renders training shards, test clips and the bundled avatars from a renderer of synthetic heads.

The renderer is not part of this package: ``--renderer`` names a folder with a module ``heads``
that offers ``Renderer``, ``Head``, ``VIS``, ``LIGHTS``, ``LM``, ``deform`` and ``random_kwargs``.
The speech is a corpus folder: ``clips.json`` (clip, split, labelled, seconds, segments) beside
``audio/*.ogg``.

A shard is one person: ``references`` (the mouth at rest or, for a share, open, as some sources
are) and ``targets`` (the same instant, the mouth speaking), cropped by the model's own box, and the
clip and time that each target shows. Most people of shards have a random look (`looks`).

    python -m wsavatar.training.synthesis shards --renderer DIR --corpus DIR --out DIR --seconds 240
    python -m wsavatar.training.synthesis clips  --renderer DIR --corpus DIR --out DIR
    python -m wsavatar.training.synthesis avatars --renderer DIR --out avatars/
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wsavatar.media.audio_file import read_audio
from wsavatar.training import looks
from wsavatar.training.clips import Clip, save_clip
from wsavatar.training.mouth import mouth_controls
from wsavatar.training.synthetic_people import (
    BUNDLED,
    Person,
    idle_motion,
    random_motion,
    turned,
)

__all__ = ["HeadRenderer", "crop_box", "main"]

CROP = 256
MARGIN = 0.10
FPS = 25
VIEW = 352  # pixels of the close-up used for training: the scale of a 512-pixel portrait
PORTRAIT_FOV, PORTRAIT = 23.5, 512
DRESSED = 0.8  # share of the random people that have a look
OPEN_SOURCE = 0.35  # share of references whose mouth is not at rest
_LICENSE = "Synthetic: a random sample of a face model (ICT-FaceKit, MIT); no real person."


def crop_box(landmarks: np.ndarray, margin: float = MARGIN) -> tuple[int, int, int, int]:
    """The crop box of `wsavatar.faces.musetalk.geometry.crop_box`, but not clipped to the picture:
    a close-up may be smaller than the box.
    """
    x1, x2 = landmarks[:, 0].min(), landmarks[:, 0].max()
    chin, middle = landmarks[:, 1].max(), landmarks[29, 1]
    half = (chin - middle) * (1 + 2 * margin)
    box = np.round([x1, middle - half, x2, middle + half]).astype(int)
    return int(box[0]), int(box[1]), int(box[2]), int(box[3])


def cut(image: np.ndarray, box: tuple[int, int, int, int], size: int = CROP) -> np.ndarray:
    """Crop (edges repeated beyond the picture) and resize with Lanczos."""
    x1, y1, x2, y2 = box
    h, w = image.shape[:2]
    pad = max(0, -x1, -y1, x2 - w, y2 - h)
    if pad:
        image = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    part = image[y1 + pad : y2 + pad, x1 + pad : x2 + pad]
    return cv2.resize(part, (size, size), interpolation=cv2.INTER_LANCZOS4)


class HeadRenderer:
    """A renderer with one person."""

    def __init__(self, renderer_dir: Path, size: int, *, closeup: bool) -> None:
        sys.path.insert(0, str(renderer_dir))
        import heads  # the renderer's module, named by the caller

        self.heads = heads
        self._memoise_deform()
        self.renderer = heads.Renderer(size)
        fov = PORTRAIT_FOV
        cy = -1.2
        if closeup:
            fov = float(
                2 * np.degrees(np.arctan(np.tan(np.radians(PORTRAIT_FOV / 2)) * VIEW / PORTRAIT))
            )
            cy = 1.2
        self.camera = dict(dist=92.0, fov=fov, cy=cy, cx=0.0)
        self.person: Any = None

    def _memoise_deform(self) -> None:
        """Compute the deformed mesh once for rendering and landmarks."""
        plain = self.heads.deform
        last: list[Any] = [None, None]

        def deform(base: np.ndarray, controls: dict[str, float]) -> np.ndarray:
            key = (id(base), tuple(sorted(controls.items())))
            if last[0] != key:
                last[0], last[1] = key, plain(base, controls)
            mesh: np.ndarray = last[1].copy()
            return mesh

        self.heads.deform = deform

    def set_person(
        self, person: Person | int, *, detail: bool = False, dressed: bool = False
    ) -> None:
        """Load a bundled person, or a random one by seed; ``dressed``: with a random look."""
        if isinstance(person, Person):
            head, uniforms = dict(person.head), dict(person.uniforms)
            look = looks.Look(teeth=looks.Teeth(colour=uniforms.pop("toothc")))
            self.light = self.heads.LIGHTS[person.light]
            self.background = person.background
        else:
            head, self.light, self.background = self.heads.random_kwargs(person)
            rng = np.random.default_rng(person + 7)
            tone = float(np.mean(head["skin"])) / 255
            tooth = np.array([0.82, 0.79, 0.72]) * rng.uniform(0.88, 1.04)
            uniforms = dict(oil=0.5 if tone < 0.5 else 0.8)
            look = looks.Look(teeth=looks.Teeth(colour=tuple(tooth)))
            if dressed:
                look = looks.random_look(np.random.default_rng((person, 1)), head)
                head |= look.head
                self.light = look.light or self.light
        strands = None if detail else 4000
        self.person = self.heads.Head(
            self.renderer, tex=2048 if detail else 1024, nstrand=strands, **head
        )
        self.person.uni.update(uniforms)
        looks.apply(self.heads, self.renderer, self.person, look, detail=detail)

    def render(
        self,
        mouth: dict[str, float],
        motion: Any,
        camera: dict[str, float] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """One picture (uint8 [size, size, 3] RGB) and its landmarks [68, 2] in pixels."""
        upper, pose, shift = motion
        controls = {**mouth, **{k: mouth.get(k, 0.0) + v for k, v in upper.items()}}
        camera = camera or self.camera
        image = self.renderer.render(
            self.person, controls, pose=pose, trans=shift, light=self.light,
            bg=self.background, cam=camera,
        )  # fmt: skip
        points = self.renderer.landmarks(self.person, controls, pose=pose, trans=shift, cam=camera)
        return image, points.astype(np.float32)


def lip_shape(points: np.ndarray) -> np.ndarray:
    """Inner-lip gap, inner and outer width, over the distance of the eyes' outer corners."""
    scale = np.linalg.norm(points[45] - points[36])
    gap = np.linalg.norm(points[[61, 62, 63]] - points[[67, 66, 65]], axis=1).mean()
    inner = np.linalg.norm(points[64] - points[60])
    outer = np.linalg.norm(points[54] - points[48])
    shape: np.ndarray = np.array([gap, inner, outer], np.float32) / scale
    return shape


class Speech:
    """The labelled clips of some splits, as mouth controls over time."""

    def __init__(self, corpus: Path, visemes: dict[str, Any], splits: tuple[str, ...]) -> None:
        clips = json.loads((corpus / "clips.json").read_text())
        self.clips = [c for c in clips if c["labelled"] and c["split"] in splits]
        if not self.clips:
            raise SystemExit(f"no labelled clip of {splits} in {corpus}")
        self.visemes = visemes
        self._seconds = np.array([c["seconds"] for c in self.clips])

    def moment(self, rng: np.random.Generator) -> tuple[str, float, dict[str, float]]:
        """A random instant: clip, time in s, mouth controls. Closed mouths are drawn more often."""
        clip = self.clips[rng.choice(len(self.clips), p=self._seconds / self._seconds.sum())]
        t = float(rng.uniform(0, clip["seconds"]))
        kind = rng.uniform()
        if kind < 0.12:
            wanted = [s for s in clip["segments"] if s[0] == "M"]
            if wanted:
                _, a, b = wanted[rng.integers(len(wanted))]
                t = float(rng.uniform(a - 0.03, b + 0.03))
        elif kind < 0.20:
            wanted = [s for s in clip["segments"] if s[0] == "SIL"]
            if wanted:
                _, a, b = wanted[rng.integers(len(wanted))]
                t = float(rng.uniform(a, b))
        names, weights, _ = mouth_controls(clip["segments"], np.array([t]), self.visemes)
        mouth = dict(zip(names, map(float, weights[0]), strict=True))
        return clip["clip"], t, mouth

    def source(self, rng: np.random.Generator) -> dict[str, float]:
        """The mouth of a reference: at rest, or a share of a spoken one."""
        rest: dict[str, float] = self.visemes["SIL"]
        if rng.uniform() >= OPEN_SOURCE:
            return rest
        spoken, share = self.moment(rng)[2], float(rng.uniform(0.2, 1.0))
        return {
            name: (1 - share) * rest.get(name, 0.0) + share * spoken.get(name, 0.0)
            for name in rest.keys() | spoken.keys()
        }

    def track(self, clip: dict[str, Any], count: int) -> tuple[list[dict[str, float]], np.ndarray]:
        """A clip's frames: mouth controls at the frames' middles, and which are bilabials."""
        times = (np.arange(count) + 0.5) / FPS
        names, weights, closed = mouth_controls(clip["segments"], times, self.visemes)
        return [dict(zip(names, map(float, w), strict=True)) for w in weights], closed


def _write_shard(
    renderer: HeadRenderer,
    speech: Speech,
    person: Person | int,
    out: Path,
    moments: int,
    takes: int,
) -> None:
    bundled = isinstance(person, Person)
    rng = np.random.default_rng(zlib.crc32(out.name.encode()))
    dressed = not bundled and rng.uniform() < DRESSED
    renderer.set_person(person, dressed=dressed)
    motions = idle_motion(person.motion_seed, 225) if isinstance(person, Person) else []
    refs, targets, ref_index, lips, moments_shown, boxes = [], [], [], [], [], []
    for k in range(moments):
        motion = motions[rng.integers(len(motions))] if bundled else random_motion(rng)
        camera = dict(renderer.camera)
        if not bundled:
            camera["fov"] *= float(rng.uniform(0.88, 1.15))
            if rng.uniform() < 0.4:
                motion = turned(motion, float(rng.uniform(-45, 45)))
        source = renderer.heads.VIS["SIL"] if bundled else speech.source(rng)
        rest, points = renderer.render(source, motion, camera)
        box = crop_box(points)
        jitter = rng.integers(-4, 5, 4) if not bundled else np.zeros(4, int)
        x1, y1, x2, y2 = (int(b + j) for b, j in zip(box, jitter, strict=True))
        box = x1, y1, x2, y2
        refs.append(cut(rest, box))
        scale = np.array([CROP / (box[2] - box[0]), CROP / (box[3] - box[1])])
        inside = (points - np.array(box[:2])) * scale
        boxes.append([*inside[48:60].min(0), *inside[48:60].max(0)])
        for _ in range(takes):
            clip, t, mouth = speech.moment(rng)
            image, points = renderer.render(mouth, motion, camera)
            targets.append(cut(image, box))
            ref_index.append(k)
            lips.append(lip_shape(points))
            moments_shown.append((clip, t))
    part = out.with_suffix(".part.npz")
    np.savez(
        part,
        references=np.stack(refs), targets=np.stack(targets), ref_index=np.array(ref_index),
        lips=np.stack(lips), mouth_boxes=np.array(boxes, np.float32),
        clips=np.array([m[0] for m in moments_shown]),
        times=np.array([m[1] for m in moments_shown]),
    )  # fmt: skip
    part.rename(out)


def _shard_worker(args: argparse.Namespace, worker: int, workers: int) -> None:
    cv2.setNumThreads(1)
    renderer = HeadRenderer(args.renderer, VIEW, closeup=True)
    speech = Speech(args.corpus, renderer.heads.VIS, ("train",))
    held_out = Speech(args.corpus, renderer.heads.VIS, ("heldout_text", "heldout_voice"))
    until = time.monotonic() + args.seconds
    turn = worker
    while time.monotonic() < until:
        person: Person | int = args.first_seed + turn
        name, source = f"train-{person}", speech
        if turn % 5 == 0:  # the bundled people more often
            person = BUNDLED[(turn // 5) % len(BUNDLED)]
            name = f"train-{person.id}-{turn}"
        elif turn % 29 == 1:  # held-out people and voices
            name, source = f"unseen-{person}", held_out
        elif turn % 97 == 2:
            person = BUNDLED[(turn // 97) % len(BUNDLED)]
            name, source = f"bundled-{person.id}-{turn}", held_out
        started = time.monotonic()
        try:
            _write_shard(
                renderer, source, person, args.out / f"{name}.npz", args.moments, args.takes
            )
        except Exception as error:  # one head that fails must not stop the rest
            print(f"{name}: {error!r}", flush=True)
        if worker == 0:
            print(f"{name} {time.monotonic() - started:.1f} s", flush=True)
        turn += workers


def shards(args: argparse.Namespace) -> None:
    """Render shards in several processes until the time is up."""
    _in_processes(_shard_worker, args)


def _in_processes(
    work: Callable[[argparse.Namespace, int, int], None], args: argparse.Namespace
) -> None:
    """Run ``work(args, worker, workers)`` in ``--processes`` processes. Exits if one fails."""
    args.out.mkdir(parents=True, exist_ok=True)
    workers = args.processes or os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    pool = [
        context.Process(target=work, args=(args, i, workers), name=f"{args.job}-{i}")
        for i in range(workers)
    ]
    for i, process in enumerate(pool):
        if args.gpus > 1:  # moderngl reads it when it makes a context
            os.environ["GLCONTEXT_DEVICE_INDEX"] = str(i % args.gpus)
        process.start()
    for process in pool:
        process.join()
    failed = [process.name for process in pool if process.exitcode]
    if failed:
        raise SystemExit(f"{', '.join(failed)} failed; the files that they wrote are complete")


def clips(args: argparse.Namespace) -> None:
    """Render test clips: the idle frames and the true speaking face."""
    _in_processes(_clip_worker, args)


def _clip_worker(args: argparse.Namespace, worker: int, workers: int) -> None:
    cv2.setNumThreads(1)
    people: list[Person | int] = [] if args.no_bundled else [*BUNDLED]
    people += range(args.first_seed, args.first_seed + args.unseen)
    if worker >= len(people):
        return
    renderer = HeadRenderer(args.renderer, PORTRAIT, closeup=False)
    speech = Speech(args.corpus, renderer.heads.VIS, ("heldout_text", "heldout_voice"))
    programme = _choose_clips(speech.clips, args.clips * len(people), args.longest)
    for number in range(worker, len(people), workers):
        person = people[number]
        name = person.id if isinstance(person, Person) else f"unseen{person}"
        spoken = programme[number * args.clips :][: args.clips]
        wanted = {args.out / f"{name}-{k}.npz": said for k, said in enumerate(spoken)}
        missing = {path: said for path, said in wanted.items() if not path.exists()}
        if missing:
            renderer.set_person(person, detail=True, dressed=args.looks)
        for path, said in missing.items():
            clip = _render_clip(
                renderer, person, path.stem, speech, said, args.corpus, varied=args.looks
            )
            save_clip(path, clip)
            print(f"{clip.name}: {clip.clip} ({clip.voice}), {len(clip.rest)} frames", flush=True)


def _choose_clips(
    clips: list[dict[str, Any]], count: int, longest_s: float
) -> list[dict[str, Any]]:
    """The corpus clip of each test clip: voices in turn, each voice's clips shuffled."""
    rng = np.random.default_rng(1)
    fitting = [c for c in clips if 2.5 <= c["seconds"] <= longest_s]
    voices = {
        voice: rng.permutation([i for i, c in enumerate(fitting) if c["voice"] == voice])
        for voice in sorted({c["voice"] for c in fitting})
    }
    if not voices:
        raise SystemExit(f"no held-out clip lasts 2.5 to {longest_s} s")
    turns = [divmod(turn, len(voices)) for turn in range(count)]
    orders = list(voices.values())
    return [fitting[orders[voice][lap % len(orders[voice])]] for lap, voice in turns]


def _render_clip(
    renderer: HeadRenderer,
    person: Person | int,
    name: str,
    speech: Speech,
    said: dict[str, Any],
    corpus: Path,
    *,
    varied: bool = False,
) -> Clip:
    """Render the person at rest and speaking, with the same motion.

    ``varied``: a random person's head may be turned and the mouth of the source open.
    """
    track = read_audio(corpus / "audio" / f"{said['clip']}.ogg")
    audio, rate = track.samples[:, 0], track.sample_rate
    count = -(-len(audio) * FPS // rate)
    seed = person.motion_seed if isinstance(person, Person) else person
    motions = idle_motion(seed, max(225, count))[:count]
    mouths, closed = speech.track(said, count)
    source = renderer.heads.VIS["SIL"]
    if varied and not isinstance(person, Person):
        rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
        angle = float(rng.uniform(-40, 40))
        motions = [turned(motion, angle) for motion in motions]
        source = speech.source(rng)
    rest = [renderer.render(source, motion) for motion in motions]
    truth = [renderer.render(*moment) for moment in zip(mouths, motions, strict=True)]
    return Clip(
        name=name,
        bundled=isinstance(person, Person),
        voice=said["voice"],
        split=said["split"],
        clip=said["clip"],
        fps=FPS,
        rate=rate,
        audio=audio,
        rest=np.stack([image for image, _ in rest]),
        truth=np.stack([image for image, _ in truth]),
        rest_landmarks=np.stack([points for _, points in rest]),
        landmarks=np.stack([points for _, points in truth]),
        lips=np.stack([lip_shape(points) for _, points in truth]),
        bilabial=closed,
        silent=_silent(said, count),
    )


def _silent(clip: dict[str, Any], count: int, guard_s: float = 0.12) -> np.ndarray:
    """Frames at least ``guard_s`` inside a pause."""
    t = (np.arange(count) + 0.5) / FPS
    quiet = np.zeros(count, bool)
    for viseme, a, b in clip["segments"]:
        if viseme == "SIL":
            quiet |= (t >= a + guard_s) & (t <= b - guard_s)
    return quiet


def avatars(args: argparse.Namespace) -> None:
    """Render the bundled avatars in the format of ``docs/avatars.md``."""
    from wsavatar.avatars.writing import write_avatar

    size = args.size
    renderer = HeadRenderer(args.renderer, size, closeup=False)
    for person in BUNDLED:
        if args.only and person.id not in args.only:
            continue
        renderer.set_person(person, detail=True)
        shots = [
            renderer.render(renderer.heads.VIS["SIL"], motion)
            for motion in idle_motion(person.motion_seed, args.frames)
        ]
        write_avatar(
            args.out,
            id=person.id,
            name=person.name,
            frames=[image for image, _ in shots],
            fps=FPS,
            landmarks=np.stack([points for _, points in shots]),
            description=person.description,
            license=_LICENSE,
        )
        print(f"{person.id}: {len(shots)} frames of {size}x{size}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    jobs = parser.add_subparsers(dest="job", required=True)
    for name, job in (("shards", shards), ("clips", clips), ("avatars", avatars)):
        sub = jobs.add_parser(name, help=(job.__doc__ or "").split("\n")[0])
        sub.set_defaults(run=job)
        sub.add_argument("--renderer", type=Path, required=True, help="folder with heads.py")
        sub.add_argument("--out", type=Path, required=True)
        if name != "avatars":
            sub.add_argument("--corpus", type=Path, required=True)
            sub.add_argument("--first-seed", type=int, default=10_000 if name == "shards" else 900)
            sub.add_argument("--processes", type=int, default=0, help="default: one a core")
            sub.add_argument("--gpus", type=int, default=1, help="that the processes share")
        if name == "shards":
            sub.add_argument("--seconds", type=float, default=240)
            sub.add_argument("--moments", type=int, default=10)
            sub.add_argument("--takes", type=int, default=12)
        elif name == "clips":
            sub.add_argument("--unseen", type=int, default=8, help="identities never trained on")
            sub.add_argument("--only-bundled", dest="unseen", action="store_const", const=0)
            sub.add_argument("--clips", type=int, default=2, help="clips per identity")
            sub.add_argument("--no-bundled", action="store_true", help="unseen identities alone")
            sub.add_argument(
                "--looks",
                action="store_true",
                help="unseen identities have random looks, turned heads and open mouths",
            )
            sub.add_argument("--longest", type=float, default=8, help="seconds a clip may last")
        else:
            sub.add_argument("--size", type=int, default=512)
            sub.add_argument("--frames", type=int, default=225)
            sub.add_argument("--only", nargs="*")
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
