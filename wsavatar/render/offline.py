"""The ``render`` command: an avatar and an audio file in, a finished video out.

Frames come from the same chunker and the same windows as a live session's; only nothing is ever
late or dropped here, and the picture is written to H.264 instead of JPEG. The video has exactly
``ceil(seconds * fps)`` frames and carries the original audio, not the 16 kHz that the model hears.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import soxr  # type: ignore[import-untyped]
from tqdm import tqdm

from wsavatar.avatars.avatar import PreparedAvatar, cycle_index
from wsavatar.avatars.store import AvatarStore
from wsavatar.config import Settings
from wsavatar.errors import WsavatarError
from wsavatar.faces.base import Chunk, FaceModel
from wsavatar.faces.registry import load_face
from wsavatar.media.audio_file import read_audio
from wsavatar.media.video import AudioTrack, VideoWriter
from wsavatar.render.finish.host import to_numpy
from wsavatar.render.finish.paste import paste

__all__ = ["RenderError", "add_arguments", "frame_total", "render_frames", "run"]

_CHUNK_S = 2
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_FALLBACK_RATE = 48_000


class RenderError(WsavatarError, ValueError):
    """A video cannot be made of what was given; the message says what to change."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``render`` takes."""
    parser.description = (
        "Write a finished video (H.264 and AAC in MP4) of an avatar speaking an audio file. "
        "It has the frames that a live session would show for the same audio."
    )
    parser.add_argument("--avatar", metavar="ID", help="who speaks (default: avatars.default)")
    parser.add_argument(
        "--audio",
        type=Path,
        required=True,
        metavar="FILE",
        help="what is spoken: any audio file, or a video's sound (wav, flac, mp3, m4a, mp4, …)",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.mp4")
    parser.add_argument("--force", action="store_true", help="replace the output where it exists")
    parser.add_argument(
        "--fps", type=int, metavar="N", help="frames a second (default: render.fps)"
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


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Render one video. Raises errors that say what to change; the output is whole or absent."""
    fps, batch_size = _limits(args, settings)
    _check_output(args.output, force=args.force)
    audio = read_audio(args.audio)
    if args.model is not None:
        chosen = settings.model.model_copy(update={"path": args.model})
        settings = settings.model_copy(update={"model": chosen})
    model = load_face(settings)
    store = AvatarStore(settings.avatars, model)
    avatar = store.get(args.avatar or store.default_id)
    total = frame_total(audio, fps)
    look = settings.render.sharpness, settings.render.colour_match
    frames = render_frames(model, avatar, audio, fps, batch_size, *look)
    bar = tqdm(frames, total=total, desc=f"{avatar.id}: {args.output.name}", unit="frame")
    write_video(args.output, bar, avatar, audio, fps)
    print(f"wrote {args.output}: {total} frames, {float(audio.seconds):.2f} s")
    return 0


def _limits(args: argparse.Namespace, settings: Settings) -> tuple[Fraction, int]:
    fps = settings.render.fps if args.fps is None else args.fps
    batch_size = settings.render.batch_size if args.batch_size is None else args.batch_size
    if not 5 <= fps <= 60:
        raise RenderError(f"--fps {fps}: from 5 to 60")
    if not 1 <= batch_size <= 64:
        raise RenderError(f"--batch-size {batch_size}: from 1 to 64")
    return Fraction(fps), batch_size


def _check_output(path: Path, *, force: bool) -> None:
    """Fail before the work, not after it."""
    if path.suffix.lower() != ".mp4":
        raise RenderError(f"{path}: the output is an .mp4")
    if path.is_dir():
        raise RenderError(f"{path}: is a directory")
    if path.exists() and not force:
        raise RenderError(f"{path}: exists already (--force replaces it)")
    if not path.parent.is_dir():
        raise RenderError(f"{path}: there is no directory {path.parent}")
    try:  # only writing tells: permissions, read-only file systems and full disks all differ
        _unfinished(path).write_bytes(b"")
        _unfinished(path).unlink()
    except OSError as error:
        raise RenderError(f"{path}: cannot be written ({error.strerror})") from error


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + ".part")


# -- audio ----------------------------------------------------------------------------------------


def frame_total(audio: AudioTrack, fps: Fraction) -> int:
    """``ceil(seconds * fps)``, exactly: every moment of the sound has a frame."""
    return -int(-audio.seconds * fps // 1)


def _speech(audio: AudioTrack, fps: Fraction, sample_rate: int) -> np.ndarray:
    """What the model hears: float32 mono [n], just long enough for `frame_total` frames."""
    mono = audio.samples.mean(axis=1, dtype=np.float32)
    speech = soxr.resample(mono, audio.sample_rate, sample_rate).astype(np.float32, copy=False)
    # Resampling rounds the length; at a frame's edge that would make one frame more or fewer.
    total = frame_total(audio, fps)
    longest = int(total * sample_rate / fps)
    shortest = int((total - 1) * sample_rate / fps) + 1
    speech = speech[:longest]
    return np.pad(speech, (0, max(0, shortest - len(speech))))


# -- pictures -------------------------------------------------------------------------------------


def render_frames(
    model: FaceModel,
    avatar: PreparedAvatar,
    audio: AudioTrack,
    fps: Fraction,
    batch_size: int,
    sharpness: float = 0.0,
    colour_match: bool = False,
) -> Iterator[np.ndarray]:
    """Yield `frame_total` frames, uint8 [H, W, 3] RGB, in order."""
    chunker, conditions = model.windows.open_chunker(fps, 1000 * _CHUNK_S), model.conditions()
    speech = _speech(audio, fps, chunker.sample_rate)
    step = _CHUNK_S * chunker.sample_rate
    for start in range(0, len(speech), step):
        for chunk in chunker.push(speech[start : start + step]):
            (made,), _ = conditions.make([(0, chunk)])
            yield from _speak(model, avatar, chunk, made, fps, batch_size, sharpness, colour_match)
    for chunk in chunker.flush():
        (made,), _ = conditions.make([(0, chunk)])
        yield from _speak(model, avatar, chunk, made, fps, batch_size, sharpness, colour_match)


def _speak(
    model: FaceModel,
    avatar: PreparedAvatar,
    chunk: Chunk,
    condition: Any,
    fps: Fraction,
    batch_size: int,
    sharpness: float,
    colour_match: bool,
) -> Iterator[np.ndarray]:
    face = avatar.face
    rate = Fraction(avatar.fps).limit_denominator(1001) / fps
    for first in range(0, chunk.frame_count, batch_size):
        rows = range(first, min(first + batch_size, chunk.frame_count))
        sources = [
            cycle_index(int((chunk.first_frame + row) * rate), avatar.frame_count) for row in rows
        ]
        patches = model.generate(face.inputs[sources], condition[rows.start : rows.stop])
        for source, patch in zip(sources, to_numpy(patches), strict=True):
            yield paste(
                avatar.frames[source],
                patch,
                face.crop_boxes[source],
                face.paste_boxes[source],
                face.masks[source],
                sharpness,
                colour_match,
                face.detail_of(source),
            )


def write_video(
    path: Path,
    frames: Iterator[np.ndarray],
    avatar: PreparedAvatar,
    audio: AudioTrack,
    fps: Fraction,
) -> None:
    """Write frames and sound to ``path``, which appears when it is complete. Raises VideoError."""
    unfinished = _unfinished(path)
    try:
        with VideoWriter(
            unfinished, width=avatar.width, height=avatar.height, fps=fps, audio=_for_aac(audio)
        ) as video:
            for frame in frames:
                video.write(frame)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _for_aac(audio: AudioTrack) -> AudioTrack:
    """AAC knows certain sample rates only; sound at another is resampled to 48 kHz."""
    if audio.sample_rate in _AAC_RATES:
        return audio
    samples = soxr.resample(audio.samples, audio.sample_rate, _FALLBACK_RATE)
    return AudioTrack(samples.astype(np.float32, copy=False), _FALLBACK_RATE)
