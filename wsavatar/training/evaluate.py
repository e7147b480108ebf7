"""Judges a finished model on test clips, through the path that ``run.py render`` takes.

    python -m wsavatar.training.evaluate --clips DIR [--weights DIR] [--json FILE] [--strips DIR]

A clip's frames at rest become an avatar, its sound is streamed through the model, and the whole
pictures, before any JPEG, are compared with the true ones. The frames at rest are prepared in
memory, as they were rendered, so that no video codec is measured. What each figure means is written
in ``figures`` and in docs/training.md.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
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
from wsavatar.avatars.geometry import take_crop
from wsavatar.avatars.prepare import assemble, prepare_faces
from wsavatar.config import ConfigError, RenderSettings, Settings, load_settings, parse_override
from wsavatar.faces.musetalk.checkpoint import CheckpointError
from wsavatar.faces.musetalk.configured import load_configured, model_directory
from wsavatar.faces.musetalk.model import MuseTalk
from wsavatar.media import jpeg
from wsavatar.media.video import AudioTrack
from wsavatar.render.finish.paste import paste
from wsavatar.render.offline import frame_total, render_frames
from wsavatar.training.architecture import CROP_SIZE
from wsavatar.training.clips import Clip, ClipError, load_clip
from wsavatar.training.figures import (
    Figures,
    Share,
    judge_lips,
    judge_pictures,
    mouth_box,
    pooled,
)
from wsavatar.training.lipmeter import LipMeter
from wsavatar.training.networks import TOP
from wsavatar.training.synthesis import crop_box, cut

__all__ = ["Verdict", "as_avatar", "draw_truth", "judge_frames", "main", "read_openings", "speak"]

_STRIP_COLUMNS = 12
_METER_BATCH = 32


@dataclass(frozen=True, slots=True)
class Verdict:
    """One clip's figures."""

    name: str
    bundled: bool
    voice: str
    split: str
    clip: str
    frames: int
    made: Figures
    ceiling: Figures  # of the truth itself, cropped and pasted as a model's picture is


# -- one clip -------------------------------------------------------------------------------------


def as_avatar(clip: Clip, model: MuseTalk, *, detail: bool = True) -> PreparedAvatar:
    """The clip's person at rest, ready to speak. Raises ClipError, AvatarError."""
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
    faces = prepare_faces(avatar, clip.rest, clip.rest_landmarks, model, detail=detail)
    return assemble(avatar, clip.rest, faces)


def speak(
    clip: Clip, avatar: PreparedAvatar, model: MuseTalk, settings: RenderSettings
) -> np.ndarray:
    """The model's pictures of the clip, uint8 [n, H, W, 3]. Raises ClipError."""
    sound, fps = AudioTrack(clip.audio[:, None], clip.rate), Fraction(clip.fps)
    total = frame_total(sound, fps)
    if total != len(clip.rest):
        raise ClipError(f"{clip.name}: {len(clip.rest)} frames, but sound for {total}")
    frames = render_frames(model, avatar, sound, fps, settings.batch_size, settings.sharpness)
    return np.stack(list(tqdm(frames, total=total, desc=clip.name, unit="frame", leave=False)))


def draw_truth(clip: Clip, avatar: PreparedAvatar, crop_size: int) -> np.ndarray:
    """What a model would give that draws the truth: the true crops, pasted; uint8 [n, H, W, 3]."""
    return np.stack(
        [
            paste(
                avatar.frames[i],
                take_crop(frame, avatar.crop_boxes[i], crop_size),
                avatar.crop_boxes[i],
                avatar.paste_boxes[i],
                avatar.masks[i],
            )
            for i, frame in enumerate(clip.truth)
        ]
    )


def judge_frames(clip: Clip, frames: np.ndarray, meter: LipMeter) -> Figures:
    """Compare pictures of the clip, uint8 [n, H, W, 3], with the true ones."""
    height, width = clip.truth.shape[1:3]
    boxes = [
        mouth_box(rest, speaking, width, height)
        for rest, speaking in zip(clip.rest_landmarks, clip.landmarks, strict=True)
    ]
    opening = read_openings(meter, clip, frames)
    return Figures(
        lips=judge_lips(opening, clip.lips[:, 0], clip.silent, clip.bilabial),
        picture=judge_pictures(frames, clip.truth, boxes),
    )


def read_openings(meter: LipMeter, clip: Clip, frames: np.ndarray) -> np.ndarray:
    """The openings [n] that the meter reads off ``frames``, in the crop that it was trained on."""
    crops = np.stack(list(_crops(clip, frames)))[:, TOP:]
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        shapes = torch.cat([meter(batch) for batch in torch.split(pixels, _METER_BATCH)])
    opening: np.ndarray = shapes[:, 0].numpy()
    return opening


