"""Trains the embedded model from shards and a corpus, in stages with a time budget each.

    python -m wsavatar.training.train --shards DIR --corpus DIR --visemes visemes.json --out DIR \\
        --seconds teacher=200,audio=400,vae=200,meter=45,face=600 [--resume DIR]

1. ``teacher``: a larger encoder, which is not shipped, learns to see a mouth in sound: the controls
   that drove the renderer. It is kept beside the model, for other runs' ``--teacher``.
2. ``audio``: the model's encoder learns the same, and to hear what the teachers hear.
3. ``vae``: pictures to latents and, for the lower rows, back.
4. ``meter``: the two lip meters.
5. ``face``: the UNet, end to end to pixels, with the decoder and the audio encoder following.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from wsavatar.training.checkpoint import keep, resume
from wsavatar.training.data import RATE, Corpus, Crops
from wsavatar.training.ear import Teacher, train_audio, train_teacher
from wsavatar.training.judge import judge
from wsavatar.training.lipmeter import LipMeter
from wsavatar.training.losses import as_pixels
from wsavatar.training.networks import Face
from wsavatar.training.optimisation import autocast
from wsavatar.training.ranks import Ranks
from wsavatar.training.stages import FaceStage, train_meters, train_vae

__all__ = ["main"]

_RATES = (
    "tune=1e-4,ear=1e-3,truth=1,opening=1,teacher=1,echo=1,dropout=0.1,windows=1024,"
    "unet=1.2e-3,decoder=4e-4,audio=1e-4,sharp=0.05,critic=0.03"
)


def unit_latents(face: Face, crops: Crops) -> float:
    """The scale that gives latents unit size, as ``scaling_factor`` does for the official VAE."""
    with torch.no_grad(), autocast(crops.targets.device):
        some = [face.encode(as_pixels(crops.targets[i::997][:64])) for i in range(4)]
    return float(face.scale) / float(torch.cat(some).float().std())


def train(args: argparse.Namespace) -> None:
    """Run the stages that have a budget, judging and saving as it goes."""
    ranks = Ranks.join()
    try:
        _train(args, ranks)
    finally:
        ranks.leave()


def _train(args: argparse.Namespace, ranks: Ranks) -> None:
    first = ranks.rank == 0  # who says, judges and keeps
    if not first:
        sys.stdout = open(os.devnull, "w")
    seconds, rates = amounts(args.seconds), amounts(_RATES) | amounts(args.rates)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(args.seed + 1000 * ranks.rank)
    corpus = Corpus(args.corpus, json.loads(args.visemes.read_text()), device)
    print(f"corpus: {len(corpus.audio) / RATE / 60:.1f} min, controls {corpus.names}", flush=True)
    face = Face().to(device)
    meters = [LipMeter(24).to(device), LipMeter(32, 5).to(device)]
    if args.resume:
        resume(face, meters, args.resume)
    face.vae.to(memory_format=torch.channels_last)
    face.unet.to(memory_format=torch.channels_last)
    average = copy.deepcopy(face)
    figures: dict[str, Any] = {}
    teachers = load_teachers(args, corpus) if seconds.keys() & {"teacher", "audio"} else []
    if seconds.get("teacher"):
        if len(teachers) != 1:
            raise SystemExit(
                f"the teacher stage tunes one teacher, and here are {len(teachers)}: name it by "
                "--teacher, or leave teacher= out of --seconds"
            )
        heard = train_teacher(teachers[0], corpus, seconds["teacher"], rates, ranks)
        figures |= {f"teacher {split}": voices for split, voices in heard.items()}
        if first:
            teachers[0].save(args.out / "teacher.safetensors")
    if seconds.get("audio"):
        heard = train_audio(face, average, corpus, teachers, seconds["audio"], rates, ranks)
        figures |= {f"hearing {split}": voices for split, voices in heard.items()}
        face.audio.load_state_dict(average.audio.state_dict())
        if first:
            keep(args.out, average, meters, figures)
    if not any(seconds.get(stage) for stage in ("vae", "meter", "face")):
        return
    crops = Crops.load(sorted(args.shards.glob("train-*.npz")), corpus, device)
    tests = {
        kind: Crops.load(files, corpus, device)
        for kind in ("unseen", "bundled")
        if (files := sorted(args.shards.glob(f"{kind}-*.npz")))
    }
    print(f"{len(crops)} pairs of {len(crops.names)} people and moments", flush=True)

    def judge_and_keep(step: int, share: float) -> None:
        if not first:
            return
        for kind, test in tests.items():
            preview = args.out / f"{kind}.jpg"
            figures[f"{kind}@{step}"] = judge(average, corpus, test, meters[1], kind, preview)
        keep(args.out, average, meters, figures)

    if seconds.get("vae"):
        train_vae(face, average, crops, seconds["vae"], args.batch, ranks)
        face.vae.load_state_dict(average.vae.state_dict())
        face.scale.fill_(unit_latents(face, crops))
        ranks.mean([face.scale])
        average.scale.copy_(face.scale)
    if seconds.get("meter"):
        train_meters(meters, crops, seconds["meter"], ranks)
    if seconds.get("face"):
        stage = FaceStage(face, average, corpus, crops, meters[0], args.batch, rates, ranks)
        stage.run(seconds["face"], args.sharpen_from, judge_and_keep, every=args.save_every)
    judge_and_keep(-1, 1.0)


def load_teachers(args: argparse.Namespace, corpus: Corpus) -> list[Teacher]:
    """The teachers that were named, or the corpus' own where it has one."""
    own = args.corpus / "teacher.safetensors"
    files = args.teacher or ([own] if own.exists() else [])
    return [Teacher.load(file, corpus) for file in files]


def amounts(text: str) -> dict[str, float]:
    """``a=1,b=2`` -> {a: 1, b: 2}."""
    return {name: float(value) for name, value in (p.split("=") for p in text.split(","))}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=Path, required=True, help="written by synthesis shards")
    parser.add_argument("--corpus", type=Path, required=True, help="clips.json and audio/")
    parser.add_argument("--visemes", type=Path, required=True, help="JSON: viseme to controls")
    parser.add_argument("--out", type=Path, required=True, help="saved here, again and again")
    parser.add_argument("--resume", type=Path, help="start from a folder written by --out")
    parser.add_argument(
        "--teacher",
        type=Path,
        nargs="+",
        help="weights of one or more teachers, as the teacher stage keeps them; by default "
        "teacher.safetensors of the corpus, if there; teacher_config.json beside it says its shape",
    )
    parser.add_argument(
        "--seconds",
        default="teacher=200,audio=400,vae=200,meter=45,face=600",
        help="a budget for each stage",
    )
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument(
        "--seed", type=int, default=1, help="runs of other seeds from one start can be averaged"
    )
    parser.add_argument(
        "--rates",
        default=_RATES,
        help="learning rates of tune (the teacher), ear, unet, decoder and audio (the ear in the "
        "face stage); in the audio stages the weights of the truth, of the opening in it, of the "
        "teachers' states and of the mouths they see (echo), dropout, and windows a step; in the "
        "face stage the weights of the sharpness loss and of the critic; what is not named stays "
        f"as in {_RATES}",
    )
    parser.add_argument(
        "--sharpen-from", type=float, default=0.55, help="share of the face stage before the critic"
    )
    parser.add_argument("--save-every", type=float, default=120, help="seconds, in the face stage")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    train(args)


if __name__ == "__main__":
    main()
