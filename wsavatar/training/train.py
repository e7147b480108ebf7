"""Trains the embedded model from shards and a corpus, in stages with a time budget each.

    python -m wsavatar.training.train --shards DIR --corpus DIR --visemes visemes.json --out DIR \\
        --seconds teacher=200,audio=400,vae=200,lips=45,face=600 [--resume DIR]

1. ``teacher``: a larger audio encoder, which is not shipped, is tuned to predict the mouth controls
   that moved the renderer. It is saved beside the model, for ``--teacher`` of other runs.
2. ``audio``: the model's encoder is trained on the same controls and on the teachers' outputs.
3. ``vae``: pictures to latents and, for the lower rows, back.
4. ``lips``: the two lip estimators.
5. ``face``: the UNet, end to end to pixels, together with the decoder and the audio encoder.
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

from wsavatar.training.audio_encoder import Teacher, train_audio, train_teacher
from wsavatar.training.checkpoint import load_checkpoint, save_checkpoint
from wsavatar.training.data import RATE, Corpus, Crops
from wsavatar.training.distributed import Ranks
from wsavatar.training.lip_estimator import LipEstimator
from wsavatar.training.losses import as_pixels
from wsavatar.training.networks import Networks
from wsavatar.training.optimisation import autocast
from wsavatar.training.picture_stages import FaceStage, train_lip_estimators, train_vae
from wsavatar.training.validation import validate

__all__ = ["main"]

_SECONDS = "teacher=200,audio=400,vae=200,lips=45,face=600"
_RATES = (
    "tune=1e-4,student=1e-3,truth=1,opening=1,teacher=1,teacher_mouth=1,dropout=0.1,windows=1024,"
    "vae=1.5e-3,unet=1.2e-3,decoder=4e-4,audio=1e-4,sharp=0.05,critic=0.03"
)


def unit_latents(networks: Networks, crops: Crops) -> float:
    """The scale that gives latents a deviation of 1, as the official ``scaling_factor`` does."""
    with torch.no_grad(), autocast(crops.targets.device):
        some = [networks.encode(as_pixels(crops.targets[i::997][:64])) for i in range(4)]
    return float(networks.scale) / float(torch.cat(some).float().std())


def train(args: argparse.Namespace) -> None:
    """Run the stages that have a budget, with validation and checkpoints in between."""
    ranks = Ranks.join()
    try:
        _train(args, ranks)
    finally:
        ranks.leave()


def _train(args: argparse.Namespace, ranks: Ranks) -> None:
    first = ranks.rank == 0  # the only one that prints, validates and saves
    if not first:
        sys.stdout = open(os.devnull, "w")
    seconds = amounts(args.seconds, _SECONDS)
    rates = amounts(_RATES, _RATES) | amounts(args.rates, _RATES)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(args.seed + 1000 * ranks.rank)
    corpus = Corpus(args.corpus, json.loads(args.visemes.read_text()), device)
    print(f"corpus: {len(corpus.audio) / RATE / 60:.1f} min, controls {corpus.names}", flush=True)
    networks = Networks().to(device)
    estimators = [LipEstimator(24).to(device), LipEstimator(32, 5).to(device)]
    if args.resume:
        load_checkpoint(networks, estimators, args.resume)
    networks.vae.to(memory_format=torch.channels_last)
    networks.unet.to(memory_format=torch.channels_last)
    average = copy.deepcopy(networks)
    figures: dict[str, Any] = {}
    teachers = load_teachers(args, corpus) if seconds.keys() & {"teacher", "audio"} else []
    if seconds.get("teacher"):
        if len(teachers) != 1:
            raise SystemExit(
                f"the teacher stage tunes one teacher, not {len(teachers)}: name it with "
                "--teacher, or leave teacher= out of --seconds"
            )
        opening = train_teacher(teachers[0], corpus, seconds["teacher"], rates, ranks)
        figures |= {f"teacher {split}": voices for split, voices in opening.items()}
        if first:
            teachers[0].save(args.out / "teacher.safetensors")
    if seconds.get("audio"):
        opening = train_audio(networks, average, corpus, teachers, seconds["audio"], rates, ranks)
        figures |= {f"opening {split}": voices for split, voices in opening.items()}
        networks.audio.load_state_dict(average.audio.state_dict())
        if first:
            save_checkpoint(args.out, average, estimators, figures)
    if not any(seconds.get(stage) for stage in ("vae", "lips", "face")):
        return
    shards = sorted(args.shards.glob("train-*.npz"))[ranks.rank :: ranks.size]
    crops = Crops.load(shards, corpus, device)
    tests = {
        kind: Crops.load(files, corpus, device)
        for kind in ("unseen", "bundled")
        if (files := sorted(args.shards.glob(f"{kind}-*.npz")))
    }
    print(f"{len(crops)} pairs of {len(crops.names)} people and moments", flush=True)

    def checkpoint(step: int) -> None:
        if not first:
            return
        for kind, test in tests.items():
            preview = args.out / f"{kind}.jpg"
            figures[f"{kind}@{step}"] = validate(
                average, corpus, test, estimators[1], kind, preview
            )
        save_checkpoint(args.out, average, estimators, figures)

    if seconds.get("vae"):
        train_vae(networks, average, crops, seconds["vae"], args.batch, rates["vae"], ranks)
        networks.vae.load_state_dict(average.vae.state_dict())
        networks.scale.fill_(unit_latents(networks, crops))
        ranks.mean([networks.scale])
        average.scale.copy_(networks.scale)
    if seconds.get("lips"):
        train_lip_estimators(estimators, crops, seconds["lips"], ranks)
    if seconds.get("face"):
        stage = FaceStage(networks, average, corpus, crops, estimators[0], args.batch, rates, ranks)
        stage.run(seconds["face"], args.sharpen_from, checkpoint, every=args.save_every)
    checkpoint(-1)


def load_teachers(args: argparse.Namespace, corpus: Corpus) -> list[Teacher]:
    """The teachers of ``--teacher``, or that of the corpus where it has one."""
    own = args.corpus / "teacher.safetensors"
    files = args.teacher or ([own] if own.exists() else [])
    return [Teacher.load(file, corpus) for file in files]


def amounts(text: str, names: str) -> dict[str, float]:
    """``a=1,b=2`` -> {a: 1, b: 2}. Exits with a message for a name that ``names`` lacks.

    ``names`` has the form of ``text``.
    """
    known = [pair.split("=")[0] for pair in names.split(",")]
    pairs = [pair.partition("=") for pair in text.split(",")]
    for name, _, _ in pairs:
        if name not in known:
            raise SystemExit(f"unknown name {name!r} in {text!r}: known are {', '.join(known)}")
    return {name: float(value) for name, _, value in pairs}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=Path, required=True, help="written by synthesis shards")
    parser.add_argument("--corpus", type=Path, required=True, help="clips.json and audio/")
    parser.add_argument("--visemes", type=Path, required=True, help="JSON: viseme to controls")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--resume", type=Path, help="start from a folder written by --out")
    parser.add_argument(
        "--teacher",
        type=Path,
        nargs="+",
        help="weights of one or more teachers, as the teacher stage saves them, each beside its "
        "teacher_config.json; default: teacher.safetensors of the corpus, if it has one",
    )
    parser.add_argument(
        "--seconds",
        default=_SECONDS,
        help="a budget for each stage",
    )
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument(
        "--seed", type=int, default=1, help="runs of other seeds from one start can be averaged"
    )
    parser.add_argument(
        "--rates",
        default=_RATES,
        help="learning rates of the teacher (tune), the student (the audio encoder in the audio "
        "stage), vae, unet, decoder and audio (the encoder in the face stage); in the audio stages "
        "the loss weights of the labels (truth), of the opening in it, of the teachers' states "
        "(teacher) and of the mouths they predict (teacher_mouth), dropout, and windows a step; in "
        "the face stage the loss weights of sharpness (sharp) and of the critic; what is not named "
        f"is as in {_RATES}",
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
