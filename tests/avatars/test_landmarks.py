"""Landmarks that cannot be a face are refused, with the frame and the value."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.drawn_faces import face_landmarks
from wsavatar.avatars.format import AvatarError
from wsavatar.avatars.landmarks import check_landmarks

W, H, COUNT = 200, 160, 5


def faces() -> np.ndarray:
    return np.stack([face_landmarks((W / 2, 70), 90)] * COUNT).astype(np.float64)


def swap(points: np.ndarray, one: slice, other: slice) -> None:
    middle = [points[:, part].mean(axis=1, keepdims=True) for part in (one, other)]
    points[:, one] += middle[1] - middle[0]
    points[:, other] += middle[0] - middle[1]


def normalise(points: np.ndarray) -> None:
    points /= (W, H)


def lose_a_point(points: np.ndarray) -> None:
    points[3, 36] = np.nan


def move_the_nose_out(points: np.ndarray) -> None:
    points[2, 27:36, 0] += 150


def move_the_jaw_far_out(points: np.ndarray) -> None:
    points[2, 8, 1] += 100


def turn_upside_down(points: np.ndarray) -> None:
    points[1:, :, 1] = 140 - points[1:, :, 1]


def mirror(points: np.ndarray) -> None:
    points[..., 0] = W - points[..., 0]


def order_by_another_scheme(points: np.ndarray) -> None:
    swap(points, slice(36, 48), slice(48, 68))


def swap_axes(points: np.ndarray) -> None:
    points[:] = points[..., ::-1].copy()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (normalise, "greatest number is 0.78.*must be pixels.*multiply x by 200 and y by 160"),
        (lose_a_point, "frame 3, point 36: x is nan"),
        (move_the_nose_out, r"frame 2, point 27: x is 250\.0, outside the 200x160 picture"),
        (move_the_jaw_far_out, r"frame 2, point 8: y is 225\.8, outside the 200x160 picture"),
        (turn_upside_down, r"frame 1: the eyes \(y 74\.5\) must be above the nose's base"),
        (mirror, r"frame 0: the eye of points 36-41 \(x 118\.9\) must be left of"),
        (order_by_another_scheme, "frame 0: the eyes .* must be above the nose's base"),
        (swap_axes, "frame 0"),
    ],
)
def test_what_cannot_be_a_face_is_refused(spoil: Callable[[np.ndarray], None], says: str) -> None:
    """Parts of the picture instead of pixels, another order, another picture: each in words."""
    points = faces()
    check_landmarks(points, W, H, "anna.npy")
    spoil(points)
    with pytest.raises(AvatarError, match=f"anna.npy: .*{says}"):
        check_landmarks(points, W, H, "anna.npy")


def test_a_close_up_may_cut_the_jaw() -> None:
    """Jaw and brows may reach out of the picture by a quarter of the face."""
    points = faces()
    points[:, :27] *= (1.0, 1.15)
    assert points[:, :27, 1].max() > 140
    check_landmarks(points, W, 128, "anna.npy")


def test_every_real_face_passes(samples_dir: Path) -> None:
    """Photographs, paintings, drawings: turned, tilted, small, with a hat."""
    found = json.loads((samples_dir.parent / "faces" / "landmarks.json").read_text("utf-8"))
    check_landmarks(np.load(samples_dir / "sun_landmarks68.npy"), 576, 768, "sun")
    for name, points in found.items():
        if points is not None:
            check_landmarks(np.array([points]), 960, 960, name)
