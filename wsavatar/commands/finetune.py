"""The ``finetune`` command: teaches the face model one person, from a clip of them talking.

It knows arguments, the progress bar and what to say; `wsavatar.creation` reads the clip, the face
model learns.
"""

from __future__ import annotations

import argparse
import os
import re
from fractions import Fraction
from pathlib import Path

from tqdm import tqdm

from wsavatar.avatars.format import ID_PATTERN, AvatarError
from wsavatar.avatars.library import avatar_directory, uploads_directory
from wsavatar.avatars.tuning import write_tuning_file
from wsavatar.commands.progress import StepBar
from wsavatar.config import Settings
from wsavatar.creation import AvatarRequest, create_avatar
from wsavatar.creation.talking import TalkingSource, read_talking
from wsavatar.faces.finetuning import (
    Finetuned,
    FinetuneError,
    FinetuneWatch,
    MouthQuality,
    TalkingClip,
)
from wsavatar.faces.registry import load_finetuner, speech_windows
from wsavatar.landmarks.base import LandmarkDetector
from wsavatar.landmarks.registry import load_landmarks

__all__ = ["add_arguments", "run"]

_CHUNK_MS = 500  # any, as the frame rate: only the sample rate is asked for
_DOING = {
    "load": "loading the model",
    "look": "following the face",
    "write": "making the avatar",
    "encode": "looking",
    "listen": "listening",
    "draw": "drawing",
    "learn": "learning",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``finetune``."""
    parser.description = (
        "Teach the model one person's mouth, from one to three minutes of them talking: it is "
        "drawn more like theirs. The clip needs the person's own sound, in step, and the "
        "light and camera of the avatar; best is the clip that the avatar was made of. If there is "
        "no avatar with that id, it is made of the clip first. What was learned is a small file in "
        "the avatar's folder, finetuned.safetensors, which the server uses from its next start on; "
        "delete it to undo. The last part of the clip is not learned from: it tells whether "
        "mouths became better, and if not, nothing is written. Seen so far: 2.5 and 3.4 dB nearer "
        "for clips of 20 and 71 s. Without a GPU, on two busy cores, 71 s took 9 minutes to read "
        "and 8 to learn, and 1.8 GB of memory."
    )
    parser.add_argument("clip", type=Path, metavar="CLIP", help="a video of the person talking")
    parser.add_argument("--id", required=True, help="the avatar; made of the clip if it is new")
    parser.add_argument(
        "--face", type=int, metavar="N", help="of several faces the N-th largest (default: 1)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=480.0,
        help="longest time for learning, after the clip was read (default: 480); a CPU core that "
        "does nothing else needs that long, a busy one more: --seconds 20000. Ctrl-C ends learning "
        "and keeps the best so far",
    )
    parser.add_argument(
        "--device", help="cpu, cuda:0, … (default: the first of the configured devices)"
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Learn a person and write what was learned. Returns 1 if it is no gain, else 0."""
    if not re.fullmatch(ID_PATTERN, args.id):
        raise AvatarError(f"--id {args.id[:64]!r}: small letters, digits, - and _ only, 64 at most")
    if not args.seconds > 0:
        raise FinetuneError(f"--seconds {args.seconds:g}: must be more than 0")
    if not args.clip.exists():  # said before the models are loaded
        raise AvatarError(f"{args.clip}: no such file")
    try:
        with tqdm(leave=False, disable=None) as bar:
            steps = StepBar(bar, args.id, _DOING)
            steps("load", 0, 1)
            learn = load_finetuner(settings, args.device)  # before minutes of reading the clip
            detector = load_landmarks(settings)
            clip = _read(args, settings, detector, steps)
            folder = _folder(args, settings, detector, steps)
            made = learn(clip, args.seconds, FinetuneWatch(steps, _Checked(args.id)))
    except KeyboardInterrupt:
        print(f"{args.id}: stopped before the mouth was learned; nothing of it is written")
        raise
    _report(args.id, made)
    if not made.is_better:
        lost = "they would be less sharp, or move less"
        why = lost if made.is_nearer else "that is no clear gain"
        print(
            f"{args.id}: nothing was written, because {why}; give a longer clip, or more time with "
            "--seconds"
        )
        return 1
    path = write_tuning_file(folder, made.data)
    print(f"{args.id} is finetuned: {path}, {len(made.data) / 1024:.0f} KiB")
    return 0


def _read(
    args: argparse.Namespace, settings: Settings, detector: LandmarkDetector, steps: StepBar
) -> TalkingClip:
    windows = speech_windows(settings)
    rate = windows.open_chunker(Fraction(25), _CHUNK_MS).sample_rate
    source: TalkingSource = read_talking(args.clip, detector, rate, steps, face=args.face)
    for note in source.notes:
        tqdm.write(f"  {note}")
    return TalkingClip(
        source.pictures,
        source.fps,
        source.width,
        source.height,
        source.landmarks,
        source.seen,
        source.audio,
    )


def _folder(
    args: argparse.Namespace, settings: Settings, detector: LandmarkDetector, steps: StepBar
) -> Path:
    """The avatar's folder. A new avatar is made of the clip."""
    places = [avatar_directory(settings.avatars), uploads_directory(settings.avatars)]
    for place in places:
        if (place / args.id / "avatar.json").is_file():
            if not os.access(place / args.id, os.W_OK):
                raise AvatarError(f"{place / args.id}: nothing can be written there")
            return Path(place / args.id)
    request = AvatarRequest(id=args.id, face=args.face)
    created = create_avatar(args.clip, places[0], detector, request, steps)
    tqdm.write(f"{args.id} is new: made of {args.clip}")
    for note in created.notes:
        tqdm.write(f"  {note}")
    return created.folder


class _Checked:
    """Prints how learning goes, for people who wait and for logs."""

    def __init__(self, id: str) -> None:
        self._id = id
        self._hint = "; Ctrl-C ends learning and keeps the best so far"

    def __call__(self, before: MouthQuality, now: MouthQuality) -> None:
        said = f"{self._id}: mouths at {now.psnr_db:.2f} dB, from {before.psnr_db:.2f} dB"
        tqdm.write(said + self._hint)
        self._hint = ""


def _report(id: str, made: Finetuned) -> None:
    print(f"{id}: mouths of {made.held_out_frames} frames that were not learned from")
    print("          PSNR      sharpness, movement (1: as the person's)")
    for name, quality in (("before", made.before), ("after", made.after)):
        figures = f"{quality.psnr_db:.2f} dB  {quality.sharpness:.2f}       {quality.movement:.2f}"
        print(f"  {name:<7} {figures}")
