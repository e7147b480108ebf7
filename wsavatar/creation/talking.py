"""A whole clip of one person who talks: where the face is in every frame, and the sound.

The file is read to follow the face, and again whenever its pictures are wanted. It knows no face
model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np

from wsavatar.avatars.format import AvatarError
from wsavatar.creation.request import Progress
from wsavatar.creation.source import Source, SourceLimits
from wsavatar.creation.tracking import FaceFollower, choose_face, filled, whole
from wsavatar.landmarks.base import LandmarkDetector
from wsavatar.media.audio import resample
from wsavatar.media.audio_file import AudioFile, AudioFileError

__all__ = ["LEAST_S", "MOST_S", "TalkingSource", "read_talking"]

LEAST_S, MOST_S = 10.0, 180.0
_LEAST_SEEN = 0.5  # of the frames
_SILENT_DB = -50.0  # of full scale: the loudest 40 ms of a clip that is silence only


@dataclass(frozen=True, slots=True)
class TalkingSource:
    """The first `MOST_S` of a clip: n frames at a constant rate."""

    source: Source
    fps: Fraction
    width: int
    height: int
    landmarks: np.ndarray  # float32 [n, 68, 2]
    seen: np.ndarray  # bool [n]
    audio: np.ndarray  # float32 mono
    notes: tuple[str, ...]

    def pictures(self) -> Iterator[np.ndarray]:
        """The n pictures, uint8 [height, width, 3] RGB."""
        with self.source.moving(alpha=False) as (_, shown):
            for _, picture in islice(shown, len(self.seen)):
                yield picture


def read_talking(
    path: Path,
    detector: LandmarkDetector,
    audio_rate: int,
    progress: Progress,
    *,
    face: int | None = None,
) -> TalkingSource:
    """Read a clip and follow the face in it. The sound is given at ``audio_rate``.

    Raises AvatarError, in one sentence, for a file that is no video with sound, is shorter than
    `LEAST_S`, silent, or hardly shows a face.
    """
    source = Source(path, SourceLimits())
    if not source.is_moving:
        raise AvatarError(f"{path}: is a photo; give a video of the person talking")
    notes: list[str] = []
    points: list[np.ndarray | None] = []
    follower: FaceFollower | None = None
    with source.moving(alpha=False) as (info, shown):
        audio = _sound(path, audio_rate, info.start_s)
        most = round(MOST_S * info.fps)
        total = min(info.frame_count, most)
        for _, picture in islice(shown, most):
            found = None
            if follower is not None:
                found = follower.find(picture)
            elif len(faces := whole(detector.find(picture), picture)) >= (face or 1):
                found, note = choose_face(faces, face)
                notes += [note] if note else []
                follower = FaceFollower(detector, found)
            points.append(None if found is None else found.points)
            progress("look", len(points), total)
        more = next(shown, None) is not None
    seen = np.array([found is not None for found in points])
    _check_length(path, len(points) / info.fps)
    if not seen.any() or seen.mean() < _LEAST_SEEN:
        raise AvatarError(
            f"{path}: the face is seen in {100 * seen.mean():.0f} % of the frames; film it whole, "
            "in good light"
        )
    if more:
        notes.append(f"The first {MOST_S / 60:.0f} minutes are taken.")
    samples = int(len(points) / info.fps * audio_rate)
    missing = max(0, samples - len(audio))
    audio = np.pad(audio[:samples], (0, missing))
    return TalkingSource(
        source, info.fps, info.width, info.height, filled(points), seen, audio, tuple(notes)
    )


def _check_length(path: Path, seconds: Fraction | float) -> None:
    if seconds < LEAST_S:
        raise AvatarError(
            f"{path}: has {float(seconds):.1f} s; at least {LEAST_S:.0f} s of talking are needed, "
            "and one to three minutes are best"
        )


def _sound(path: Path, rate: int, begin_s: Fraction) -> np.ndarray:
    """The sound from ``begin_s`` of the file's clock on, `MOST_S` at most: float32 mono."""
    try:
        file = AudioFile(path)
        most, late = (round(s * file.sample_rate) for s in (MOST_S, file.start_s - begin_s))
        parts, count = [np.zeros(min(max(late, 0), most), np.float32)], late
        for piece in file.pieces():
            if count >= most:
                break
            parts.append(piece.mean(axis=1, dtype=np.float32))
            count += len(piece)
    except AudioFileError as error:
        raise AvatarError(f"{error}; a clip with the person's own sound is needed") from error
    mono = np.concatenate(parts)[max(-late, 0) :][:most]
    step = max(file.sample_rate // 25, 1)
    steps = mono[: len(mono) // step * step].reshape(-1, step)
    loudest = np.sqrt(np.square(steps).mean(axis=1)).max(initial=0.0)
    if 20 * np.log10(max(float(loudest), 1e-9)) < _SILENT_DB:
        raise AvatarError(f"{path}: its sound is silence; give a clip in which the person talks")
    return resample(mono, file.sample_rate, rate)
