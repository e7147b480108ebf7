"""A still picture's motion: gentle, the same for pixels and landmarks, none at the border."""

from __future__ import annotations

import numpy as np
import pytest

from tests.drawn_faces import face_landmarks
from wsavatar.creation.motion import HeadMotion, warped

W, H = 320, 272
POINTS = face_landmarks((W / 2, 120), 110)


def dot(at: np.ndarray) -> np.ndarray:
    """A picture of one soft dot."""
    y, x = np.mgrid[:H, :W]
    value = 255 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / 18)
    return np.repeat(value[:, :, None], 3, axis=2).astype(np.uint8)


def centre(picture: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:H, :W]
    weight = np.clip(picture[:, :, 0].astype(float) - 20, 0, None)
    return np.array([(weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()])


@pytest.mark.parametrize("point", [0, 8, 19, 30, 36, 54])
@pytest.mark.parametrize("part", [0.0, 0.37, 1.0])
def test_landmarks_move_with_the_pixels(point: int, part: float) -> None:
    """To a tenth of a pixel: what was drawn at a landmark is at the moved landmark."""
    motion = HeadMotion(POINTS, W, H)
    still = dot(POINTS[point])
    moved = centre(warped(still, motion.sources(part)))
    wanted = motion.moved(POINTS, part)[point] - POINTS[point]
    np.testing.assert_allclose(moved - centre(still), wanted, atol=0.1)


def test_the_motion_is_gentle_and_starts_and_ends_at_rest() -> None:
    """At most 6 % of the face, no jerk, and no speed at the ends, where it turns back."""
    motion = HeadMotion(POINTS, W, H)
    track = np.array([motion.moved(POINTS, part) for part in np.linspace(0, 1, 150)])
    face = float(np.ptp(POINTS[:, 0]))
    assert 0.01 * face < np.abs(track - POINTS).max() < 0.06 * face
    speed = np.linalg.norm(np.diff(track, axis=0), axis=2)
    assert speed.max() < 0.006 * face
    assert max(speed[0].max(), speed[-1].max()) < 0.1 * speed.max()
    np.testing.assert_allclose(motion.displacement(np.array([[0, 100], [W - 1, H - 1]]), 0.3), 0)
