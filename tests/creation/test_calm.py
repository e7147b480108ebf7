"""Which part of a video becomes the avatar: where the mouth is at rest and the head still."""

from __future__ import annotations

import numpy as np
import pytest

from tests.creation.drawn import speaking
from tests.drawn_faces import face_landmarks
from wsavatar.creation.calm import Look, calmest
from wsavatar.creation.notes import clock, part_note
from wsavatar.landmarks.base import Face

RATE = 6


def looks(seconds: float, talks: range = range(0), hidden: range = range(0)) -> list[Look]:
    """A person who talks and is hidden in those seconds."""
    found = []
    for number in range(round(seconds * RATE)):
        second = int(number / RATE)
        opening = 0.08 + 0.08 * np.sin(2.4 * number) if second in talks else 0.0
        points = speaking(face_landmarks((200, 150), 120), opening)
        found.append(Look(number / RATE, None if second in hidden else Face(points, 0.9)))
    return found


def test_a_short_calm_video_is_taken_as_it_is() -> None:
    """And nothing need be said."""
    part = calmest(looks(12), 1 / RATE)
    assert part is not None and (part.start_s, part.end_s) == (0, 12) and not part.talks
    assert part_note(part, 12) == ""


def test_of_a_long_video_the_silence_is_taken() -> None:
    """A person who talks, listens for ten seconds, and talks again."""
    talking = looks(60, talks=range(60))
    talking[25 * RATE : 35 * RATE] = [
        Look(look.time_s, resting.face)
        for look, resting in zip(talking[25 * RATE : 35 * RATE], looks(10), strict=True)
    ]
    part = calmest(talking, 1 / RATE)
    assert part is not None and not part.talks
    assert 24.8 <= part.start_s <= 26 and 34 <= part.end_s <= 35.2
    assert part_note(part, 60).startswith(f"Took {clock(part.start_s)} to {clock(part.end_s)} of 1")


def test_twenty_seconds_at_most() -> None:
    """Of a long calm video."""
    part = calmest(looks(90), 1 / RATE)
    assert part is not None and part.end_s - part.start_s == pytest.approx(20)


def test_a_person_who_never_stops_talking() -> None:
    """Is taken all the same, and it is said."""
    part = calmest(looks(30, talks=range(30)), 1 / RATE)
    assert part is not None and part.talks and part.end_s - part.start_s >= 5
    assert "the mouth moves throughout" in part_note(part, 30)


def test_the_part_has_the_face_throughout() -> None:
    """A face that is hidden for seconds divides the video; the longer side is taken."""
    part = calmest(looks(22, hidden=range(6, 9)), 1 / RATE)
    assert part is not None and (part.start_s, part.end_s) == (9, 22)


def test_a_video_shorter_than_five_seconds() -> None:
    """Is taken whole; without a face there is nothing to take."""
    part = calmest(looks(2), 1 / RATE)
    assert part is not None and part.end_s == 2
    assert calmest(looks(3, hidden=range(3)), 1 / RATE) is None
