"""The mouth of a person who talks in a video, closed by the nearest frames in which it is."""

from __future__ import annotations

import numpy as np

from tests.creation.drawn import drawn, speaking
from tests.drawn_faces import face_landmarks
from wsavatar.creation.calm import mouth_opening
from wsavatar.creation.resting import at_rest, resting

W, H, SIZE = 240, 240, 120


def clip(openings: list[float], step: float = 0.0) -> tuple[list[np.ndarray], np.ndarray]:
    """Pictures and landmarks of a head that moves ``step`` pixels a frame."""
    centres = [(W / 2 + i * step, 105.0) for i in range(len(openings))]
    pictures = [drawn(W, H, at, SIZE, part) for at, part in zip(centres, openings, strict=True)]
    points = [
        speaking(face_landmarks(at, SIZE), part) for at, part in zip(centres, openings, strict=True)
    ]
    return pictures, np.stack(points).astype(np.float32)


def test_rests_are_where_the_lips_stay_together() -> None:
    """Without the frames in which they come together or part."""
    _, points = clip([0, 0, 0, 0, 0.2, 0.3, 0.2, 0.002, 0, 0.2, 0, 0, 0])
    assert at_rest(points).tolist() == [0, 1, 2, 8, 11, 12]


def test_an_open_mouth_is_closed_and_follows_the_head() -> None:
    """As if the person had been silent: to a few levels where the mouth is."""
    openings = [0.0] * 3 + [0.1, 0.25, 0.25, 0.1] * 4 + [0.0] * 3
    pictures, points = clip(openings, step=1)
    silent, silent_points = clip([0.0] * len(openings), step=1)
    made = list(resting(iter(pictures), points))
    for (shown, moved), wanted, there in zip(made, silent, silent_points, strict=True):
        assert np.abs(moved - there).max() < 0.5
        assert np.abs(shown.astype(int) - wanted).mean() < 1
    assert mouth_opening(np.stack([moved for _, moved in made])).max() < 0.03


def test_a_silent_person_is_left_alone() -> None:
    """Bit for bit."""
    pictures, points = clip([0.0] * 6)
    made = [picture for picture, _ in resting(iter(pictures), points)]
    assert all((a == b).all() for a, b in zip(made, pictures, strict=True))


def test_few_pictures_are_held() -> None:
    """However long the person talks."""
    pictures, points = clip([0.0] * 3 + [0.2] * 40 + [0.0] * 3)
    taken: list[int] = []

    def counted() -> object:
        for number, picture in enumerate(pictures):
            taken.append(number)
            yield picture

    for number, _ in enumerate(resting(counted(), points)):  # type: ignore[arg-type]
        assert len(taken) <= number + 12
