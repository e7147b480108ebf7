"""Files with drawn faces in them, and a detector that finds such faces by their colours."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from tests.drawn_faces import draw_face, face_landmarks
from wsavatar.landmarks.base import Face

__all__ = ["DrawnFaceDetector", "drawn", "speaking", "write_film"]

SKIN = np.array([220, 170, 140])
INSIDE = (20, 0, 0)  # of an open mouth
MIN_SIZE = 20


def drawn(
    width: int, height: int, centre: tuple[float, float], size: float, opening: float = 0.0
) -> np.ndarray:
    """A picture with a face ``size`` pixels wide, whose mouth is ``opening`` of that open."""
    points = face_landmarks(centre, size)
    picture = draw_face(width, height, points)
    if opening:
        cv2.fillPoly(picture, [np.round(speaking(points, opening)[60:68]).astype(np.int32)], INSIDE)
    return picture


def speaking(points: np.ndarray, opening: float) -> np.ndarray:
    """Those points with the inner lips ``opening`` widths of the face apart."""
    moved = points.copy()
    half = opening * float(np.ptp(points[:17, 0])) / 2
    moved[61:64, 1] -= half
    moved[65:68, 1] += half
    return moved


class DrawnFaceDetector:
    """Finds the faces of `tests.drawn_faces`, of any size, and how far their mouths are open."""

    def __init__(self) -> None:
        self.pictures = 0

    def find(self, picture: np.ndarray, /) -> list[Face]:
        self.pictures += 1
        skin = (np.abs(picture.astype(int) - SKIN).max(axis=2) < 40).astype(np.uint8)
        closed = cv2.morphologyEx(skin, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        _, _, boxes, _ = cv2.connectedComponentsWithStats(closed)
        faces = [self._face(picture, *box[:4]) for box in boxes[1:] if box[2] >= MIN_SIZE]
        return sorted(faces, key=lambda face: -face.size)

    def follow(self, picture: np.ndarray, face: Face, /) -> Face | None:
        centre = face.points.mean(axis=0)
        faces = self.find(picture)
        distances = [float(np.linalg.norm(one.points.mean(axis=0) - centre)) for one in faces]
        if not faces or min(distances) > face.size / 2:
            return None
        return faces[distances.index(min(distances))]

    @staticmethod
    def _face(picture: np.ndarray, x: int, y: int, width: int, height: int) -> Face:
        centre = (x + (width - 1) / 2, y + height - 1 - 0.62 * width)
        points = face_landmarks(centre, width)
        mouth = picture[round(centre[1] + 0.2 * width) : round(centre[1] + 0.55 * width)]
        column = mouth[:, round(centre[0])] if len(mouth) else mouth
        dark = int((column.max(axis=1) < 90).sum()) if len(column) else 0
        return Face(speaking(points, dark / width), 0.9)


def write_film(
    path: Path,
    pictures: Iterable[np.ndarray],
    *,
    fps: int = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    """Write pictures as a video file."""
    with av.open(str(path), "w") as file:
        stream: Any = None
        for number, picture in enumerate(pictures):
            if stream is None:
                stream = file.add_stream(codec, rate=fps, options=options or {"crf": "12"})
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = pix_fmt
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path
