"""Blinks of a still picture: the lids close over the eyes, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from tests.drawn_faces import draw_face, face_landmarks
from wsavatar.creation.blink import EyeLids

W, H = 480, 400
POINTS = face_landmarks((W / 2, 180), 300)
PICTURE = draw_face(W, H, POINTS)


def white(picture: np.ndarray) -> int:
    """Pixels of the drawn eyes."""
    return int((picture.min(axis=2) > 235).sum())


def test_closed_lids_cover_the_eyes() -> None:
    """Half closed about half of them; open none, and the picture is the same one."""
    lids = EyeLids(PICTURE, POINTS)
    assert lids.can_blink and lids.closed(0) is PICTURE
    eyes = white(PICTURE)
    assert white(lids.closed(1)) < 0.06 * eyes
    assert 0.25 * eyes < white(lids.closed(0.5)) < 0.75 * eyes


def test_only_the_eyes_change() -> None:
    """Nothing below them, beside them or above the brows."""
    changed = np.argwhere((EyeLids(PICTURE, POINTS).closed(1) != PICTURE).any(axis=2))[:, ::-1]
    low, high = POINTS[36:48].min(axis=0), POINTS[36:48].max(axis=0)
    assert (changed >= low - [12, 40]).all() and (changed <= high + [12, 12]).all()


def test_landmarks_of_the_lids_close_too() -> None:
    """The upper points come down to the lower ones; the rest stays."""
    moved = EyeLids(PICTURE, POINTS).moved(POINTS, 1)
    np.testing.assert_allclose(moved[[37, 38, 43, 44]], moved[[41, 40, 47, 46]], atol=0.01)
    others = [i for i in range(68) if i not in (37, 38, 43, 44)]
    np.testing.assert_array_equal(moved[others], POINTS[others])


@pytest.mark.parametrize("what", ["closed", "tiny", "crossed", "glasses", "hair"])
def test_eyes_that_cannot_blink_are_left(what: str) -> None:
    """Closed ones, a few pixels, those whose points a detector has mixed up, and those behind the
    rim of glasses; where hair is over one eye, neither blinks."""
    points, picture = POINTS.copy(), PICTURE.copy()
    if what == "closed":
        points[[37, 38, 43, 44]] = points[[41, 40, 47, 46]] - [0, 2]
    elif what == "tiny":
        points = face_landmarks((W / 2, 180), 40)
    elif what == "crossed":
        points[[37, 38, 43, 44]] = points[[38, 37, 44, 43]]
    else:
        eyes = (points[36:42], points[42:48]) if what == "glasses" else (points[36:42],)
        for x in (eye[:, 0].mean() for eye in eyes):
            picture[140:144, int(x) - 30 : int(x) + 30] = 0
            picture[146:150, int(x) - 30 : int(x) + 30] = 255
    lids = EyeLids(picture, points)
    assert not lids.can_blink and lids.closed(1) is picture
    np.testing.assert_array_equal(lids.moved(points, 1), points.astype(np.float32))
