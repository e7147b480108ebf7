"""Evaluates a finished model on test clips, through the path of ``run.py render``.

    python -m wsavatar.training.evaluate --clips DIR [--weights DIR] [--json FILE] [--strips DIR]

A clip's frames at rest become an avatar in memory, so that no video codec is measured. Its sound is
streamed through the model, and the pictures, before JPEG, are compared with the true ones.
``figures`` and docs/training.md define the figures.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from tqdm import tqdm

from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.avatars.format import AvatarError, AvatarFile
from wsavatar.config import ConfigError, RenderSettings, Settings, load_settings, parse_override
from wsavatar.faces.musetalk.checkpoint import CheckpointError
from wsavatar.faces.musetalk.configured import load_configured, model_directory
from wsavatar.faces.musetalk.geometry import take_crop
from wsavatar.faces.musetalk.model import MuseTalk
from wsavatar.media import jpeg
from wsavatar.media.audio_file import AudioTrack
from wsavatar.media.pictures import DecodedPictures
from wsavatar.render.film import film_of, frame_total
from wsavatar.render.finish.paste import paste
from wsavatar.training.architecture import CROP_SIZE
from wsavatar.training.clips import Clip, ClipError, load_clip
from wsavatar.training.figures import (
    Figures,
    Share,
    compare_lips,
    compare_pictures,
    mouth_box,
    pooled,
)
from wsavatar.training.lip_estimator import LipEstimator
from wsavatar.training.networks import TOP
from wsavatar.training.synthesis import crop_box, cut

__all__ = [
    "ClipResult",
    "prepare_clip",
    "paste_truth",
    "compare_frames",
    "judged",
    "main",
    "read_openings",
    "render_clip",
]

_STRIP_COLUMNS = 12
_METER_BATCH = 32


@dataclass(frozen=True, slots=True)
class ClipResult:
    """One clip's figures."""

    name: str
    bundled: bool
    voice: str
    split: str
    clip: str
    frames: int
    made: Figures
    ceiling: Figures  # of the truth, cropped and pasted like a model's picture
    vae: Figures  # of the truth, as the model's VAE draws it, pasted


# -- one clip -------------------------------------------------------------------------------------


def prepare_clip(clip: Clip, model: MuseTalk, *, detail: bool = True) -> PreparedAvatar:
    """An avatar from the clip's frames at rest. Raises ClipError, AvatarError."""
    count, height, width = clip.rest.shape[:3]
    try:
        avatar = AvatarFile(
            format=1,
            id=clip.name.lower(),
            name=clip.name,
            fps=clip.fps,
            width=width,
            height=height,
            frame_count=count,
            landmarks=clip.rest_landmarks.tolist(),
        )
    except ValidationError as error:
        raise ClipError(f"{clip.name}: cannot be an avatar: {error}") from error
    pictures = DecodedPictures(clip.rest)
    face = model.prepare(avatar, pictures, clip.rest_landmarks, detail=detail)
    return PreparedAvatar.of(avatar, pictures, face)


def render_clip(
    clip: Clip, avatar: PreparedAvatar, model: MuseTalk, settings: RenderSettings
) -> np.ndarray:
    """The model's pictures of the clip, uint8 [n, H, W, 3]. Raises ClipError."""
    sound, fps = AudioTrack(clip.audio[:, None], clip.rate), Fraction(clip.fps)
    total = frame_total(sound.seconds, fps)
    if total != len(clip.rest):
        raise ClipError(f"{clip.name}: {len(clip.rest)} frames, but sound for {total}")
    ticks = tqdm(
        film_of(model, avatar, sound, fps, settings),
        total=total,
        desc=clip.name,
        unit="frame",
        leave=False,
    )
    return np.stack([tick.picture for tick in ticks])


