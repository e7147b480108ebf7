"""From a photo or video file to an avatar's folder.

It blocks, and takes seconds; call it in a thread. It knows the face's detector by its interface,
and no face model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from wsavatar.avatars.format import AvatarError, check_new_id, write_avatar
from wsavatar.creation.motion import SECONDS, HeadMotion, parts, warped
from wsavatar.creation.names import free_id, name_of
from wsavatar.creation.request import AvatarRequest, CancelledError, Created, Progress
from wsavatar.creation.source import Source, SourceLimits
from wsavatar.creation.tracking import FaceFollower, choose_face, filled
from wsavatar.landmarks.base import Face, LandmarkDetector

__all__ = ["create_avatar"]

_STILL_FPS = 25
_MAX_SECONDS = 20.0


@dataclass(slots=True)
class _Making:
    """What the steps of one avatar share."""

    source: Source
    detector: LandmarkDetector
    request: AvatarRequest
    progress: Progress
    cancelled: threading.Event
    notes: list[str] = field(default_factory=list)

    def step(self, what: str, done: int, total: int) -> None:
        """Report a step; raise CancelledError if nobody waits for the avatar any more."""
        if self.cancelled.is_set():
            raise CancelledError(f"{self.source.path}: cancelled")
        self.progress(what, done, total)

    def choose(self, picture: np.ndarray) -> Face | None:
        """The wanted face of a picture; None: it has none."""
        faces = self.detector.find(picture)
        if not faces:
            return None
        face, note = choose_face(faces, self.request.face, str(self.source.path))
        if note:
            self.notes.append(note)
        return face


def create_avatar(
    source: Path,
    directory: Path,
    detector: LandmarkDetector,
    request: AvatarRequest,
    progress: Progress | None = None,
    limits: SourceLimits | None = None,
    *,
    cancelled: threading.Event | None = None,
    prepare: Callable[[Path], None] | None = None,
) -> Created:
    """Make an avatar of a photo or a video of a person, in ``directory``.

    Its folder appears complete or not at all. ``prepare`` is called with the complete folder before
    it appears. ``cancelled``: once it is set, CancelledError is raised at the next frame. Raises
    AvatarError, whose one sentence names the file and says what to do.
    """
    id = request.id or free_id(source, directory)
    check_new_id(directory, id, overwrite=request.overwrite)
    making = _Making(
        Source(source, limits or SourceLimits()),
        detector,
        request,
        progress or (lambda what, done, total: None),
        cancelled or threading.Event(),
    )
    make = _of_video if making.source.is_moving else _of_photo
    fps, frames, points = make(making)
    is_new = not (directory / id).exists()
    folder = write_avatar(
        directory,
        id,
        request.name or (name_of(source) if is_new else ""),
        frames,
        fps,
        points,
        request.description,
        request.license,
        bbox_shift=request.bbox_shift,
        extra_margin=request.extra_margin,
        overwrite=request.overwrite,
        prepare=prepare,
    )
    return Created(folder, id, tuple(making.notes))


_Made = tuple[Fraction, Iterator[np.ndarray], list[np.ndarray]]


def _of_photo(making: _Making) -> _Made:
    """Frames of a still picture, and the list of landmarks, which fills as they are taken."""
    making.step("look", 0, 1)
    return _of_still(making, making.source.still())


def _of_still(making: _Making, picture: np.ndarray) -> _Made:
    face = making.choose(picture)
    if face is None:
        raise _no_face(making.source.path)
    height, width = picture.shape[:2]
    motion = HeadMotion(face.points, width, height)
    points: list[np.ndarray] = []
    count = round(SECONDS * _STILL_FPS)

    def frames() -> Iterator[np.ndarray]:
        for number, part in enumerate(parts(count)):
            making.step("write", number, count)
            points.append(motion.moved(face.points, part))
            yield warped(picture, motion.sources(part))
        making.step("write", count, count)

    return Fraction(_STILL_FPS), frames(), points


def _of_video(making: _Making) -> _Made:
    pictures: list[np.ndarray] = []
    found: list[np.ndarray | None] = []
    follower: FaceFollower | None = None
    with making.source.moving() as (info, shown):
        count = int(_MAX_SECONDS * info.fps)
        for _, picture in shown:
            if len(pictures) == count:
                break
            making.step("follow", len(pictures), min(info.frame_count, count))
            if follower is None:
                face = making.choose(picture)
                if face is None:
                    continue
                follower = FaceFollower(making.detector, face)
                found.append(face.points)
            else:
                following = follower.find(picture)
                found.append(None if following is None else following.points)
            pictures.append(picture)
    if not pictures:
        raise _no_face(making.source.path)
    if len(pictures) == 1:  # a picture that only a video's decoder reads
        return _of_still(making, pictures[0])
    return info.fps, iter(pictures), list(filled(found))


def _no_face(path: Path) -> AvatarError:
    return AvatarError(
        f"{path}: no face was found; take a picture in which one looks at the camera, in good light"
    )
