"""Blinks of a still picture: the lids close over the eyes, and only there."""

from __future__ import annotations

import cv2
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


def test_a_lid_has_the_colour_of_the_skin() -> None:
    """Also where a dark fold, or a brow, is right above the eye."""
    picture, half = PICTURE.copy(), POINTS.astype(int)
    for eye in (half[36:42], half[42:48]):
        top = eye[1:3, 1].min()
        picture[top - 16 : top - 8, eye[0, 0] : eye[3, 0]] = (60, 40, 30)
    closed = EyeLids(picture, POINTS).closed(1)
    skin = PICTURE[half[30, 1], half[30, 0] + 20].astype(int)
    for eye in (POINTS[36:42], POINTS[42:48]):
        x, y = eye.mean(axis=0).astype(int)
        np.testing.assert_allclose(closed[y - 2 : y + 2, x - 5 : x + 5] - skin, 0, atol=16)


def test_a_lid_has_the_grain_of_the_skin() -> None:
    """A grainy photo's lids are not flat; a smooth picture's are."""
    noise = np.random.default_rng(3).normal(0, 6, (H, W, 1))
    grainy = np.clip(PICTURE + noise, 0, 255).astype(np.uint8)
    found = {}
    for name, picture in (("grainy", grainy), ("smooth", PICTURE)):
        closed = EyeLids(picture, POINTS).closed(1)
        for eye in (POINTS[36:42], POINTS[42:48]):
            x, y = eye.mean(axis=0).astype(int)
            part = closed[y - 6 : y + 3, x - 12 : x + 12].mean(axis=2)
            found[name] = float((part - cv2.GaussianBlur(part, (0, 0), 2)).std())
    assert found["smooth"] < 1 < 2.5 < found["grainy"] < 6  # the noise itself: 5


def test_lids_of_a_tilted_head_follow_its_eyes() -> None:
    """From corner to corner, by 25 degrees."""
    turn = cv2.getRotationMatrix2D((W / 2, 180), 25, 1)
    picture = cv2.warpAffine(PICTURE, turn, (W, H))
    lids = EyeLids(picture, POINTS @ turn[:, :2].T + turn[:, 2])
    assert lids.can_blink
    assert white(lids.closed(1)) < 0.06 * white(picture)


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
    elif what == "profile":
        points[36:42, 0] = points[39, 0] + (points[36:42, 0] - points[39, 0]) * 0.5
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
