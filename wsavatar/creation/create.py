"""From a photo or video file to an avatar's folder.

It blocks, and takes seconds; call it in a thread. It knows the face's detector by its interface,
and no face model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np

from wsavatar.avatars.format import MAX_FRAMES, MIN_SIDE, AvatarError
from wsavatar.avatars.writing import check_new_id, write_avatar
from wsavatar.creation.ahead import made_ahead
from wsavatar.creation.calm import MAX_GAP_S, Look, Part, calmest
from wsavatar.creation.closing import can_close, with_closed_mouth
from wsavatar.creation.names import free_id, name_of
from wsavatar.creation.notes import clock, covered_note, face_notes, is_seen_well, part_note
from wsavatar.creation.request import (
    AvatarRequest,
    CancelledError,
    Created,
    Progress,
    UnfitFileError,
)
from wsavatar.creation.resting import at_rest, resting
from wsavatar.creation.source import MAX_SIDE, Source, SourceLimits
from wsavatar.creation.still import FPS, FRAME_COUNT, living
from wsavatar.creation.tracking import (
    FaceFollower,
    choose_face,
    filled,
    has_moved,
    is_turned,
    whole,
)
from wsavatar.landmarks.base import Face, LandmarkDetector

__all__ = ["create_avatar"]

_LOOKS_PER_S = 6
_DENSE_FPS = 20
_SHORTEST_RESTED_S = 2.0
_AHEAD = 4
"""Frames that are found or made while others are written."""


@dataclass(slots=True)
class _Making:
    """What the steps of one avatar share."""

    source: Source
    limits: SourceLimits
    detector: LandmarkDetector
    request: AvatarRequest
    progress: Progress
    go_on: Callable[[], None]
    notes: list[str] = field(default_factory=list)
    most_faces: int = 0
    has_others: bool = False
    """Whether a face was seen that is not upright, or hardly in the picture."""

    def step(self, what: str, done: int, total: int) -> None:
        """Report a step; raise CancelledError if nobody waits for the avatar any more."""
        self.go_on()
        self.progress(what, done, total)

    def choose(self, picture: np.ndarray) -> Face | None:
        """The wanted face of a picture; None: it has none, or not so many."""
        picture = picture[..., :3]
        found = self.detector.find(picture)
        faces = whole(found, picture)
        self.has_others |= len(found) > len(faces)
        self.most_faces = max(self.most_faces, len(faces))
        if len(faces) < (self.request.face or 1):
            return None
        face, note = choose_face(faces, self.request.face)
        if note and note not in self.notes:
            self.notes.append(note)
        return face

    def check_size(self, width: int, height: int) -> None:
        """Raise UnfitFileError for a picture that is too small for an avatar."""
        if min(width, height) < MIN_SIDE:
            scaled = " once it is scaled down" if max(width, height) == MAX_SIDE else ""
            raise UnfitFileError(
                f"{self.source.path}: is {width}x{height} pixels{scaled}; "
                f"an avatar has at least {MIN_SIDE} each way"
            )

    def no_face(self, picture: np.ndarray | None = None) -> UnfitFileError:
        """Why there is nothing to make. ``picture``: that of a photo, which may lie on its side."""
        path, count, wanted = self.source.path, self.most_faces, self.request.face or 1
        if 0 < count < wanted:
            return UnfitFileError(
                f"{path}: there {'is 1 face' if count == 1 else f'are {count} faces'} in it, so "
                f"--face {wanted} is not there"
            )
        if self.has_others:
            return UnfitFileError(
                f"{path}: the head is tilted too far, or hardly in the picture; turn the picture "
                "until the head is upright, or take another one"
            )
        if picture is not None and is_turned(self.detector, picture[..., :3]):
            return UnfitFileError(f"{path}: the person lies on the side; turn the picture upright")
        return UnfitFileError(
            f"{path}: no face was found; take a picture of a person who looks at the camera, in "
            "good light, with the whole face in it and nothing in front of it"
        )


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
    if request.face is not None and request.face < 1:
        raise AvatarError("faces are counted from 1, the largest first")
    id = request.id or free_id(source, directory)
    check_new_id(directory, id, overwrite=request.overwrite)
    limits = limits or SourceLimits()

    def go_on() -> None:
        if cancelled is not None and cancelled.is_set():
            raise CancelledError(f"{source}: cancelled")

    making = _Making(
        Source(source, limits, go_on),
        limits,
        detector,
        request,
        progress or (lambda what, done, total: None),
        go_on,
    )
    make = _of_video if making.source.is_moving else _of_photo
    fps, frames, points = make(making)
    is_new = not (directory / id).exists()
    with closing(made_ahead(frames, _AHEAD)) as made:
        folder = write_avatar(
            directory,
            id,
            request.name or (name_of(source) if is_new else ""),
            made,
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


_Numbered = tuple[int, np.ndarray]
_Pictures = Generator[np.ndarray, None, None]
_Made = tuple[Fraction, _Pictures, list[np.ndarray]]
"""Frames a second, the frames, and their landmarks: a list that is full after the last frame."""


def _of_photo(making: _Making) -> _Made:
    making.step("look", 0, 1)
    return _of_still(making, making.source.still())


def _of_still(making: _Making, picture: np.ndarray) -> _Made:
    height, width = picture.shape[:2]
    making.check_size(width, height)
    face = making.choose(picture)
    if face is None:
        raise making.no_face(picture)
    covered = covered_note(np.ascontiguousarray(picture[..., :3]), face)
    closes = not covered and is_seen_well(face) and can_close(face.points)
    making.notes += face_notes(face, width, height, closes=closes)
    if covered:
        making.notes.append(covered)
    start = with_closed_mouth(picture, face.points) if closes else (picture, face.points)
    points: list[np.ndarray] = []

    def frames() -> _Pictures:
        for number, (shown, moved) in enumerate(living(*start)):
            making.step("write", number, FRAME_COUNT)
            points.append(moved)
            yield shown
        making.step("write", FRAME_COUNT, FRAME_COUNT)

    return Fraction(FPS), frames(), points


def _of_video(making: _Making) -> _Made:
    looks, still = _survey(making)
    if still is not None:  # one frame: a picture that only a decoder of videos reads
        return _of_still(making, still)
    part = calmest(looks, 1 / _LOOKS_PER_S)
    if part is None:
        raise making.no_face()
    if note := part_note(part, looks[-1].time_s + 1 / _LOOKS_PER_S):
        making.notes.append(note)
    opened = making.source.moving(part_s=(part.start_s, part.end_s))
    points: list[np.ndarray] = []
    with opened as (info, _):
        making.notes += face_notes(part.first, info.width, info.height, is_closed=part.talks)
    frames = _rested(making, part, points) if part.talks else _written(making, part, points)
    return info.fps, frames, points


def _survey(making: _Making) -> tuple[list[Look], np.ndarray | None]:
    """A few looks a second at the whole video; and its picture, if it has only one."""
    looks: list[Look] = []
    follower: FaceFollower | None = None
    last = 0
    seconds = making.limits.seconds
    with making.source.moving(fastest=_LOOKS_PER_S) as (info, shown):
        making.check_size(info.width, info.height)
        total = round(info.frame_count / info.file_fps * _LOOKS_PER_S)
        for number, (in_file, picture) in enumerate(shown):
            last = in_file
            if max(number, total) / _LOOKS_PER_S > seconds:
                limit = f"{seconds:g} s" if seconds < 60 else f"{seconds / 60:.3g} minutes"
                raise UnfitFileError(f"{making.source.path}: is longer than {limit}; cut it")
            making.step("look", number, total)
            face = making.choose(picture) if follower is None else follower.find(picture[..., :3])
            if face is not None and follower is None:
                follower = FaceFollower(making.detector, face)
            looks.append(Look(number / _LOOKS_PER_S, face))
    return looks, _only_picture(making) if last == 0 else None


def _only_picture(making: _Making) -> np.ndarray | None:
    """The picture of a video that has only one frame."""
    with making.source.moving() as (_, shown):
        first = next(shown)
        return None if any(number for number, _ in shown) else first.picture


def _written(making: _Making, part: Part, points: list[np.ndarray]) -> _Pictures:
    """The part's frames as they are. ``points`` is filled at their end."""
    for _, picture in _followed(making, part, points, passes=1):
        yield picture


