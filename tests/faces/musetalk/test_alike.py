"""Frames that look alike to the model: what is computed of one serves for all of them."""

from __future__ import annotations

import cv2
import numpy as np

from tests.drawn_faces import draw_face, face_landmarks
from wsavatar.faces.musetalk.alike import AlikeFrames
from wsavatar.faces.musetalk.geometry import crop_box
from wsavatar.faces.musetalk.spec import CropMargin

W, H = 320, 320


def firsts(
    offsets: list[tuple[float, float]], noise: float = 0, light: list[int] | None = None
) -> list[int]:
    """What each frame shares, of a face that is moved by so many pixels."""
    rng = np.random.default_rng(3)
    points = face_landmarks((W / 2, H / 2), 160)
    picture = draw_face(W, H, points)
    alike = AlikeFrames(len(offsets))
    found = []
    for number, offset in enumerate(offsets):
        move = np.float32([[1, 0, offset[0]], [0, 1, offset[1]]])
        shown = cv2.warpAffine(picture, move, (W, H)) + rng.normal(0, noise, (H, W, 3))
        if light is not None:
            shown += light[number]
        moved = (points + offset).astype(np.float32)
        crop = crop_box(moved, CropMargin(pixels=10), W, H)
        x1, y1, x2, y2 = crop
        seen = np.clip(shown, 0, 255).astype(np.uint8)[y1:y2, x1:x2]
        found.append(alike.first_like(number, seen, moved, crop))
    return found


def test_a_face_that_stands_still_is_computed_once() -> None:
    """In spite of a camera's noise."""
    assert firsts([(0, 0)] * 8, noise=4) == [0] * 8


def test_whole_pixels_of_movement_are_the_same_to_the_model() -> None:
    """Its crop moves along."""
    assert firsts([(0, 0), (3, 0), (3, -2), (0, 5)]) == [0] * 4


def test_parts_of_a_pixel_are_not_lost() -> None:
    """A face that lies otherwise in its crop has its own: the mouth must not swim."""
    assert firsts([(0, 0), (0.45, 0), (0, 0.45), (0.1, 0)]) == [0, 1, 2, 0]


def test_another_light_is_another_picture() -> None:
    assert firsts([(0, 0)] * 3, light=[0, 12, 1]) == [0, 1, 0]