def _crops(clip: Clip, frames: np.ndarray) -> Iterable[np.ndarray]:
    for frame, points in zip(frames, clip.rest_landmarks, strict=True):
        yield cut(frame, crop_box(points), CROP_SIZE)


def strip(clip: Clip, made: np.ndarray) -> np.ndarray:
    """Every n-th frame's face in a column: at rest, true, made; uint8 [3 * 256, ., 3]."""
    step = -(-len(made) // _STRIP_COLUMNS)
    rows = [
        np.concatenate(list(_crops(clip, frames))[::step], axis=1)
        for frames in (clip.rest, clip.truth, made)
    ]
    return np.concatenate(rows)


# -- all clips ------------------------------------------------------------------------------------


def evaluate(args: argparse.Namespace, settings: Settings) -> list[Verdict]:
    """Judge every clip, printing its row when it is done. Raises ClipError and the model's."""
    paths = sorted(args.clips.glob("*.npz"))
    if not paths:
        raise ClipError(
            f"{args.clips}: holds no clip (*.npz); `python -m wsavatar.training.synthesis clips` "
            "renders some"
        )
    if args.strips is not None:
        args.strips.mkdir(parents=True, exist_ok=True)
    model, meter = load_configured(settings), LipMeter.measuring()
    print(f"{model_directory(settings)} ({model.spec.fingerprint[:12]}), {len(paths)} clips")
    print(_HEADER, flush=True)
    verdicts = []
    for path in paths:
        clip = load_clip(path)
        avatar = as_avatar(clip, model, detail=settings.avatars.detail)
        made = speak(clip, avatar, model, settings.render)
        if args.strips is not None:
            (args.strips / f"{clip.name}.jpg").write_bytes(jpeg.encode(strip(clip, made), 90))
        verdict = Verdict(
            name=clip.name,
            bundled=clip.bundled,
            voice=clip.voice,
            split=clip.split,
            clip=clip.clip,
            frames=len(made),
            made=judge_frames(clip, made, meter),
            ceiling=judge_frames(clip, draw_truth(clip, avatar, model.spec.crop_size), meter),
        )
        tqdm.write(_row(clip.name, clip.voice, len(made), verdict.made))
        verdicts.append(verdict)
    return verdicts


def groups(verdicts: Iterable[Verdict]) -> dict[str, list[Verdict]]:
    """Bundled people and identities never trained on, apart; a group without clips is left out."""
    apart: dict[str, list[Verdict]] = {}
    for verdict in sorted(verdicts, key=lambda v: not v.bundled):
        apart.setdefault("bundled" if verdict.bundled else "unseen", []).append(verdict)
    return apart


# -- what is shown --------------------------------------------------------------------------------

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


def _summary_rows(name: str, verdicts: Sequence[Verdict]) -> Iterable[str]:
    frames = sum(verdict.frames for verdict in verdicts)
    for label, figures in (
        (name, [verdict.made for verdict in verdicts]),
        ("  the truth gives", [verdict.ceiling for verdict in verdicts]),
    ):
        yield _row(label, "", frames, pooled(figures), _worst(figures))


def _worst(figures: Iterable[Figures]) -> float:
    """The lowest correlation that can be told."""
    known = [f.lips.correlation for f in figures if not math.isnan(f.lips.correlation)]
    return min(known, default=math.nan)


def _as_json(settings: Settings, verdicts: Sequence[Verdict]) -> str:
    report = dict(
        model=str(model_directory(settings)),
        clips=[asdict(verdict) for verdict in verdicts],
        summary={
            name: dict(
                clips=len(members),
                made=asdict(pooled([verdict.made for verdict in members])),
                worst_correlation=_worst(verdict.made for verdict in members),
                ceiling=asdict(pooled([verdict.ceiling for verdict in members])),
            )
            for name, members in groups(verdicts).items()
        },
    )
    return json.dumps(_without_nan(report), indent=1, allow_nan=False) + "\n"


def _without_nan(value: Any) -> Any:
    """JSON knows no NaN: what cannot be told is null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def main(argv: Sequence[str] | None = None) -> int:
    """0: judged; 2: the user has something to mend."""
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
        verdicts = evaluate(args, settings)
        for name, members in groups(verdicts).items():
            print("\n".join(_summary_rows(name, members)))
        if args.json is not None:
            args.json.write_text(_as_json(settings, verdicts), encoding="utf-8")
    except (AvatarError, CheckpointError, ClipError, ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