def paste_truth(
    clip: Clip,
    avatar: PreparedAvatar,
    crop_size: int,
    draw: Callable[[np.ndarray], np.ndarray] = lambda crops: crops,
) -> np.ndarray:
    """The result of a perfect model: the true crops, pasted; uint8 [n, H, W, 3].

    ``draw``: what becomes of the crops before, uint8 [n, S, S, 3].
    """
    face = avatar.face
    places = zip(clip.truth, face.crop_boxes, strict=True)
    crops = np.stack([take_crop(frame, box, crop_size) for frame, box in places])
    return np.stack(
        [
            paste(avatar.pictures[i], crop, face.crop_boxes[i], face.paste_boxes[i], face.masks[i])
            for i, crop in enumerate(draw(crops))
        ]
    )


def compare_frames(clip: Clip, frames: np.ndarray, estimator: LipEstimator) -> Figures:
    """Compare pictures of the clip, uint8 [n, H, W, 3], with the true ones."""
    height, width = clip.truth.shape[1:3]
    boxes = [
        mouth_box(rest, speaking, width, height)
        for rest, speaking in zip(clip.rest_landmarks, clip.landmarks, strict=True)
    ]
    opening = read_openings(estimator, clip, frames)
    return Figures(
        lips=compare_lips(opening, clip.lips[:, 0], clip.silent, clip.bilabial),
        picture=compare_pictures(frames, clip.truth, boxes),
    )


def read_openings(estimator: LipEstimator, clip: Clip, frames: np.ndarray) -> np.ndarray:
    """The openings [n] that the estimator finds in ``frames``, in the crop of its training."""
    crops = np.stack(list(_crops(clip, frames)))[:, TOP:]
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        shapes = torch.cat([estimator(batch) for batch in torch.split(pixels, _METER_BATCH)])
    opening: np.ndarray = shapes[:, 0].numpy()
    return opening


def _crops(clip: Clip, frames: np.ndarray) -> Iterable[np.ndarray]:
    for frame, points in zip(frames, clip.rest_landmarks, strict=True):
        yield cut(frame, crop_box(points), CROP_SIZE)