def _rested(making: _Making, part: Part, points: list[np.ndarray]) -> _Pictures:
    """The part's frames, with the mouth of those who talk at rest. ``points`` is filled.

    First the face is followed through all of them. If that leaves too little, they are as they are.
    """
    known: list[np.ndarray] = []
    first = min(number for number, _ in _followed(making, part, known, passes=2))
    talking = np.stack(known)
    begin = int(at_rest(talking)[0])
    with making.source.moving(part_s=(part.start_s, part.end_s)) as (info, shown):
        pictures = (picture for _, picture in islice(shown, first, first + len(known)))
        if (len(known) - begin) / info.fps < _SHORTEST_RESTED_S:
            points += known
            yield from pictures
            return
        total = 2 * len(known)
        for number, (picture, moved) in enumerate(resting(pictures, talking)):
            making.step("write", len(known) + begin + number, total)
            points.append(moved)
            yield picture
        making.step("write", total, total)


def _followed(
    making: _Making, part: Part, points: list[np.ndarray], *, passes: int
) -> Generator[_Numbered, None, None]:
    """The part's frames with their numbers, each with the face in it: ``points`` is filled at their
    end. It is the first of so many ``passes`` through them.

    A face that is hidden for a moment is where its neighbours say; the frames end before a longer
    time without it. Of a face that hardly moves every other frame is looked at.
    """
    follower = FaceFollower(making.detector, part.first)
    found: list[np.ndarray | None] = []
    waiting: list[_Numbered] = []
    with making.source.moving(part_s=(part.start_s, part.end_s)) as (info, shown):
        total = min(round((part.end_s - part.start_s) * info.fps), MAX_FRAMES)
        for number, (_, picture) in enumerate(islice(shown, total)):
            making.step("write", number, passes * total)
            waiting.append((number, picture))
            if found and len(waiting) == 1 and info.fps >= _DENSE_FPS:
                continue  # the next frame says whether to look at it
            face = follower.find(picture[..., :3])
            if face is None:
                if not found:  # it begins with the face
                    waiting = []
                elif len(waiting) > MAX_GAP_S * info.fps:
                    at = clock(part.start_s + number / float(info.fps))
                    making.notes.append(f"The face is lost at {at}: the avatar ends before.")
                    break
                continue
            before: list[np.ndarray | None] = [None] * (len(waiting) - 1)
            if len(before) == 1 and found[-1] is not None and has_moved(found[-1], face):
                between = follower.find(waiting[0][1][..., :3])
                before = [between.points if between else None]
            found += [*before, face.points]
            yield from waiting
            waiting = []
        if found and len(waiting) == 1 and (last := follower.find(waiting[0][1][..., :3])):
            found.append(last.points)
            yield waiting[0]
    if not found:
        raise making.no_face()
    points += list(filled(found))
    making.step("write", total, passes * total)
