"""What a user should know of a new avatar, in one sentence each. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from wsavatar.creation.calm import Part, mouth_opening
from wsavatar.creation.closing import OPEN_MOUTH
from wsavatar.creation.lip_edges import shows_lips
from wsavatar.landmarks.base import Face

__all__ = ["clock", "covered_note", "face_notes", "is_seen_well", "part_note"]

_SMALL_MOUTH = 40  # pixels: below, what the model draws is visibly softer than the picture
_UNSURE = 0.5
_TURNED = 3.0  # one side of the face is so many times as wide as the other: about 45 degrees
_WHOLE_SLACK_S = 0.5


def clock(seconds: float) -> str:
    """A time as minutes and seconds: "1:02.5"."""
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


def part_note(part: Part, total_s: float) -> str:
    """Which part was taken of a video of ``total_s``; "" if it is the whole and at rest."""
    is_whole = part.end_s - part.start_s > total_s - _WHOLE_SLACK_S
    taken = f"Took {clock(part.start_s)} to {clock(part.end_s)} of {clock(total_s)}"
    if part.talks:
        return ("The mouth moves" if is_whole else f"{taken}: the mouth moves") + (
            " throughout, so it is closed with pictures of its rests; a video of a silent person "
            "looks better."
        )
    return "" if is_whole else f"{taken}: the mouth and the head are calmest there."


def is_seen_well(face: Face) -> bool:
    """Whether its points are certain and both its sides are seen."""
    return face.score >= _UNSURE and _asymmetry(face.points) <= _TURNED


def covered_note(picture: np.ndarray, face: Face) -> str:
    """Of a photo, uint8 [H, W, 3], in which something is in front of the mouth; "" of others."""
    if not is_seen_well(face) or shows_lips(picture, face.points):
        return ""
    return "No lips are seen: take a picture with nothing in front of the mouth, or a clearer one."


def face_notes(
    face: Face, width: int, height: int, *, is_closed: bool = False, closes: bool = False
) -> Iterator[str]:
    """Of the face as it is seen first, in a picture of that size. ``is_closed``: its mouth will be
    shown closed, as it was in other pictures; ``closes``: because its lips are moved together."""
    points = face.points
    mouth = float(np.ptp(points[48:60, 0]))
    if mouth < _SMALL_MOUTH:
        yield (
            f"The mouth is only {mouth:.0f} pixels wide and will look soft; "
            "take a picture in which the face is larger."
        )
    if _asymmetry(points) > _TURNED:
        yield "The face is turned far to the side; one that looks at the camera speaks better."
    if (points < 0).any() or (points > [width, height]).any():
        yield "The face reaches out of the picture; one that is wholly in it speaks better."
    if face.score < _UNSURE:
        yield (
            "The face is hard to see, something is in front of it, or it is no person's; check how "
            "it speaks, or take another picture."
        )
    if closes:
        yield (
            "The mouth is open, so its lips are moved together; a picture in which it is closed "
            "looks better."
        )
    elif not is_closed and float(mouth_opening(points)) > OPEN_MOUTH:
        yield "The mouth is open; a picture in which it is closed looks and speaks better."


def _asymmetry(points: np.ndarray) -> float:
    """The wider side of the face over the narrower, from the nose's bridge."""
    bridge = points[27:31, 0].mean()
    left, right = bridge - points[0:9, 0].min(), points[8:17, 0].max() - bridge
    narrow, wide = sorted((float(left), float(right)))
    return wide / max(narrow, 1.0)