def strip(clip: Clip, made: np.ndarray) -> np.ndarray:
    """Every n-th frame's face in a column: at rest, true, generated; uint8 [3 * 256, ., 3]."""
    step = -(-len(made) // _STRIP_COLUMNS)
    rows = [
        np.concatenate(list(_crops(clip, frames))[::step], axis=1)
        for frames in (clip.rest, clip.truth, made)
    ]
    return np.concatenate(rows)


# -- all clips ------------------------------------------------------------------------------------


def evaluate(args: argparse.Namespace, settings: Settings) -> list[ClipResult]:
    """Evaluate every clip and print its row. Raises ClipError and the model's errors."""
    paths = sorted(args.clips.glob("*.npz"))
    if not paths:
        raise ClipError(
            f"{args.clips}: holds no clip (*.npz); `python -m wsavatar.training.synthesis clips` "
            "renders some"
        )
    if args.strips is not None:
        args.strips.mkdir(parents=True, exist_ok=True)
    model, estimator = load_configured(settings), LipEstimator.for_evaluation()
    print(f"{model_directory(settings)} ({model.spec.fingerprint[:12]}), {len(paths)} clips")
    print(_HEADER, flush=True)
    results = []
    for path in paths:
        clip = load_clip(path)
        avatar = prepare_clip(clip, model, detail=settings.avatars.detail)
        made = render_clip(clip, avatar, model, settings.render)
        if args.strips is not None:
            (args.strips / f"{clip.name}.jpg").write_bytes(jpeg.encode(strip(clip, made), 90))
        result = judged(clip, avatar, model, made, estimator)
        tqdm.write(_row(clip.name, clip.voice, len(made), result.made))
        results.append(result)
    return results


def judged(
    clip: Clip,
    avatar: PreparedAvatar,
    model: MuseTalk,
    made: np.ndarray,
    estimator: LipEstimator,
) -> ClipResult:
    """The figures of ``made``, and of what no model can surpass. ``avatar``: of `prepare_clip`."""
    size = model.spec.crop_size
    truth = paste_truth(clip, avatar, size)
    redrawn = paste_truth(clip, avatar, size, lambda crops: model.redraw(model.encode_crops(crops)))
    return ClipResult(
        name=clip.name,
        bundled=clip.bundled,
        voice=clip.voice,
        split=clip.split,
        clip=clip.clip,
        frames=len(made),
        made=compare_frames(clip, made, estimator),
        ceiling=compare_frames(clip, truth, estimator),
        vae=compare_frames(clip, redrawn, estimator),
    )


def groups(results: Iterable[ClipResult]) -> dict[str, list[ClipResult]]:
    """Results of bundled people and of unseen identities; a group without clips is left out."""
    apart: dict[str, list[ClipResult]] = {}
    for result in sorted(results, key=lambda v: not v.bundled):
        apart.setdefault("bundled" if result.bundled else "unseen", []).append(result)
    return apart


# -- output ---------------------------------------------------------------------------------------

_COLUMNS = (
    "r", "worst r", "offset", "PSNR", "SSIM", "gradient", "Laplace",
    "silence", "bilabials", "b. frames",
)  # fmt: skip
_HEADER = f"{'clip':<18} {'voice':<8} {'frames':>6}" + "".join(f" {n:>9}" for n in _COLUMNS)


def _row(name: str, voice: str, frames: int, figures: Figures, worst: float = math.nan) -> str:
    lips, picture = figures.lips, figures.picture
    shares = (lips.silence_closed, lips.bilabials_closed, lips.bilabial_frames_closed)
    cells = [
        f"{lips.correlation:.3f}",
        f"{worst:.3f}",
        f"{lips.offset_frames:+.1f}",
        f"{picture.psnr_db:.1f}",
        f"{picture.ssim:.3f}",
        f"{picture.gradient_energy:.2f}",
        f"{picture.laplacian_variance:.2f}",
        *map(_count, shares),
    ]
    shown = ("-" if cell == "nan" else cell for cell in cells)
    return f"{name:<18} {voice:<8} {frames:>6}" + "".join(f" {cell:>9}" for cell in shown)


def _count(share: Share) -> str:
    return f"{share.count}/{share.of}" if share.of else "-"


def _summary_rows(name: str, results: Sequence[ClipResult]) -> Iterable[str]:
    frames = sum(result.frames for result in results)
    for label, figures in (
        (name, [result.made for result in results]),
        ("  the truth gives", [result.ceiling for result in results]),
        ("  by the VAE alone", [result.vae for result in results]),
    ):
        yield _row(label, "", frames, pooled(figures), _worst(figures))


def _worst(figures: Iterable[Figures]) -> float:
    """The lowest correlation, without undefined ones."""
    known = [f.lips.correlation for f in figures if not math.isnan(f.lips.correlation)]
    return min(known, default=math.nan)


def _as_json(settings: Settings, results: Sequence[ClipResult]) -> str:
    report = dict(
        model=str(model_directory(settings)),
        clips=[asdict(result) for result in results],
        summary={
            name: dict(
                clips=len(members),
                made=asdict(pooled([result.made for result in members])),
                worst_correlation=_worst(result.made for result in members),
                ceiling=asdict(pooled([result.ceiling for result in members])),
                vae=asdict(pooled([result.vae for result in members])),
            )
            for name, members in groups(results).items()
        },
    )
    return json.dumps(_without_nan(report), indent=1, allow_nan=False) + "\n"


def _without_nan(value: Any) -> Any:
    """Replace NaN, which JSON lacks, by null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0, or 2 for an error that the user can correct."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True, help="written by synthesis clips")
    parser.add_argument("--weights", metavar="DIR", help="default: model.path, the embedded model")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    parser.add_argument("--strips", type=Path, metavar="DIR", help="write a contact sheet a clip")
    parser.add_argument("--config", default="embedded", help="a YAML file, or a name in configs/")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    args = parser.parse_args(argv)
    try:
        overrides = dict(parse_override(text) for text in args.set)
        if args.weights is not None:
            overrides["model.path"] = args.weights
        settings = load_settings(args.config, overrides)
        results = evaluate(args, settings)
        for name, members in groups(results).items():
            print("\n".join(_summary_rows(name, members)))
        if args.json is not None:
            args.json.write_text(_as_json(settings, results), encoding="utf-8")
    except (AvatarError, CheckpointError, ClipError, ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
