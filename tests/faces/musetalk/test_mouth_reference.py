"""The mouth that the model takes as one at rest, in videos of people who talk."""

from __future__ import annotations

import numpy as np

from tests.creation.drawn import speaking
from tests.drawn_faces import face_landmarks
from wsavatar.faces.musetalk.reference import mouth_references

REST = face_landmarks((200, 150), 120)


def track(openings: list[float]) -> np.ndarray:
    return np.stack([speaking(REST, opening) for opening in openings])


def test_a_mouth_at_rest_is_its_own_reference() -> None:
    """Also where the detector's points tremble a little."""
    rng = np.random.default_rng(1)
    trembling = track([0.0] * 40) + rng.normal(0, 0.3, (40, 68, 2))
    np.testing.assert_array_equal(mouth_references(trembling), np.arange(40))


def test_an_open_mouth_takes_the_nearest_closed_one() -> None:
    """In time, on either side."""
    open_at = [3, 4, 5, 6, 9]
    landmarks = track([0.1 if number in open_at else 0.0 for number in range(12)])
    wanted = [0, 1, 2, 2, 2, 7, 7, 7, 8, 8, 10, 11]
    np.testing.assert_array_equal(mouth_references(landmarks), wanted)


def test_a_mouth_that_never_closes_takes_its_most_closed_frames() -> None:
    """A person who talks from the first frame to the last."""
    landmarks = track([0.15, 0.12, 0.06, 0.15, 0.14, 0.13])
    np.testing.assert_array_equal(mouth_references(landmarks), [2] * 6)
