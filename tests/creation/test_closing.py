"""A smile with teeth in a photo becomes a closed mouth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.drawn_faces import draw_face, face_landmarks
from wsavatar.creation.calm import mouth_opening
from wsavatar.creation.closing import can_close, with_closed_mouth

W, H, SIZE = 320, 320, 180
TEETH = (245, 240, 225)
INNER, OUTER = np.array([0.7, 1, 0.7]), np.array([0.4, 0.8, 1, 0.8, 0.4])


def smile(gap: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """A face that shows its teeth, ``gap`` of its width, and its landmarks."""
    points = face_landmarks((W / 2, H * 0.4), SIZE)
    points[61:64, 1] -= gap * SIZE / 2 * INNER
    points[65:68, 1] += gap * SIZE / 2 * INNER
    points[49:54, 1] -= gap * SIZE / 2 * OUTER
    points[55:60, 1] += gap * SIZE / 2 * OUTER
    picture = draw_face(W, H, points)
    cv2.fillPoly(picture, [np.round(points[60:68]).astype(np.int32)], TEETH)
    return cv2.GaussianBlur(picture, (3, 3), 0), points


def teeth(picture: np.ndarray, points: np.ndarray) -> int:
    """How many pixels between nose and chin are as light as teeth, and not red."""
    middle = points[48:68].mean(axis=0)
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
    near = np.hypot(columns - middle[0], rows - middle[1]) < 0.25 * SIZE
    return int((near & (picture[..., 1] > 200)).sum())


@pytest.mark.parametrize("gap", [0.04, 0.07, 0.1])
def test_teeth_disappear(gap: float) -> None:
    """In the picture, and in its landmarks: the lips touch, and they are where lips are seen."""
    picture, points = smile(gap)
    assert can_close(points) and teeth(picture, points) > 100
    made, moved = with_closed_mouth(picture, points)
    assert teeth(made, moved) < 0.02 * teeth(picture, points)
    assert mouth_opening(moved) < 0.01
    assert np.ptp(moved[48:60, 0]) < np.ptp(points[48:60, 0])
    lips = np.zeros(made.shape[:2], np.uint8)
    hull = cv2.convexHull(moved[48:60])
    cv2.fillConvexPoly(lips, np.round(hull).astype(np.int32), 1)
    red = (made[..., 0].astype(int) - made[..., 1] > 80).astype(np.uint8)
    assert (lips & red).sum() > 0.8 * (lips | red).sum()


def test_landmarks_may_be_a_little_off() -> None:
    """By a twentieth of the mouth's width: the picture says where the teeth end."""
    picture, points = smile()
    for off in (-0.05, 0.05):
        wrong = points.copy()
        wrong[61:64, 1] += off * np.ptp(points[48:60, 0])
        left = teeth(with_closed_mouth(picture, wrong)[0], points)
        assert left < 0.02 * teeth(picture, points)


def test_the_rest_of_the_picture_stays() -> None:
    """Bit for bit: eyes and nose, and beside and below the face."""
    picture, points = smile()
    made, moved = with_closed_mouth(picture, points)
    changed = np.argwhere((made != picture).any(axis=2))[:, ::-1]
    assert changed[:, 1].min() >= points[30, 1] and changed[:, 1].max() <= points[8, 1]
    assert changed[:, 0].min() > points[2, 0] and changed[:, 0].max() < points[14, 0]
    assert (moved[:48] == points[:48]).all()


def test_a_tilted_head_is_closed_alike() -> None:
    """Its mouth is moved along the head's own axes."""
    picture, points = smile()
    turn = cv2.getRotationMatrix2D((W / 2, H / 2), 20, 1)
    tilted = cv2.warpAffine(picture, turn, (W, H), flags=cv2.INTER_CUBIC)
    tilted_points = (points @ turn[:, :2].T + turn[:, 2]).astype(np.float32)
    made, moved = with_closed_mouth(tilted, tilted_points)
    upright, wanted = with_closed_mouth(picture, points)
    assert np.abs(moved - (wanted @ turn[:, :2].T + turn[:, 2])).max() < 1
    there = cv2.warpAffine(upright, turn, (W, H), flags=cv2.INTER_CUBIC)
    mouth = np.s_[int(moved[48:, 1].min()) : int(moved[48:, 1].max()), int(moved[48:, 0].min()) :]
    assert np.abs(made[mouth].astype(int) - there[mouth]).mean() < 3


def test_transparency_moves_with_the_face() -> None:
    """A cut out person stays cut out."""
    picture, points = smile()
    alpha = np.full((H, W, 1), 255, np.uint8)
    made, _ = with_closed_mouth(np.dstack([picture, alpha]), points)
    assert (made[..., 3:] == alpha).all()
    assert (made[..., :3] == with_closed_mouth(picture, points)[0]).all()


def test_which_mouths_are_left_alone() -> None:
    """One that is closed, and one so far open that the jaw would have to move."""
    assert not can_close(face_landmarks((W / 2, H * 0.4), SIZE))
    assert not can_close(smile(0.25)[1])
