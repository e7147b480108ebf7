"""The ``render`` command: an avatar and an audio file in, a finished video out.

It knows arguments and the file; `wsavatar.render.film` makes the pictures. The video has exactly
``ceil(seconds * fps)`` frames and the original audio, not the model's 16 kHz.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import soxr  # type: ignore[import-untyped]
from tqdm import tqdm

from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.avatars.store import AvatarStore
from wsavatar.config import RenderSettings, Settings
from wsavatar.errors import WsavatarError
from wsavatar.faces.registry import load_face
from wsavatar.media.audio_file import read_audio
from wsavatar.media.video import AudioTrack, SoundFormat, VideoWriter
from wsavatar.render.film import FilmTick, film, frame_total

__all__ = ["RenderError", "add_arguments", "run", "write_video"]

_MAX_REST_S = 60
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_FALLBACK_RATE = 48_000


class RenderError(WsavatarError, ValueError):
    """A video cannot be made from this input; the message says what to change."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``render``."""
    parser.description = (
        "Write a finished video (H.264 and AAC in MP4) of an avatar speaking an audio file. "
        "It has the frames that a live session would show for the same audio."
    )
    parser.add_argument("--avatar", metavar="ID", help="avatar (default: avatars.default)")
    parser.add_argument(
        "--audio",
        type=Path,
        required=True,
        metavar="FILE",
        help="speech: any audio file, or a video with sound (wav, flac, mp3, m4a, mp4, …)",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.mp4")
    parser.add_argument("--force", action="store_true", help="replace an existing output")
    parser.add_argument(
        "--fps", type=int, metavar="N", help="frames per second (default: render.fps)"
    )
    parser.add_argument(
        "--model", metavar="DIR", help="a model in the official layout (default: model.path)"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="frames per model step (default: render.batch_size)",
    )
    parser.add_argument(
        "--rest",
        type=float,
        default=0.0,
        metavar="S",
        help="seconds of the avatar at rest, in silence, before and after (default: 0)",
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Render one video. The output is complete or absent."""
    fps, render = _limits(args, settings)
    _check_output(args.output, force=args.force)
    audio = _for_aac(read_audio(args.audio))
    if args.model is not None:
        chosen = settings.model.model_copy(update={"path": args.model})
        settings = settings.model_copy(update={"model": chosen})
    model = load_face(settings)
    store = AvatarStore(settings.avatars, model)
    avatar = store.get(args.avatar or store.default_id)
    total = frame_total(audio, fps) + 2 * round(args.rest * fps)
    ticks = film(model, avatar, audio, fps, render, rest_s=args.rest)
    bar = tqdm(ticks, total=total, desc=f"{avatar.id}: {args.output.name}", unit="frame")
    sound = SoundFormat(audio.sample_rate, audio.samples.shape[1])
    write_video(args.output, bar, avatar, sound, fps)
    print(f"wrote {args.output}: {total} frames, {float(audio.seconds) + 2 * args.rest:.2f} s")
    return 0


def _limits(args: argparse.Namespace, settings: Settings) -> tuple[Fraction, RenderSettings]:
    fps = settings.render.fps if args.fps is None else args.fps
    batch_size = settings.render.batch_size if args.batch_size is None else args.batch_size
    if not 5 <= fps <= 60:
        raise RenderError(f"--fps {fps}: from 5 to 60")
    if not 1 <= batch_size <= 64:
        raise RenderError(f"--batch-size {batch_size}: from 1 to 64")
    if not 0 <= args.rest <= _MAX_REST_S:
        raise RenderError(f"--rest {args.rest:g}: from 0 to {_MAX_REST_S} s")
    greatest = max(batch_size, settings.render.max_batch_size)
    sizes = {"batch_size": batch_size, "max_batch_size": greatest}
    return Fraction(fps), settings.render.model_copy(update=sizes)


def _check_output(path: Path, *, force: bool) -> None:
    """Check the output path before the work."""
    if path.suffix.lower() != ".mp4":
        raise RenderError(f"{path}: the output must be an .mp4 file")
    if path.is_dir():
        raise RenderError(f"{path}: is a directory")
    if path.exists() and not force:
        raise RenderError(f"{path}: exists already (--force replaces it)")
    if not path.parent.is_dir():
        raise RenderError(f"{path}: no directory {path.parent}")
    try:  # only a write shows permissions, read-only file systems and full disks
        _unfinished(path).write_bytes(b"")
        _unfinished(path).unlink()
    except OSError as error:
        raise RenderError(f"{path}: cannot be written ({error.strerror})") from error


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + ".part")


# -- the file ------------------------------------------------------------------------------------


def write_video(
    path: Path,
    ticks: Iterable[FilmTick],
    avatar: PreparedAvatar,
    sound: SoundFormat,
    fps: Fraction,
) -> None:
    """Write a film to ``path``, which appears when it is complete. Raises VideoError."""
    unfinished = _unfinished(path)
    try:
        with VideoWriter(
            unfinished, width=avatar.width, height=avatar.height, fps=fps, sound=sound
        ) as video:
            for tick in ticks:
                video.write(tick.picture, tick.audio)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _for_aac(audio: AudioTrack) -> AudioTrack:
    """AAC has certain sample rates only; audio at another is resampled to 48 kHz."""
    if audio.sample_rate in _AAC_RATES:
        return audio
    samples = soxr.resample(audio.samples, audio.sample_rate, _FALLBACK_RATE)
    return AudioTrack(samples.astype(np.float32, copy=False), _FALLBACK_RATE)
