"""A drawn face with exact landmarks: what tests of avatars use instead of a person."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

__all__ = ["draw_face", "face_landmarks", "face_video"]


def face_landmarks(centre: tuple[float, float], size: float) -> np.ndarray:
    """Plausible iBUG-68 points, float32 [68, 2], of a frontal face ``size`` pixels wide."""
    points = np.zeros((68, 2))
    angle = np.linspace(np.pi, 0, 17)
    points[:17] = np.stack([0.5 * np.cos(angle), 0.62 * np.sin(angle)], axis=1)
    points[17:27, 0] = [-0.40, -0.34, -0.27, -0.19, -0.11, 0.11, 0.19, 0.27, 0.34, 0.40]
    points[17:27, 1] = -0.18
    points[27:31] = [[0, -0.06], [0, 0.01], [0, 0.08], [0, 0.15]]
    points[31:36] = [[x, 0.19] for x in (-0.10, -0.05, 0, 0.05, 0.10)]
    for first, x in ((36, -0.21), (42, 0.21)):
        turn = np.linspace(np.pi, -np.pi, 7)[:6]
        points[first : first + 6] = np.stack(
            [x + 0.09 * np.cos(turn), -0.05 - 0.04 * np.sin(turn)], axis=1
        )
    for first, count, width, height in ((48, 12, 0.19, 0.06), (60, 8, 0.15, 0.01)):
        turn = np.linspace(np.pi, -np.pi, count + 1)[:count]
        points[first : first + count] = np.stack(
            [width * np.cos(turn), 0.36 - height * np.sin(turn)], axis=1
        )
    return (points * size + centre).astype(np.float32)


def draw_face(width: int, height: int, landmarks: np.ndarray) -> np.ndarray:
    """The face those landmarks describe, uint8 [height, width, 3] RGB, on a shaded background."""
    ramp = np.linspace(60, 180, width, dtype=np.uint8)
    picture = np.stack([np.tile(ramp, (height, 1))] * 3, axis=2)
    picture[:, :, 2] //= 2
    points = np.round(landmarks).astype(np.int32)
    forehead = points[[16, 0]] - [0, int(0.55 * (points[16, 0] - points[0, 0]))]
    cv2.fillConvexPoly(picture, cv2.convexHull(np.concatenate([points[:17], forehead])), _SKIN)
    for eye in (points[36:42], points[42:48]):
        cv2.fillPoly(picture, [eye], (250, 250, 250))
    cv2.polylines(picture, [points[27:31]], False, (150, 100, 80), 2)
    cv2.fillPoly(picture, [points[48:60]], (180, 60, 70))
    return cv2.GaussianBlur(picture, (3, 3), 0)


def face_video(
    width: int, height: int, count: int, size: float = 90.0
) -> tuple[Iterator[np.ndarray], np.ndarray]:
    """Frames of a gently swaying face, and their landmarks float32 [count, 68, 2]."""
    sway = 3 * np.sin(np.linspace(0, np.pi, count))
    landmarks = np.stack(
        [face_landmarks((width / 2 + shift, height * 0.45), size) for shift in sway]
    )
    return (draw_face(width, height, points) for points in landmarks), landmarks


_SKIN = (220, 170, 140)
