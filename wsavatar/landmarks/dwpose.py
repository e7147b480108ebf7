"""DWPose through onnxruntime: whole-body points of which 68 are the face's.

Two published files of yzd-v/DWPose: `yolox_l.onnx` finds people, `dw-ll_ucoco_384.onnx` their 133
points (COCO-WholeBody; 23 to 90 are iBUG's 68).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from wsavatar.config import Settings
from wsavatar.errors import WsavatarError
from wsavatar.landmarks.base import Face

__all__ = ["DETECTOR_FILE", "POSE_FILE", "DWPose", "DWPoseError", "Session", "load"]

POSE_FILE, DETECTOR_FILE = "dw-ll_ucoco_384.onnx", "yolox_l.onnx"

_FACE = slice(23, 91)
_POINTS = 133
_PERSON_SCORE, _PERSON_OVERLAP = 0.3, 0.45
_FACE_SCORE = 0.3
"""Mean score of a face's points, as DWPose's own drawings ask it of a point."""
_MOST_PEOPLE = 20
_STRIDES = (8, 16, 32)
_PADDING = 1.25
_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_DEVIATION = np.array([58.395, 57.12, 57.375], np.float32)
_AROUND_FACE = np.array([[1.6, 1.4], [1.6, 2.8]])
"""What of a person is looked at to follow a face: sizes of the face to the left and above its
middle, to the right and below."""


class DWPoseError(WsavatarError):
    """DWPose's files or onnxruntime are missing or unfit."""


class Session(Protocol):
    """What is used of an onnxruntime.InferenceSession, whose ``run`` any thread may call."""

    def run(self, names: None, inputs: dict[str, np.ndarray], /) -> list[np.ndarray]: ...

    def get_inputs(self) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class _Input:
    """A network's input: its name, and its size in pixels."""

    name: str
    width: int
    height: int

    @staticmethod
    def of(session: Session, file: str) -> _Input:
        """Of a network that takes one picture [1, 3, h, w] of a fixed size."""
        inputs = session.get_inputs()
        shape = list(inputs[0].shape) if len(inputs) == 1 else []
        if len(shape) != 4 or shape[1] != 3 or not all(isinstance(v, int) for v in shape[2:]):
            raise DWPoseError(f"{file}: takes {shape}, not one picture: download it again")
        return _Input(inputs[0].name, shape[3], shape[2])


class DWPose:
    """A `LandmarkDetector` of two onnxruntime sessions."""

    def __init__(self, people: Session, pose: Session) -> None:
        self._people, self._pose = people, pose
        self._people_input = _Input.of(people, DETECTOR_FILE)
        self._pose_input = _Input.of(pose, POSE_FILE)

    def find(self, picture: np.ndarray, /) -> list[Face]:
        """All faces of a picture, the largest first."""
        faces = [self._face(picture, box) for box in self._boxes(picture)]
        found = [face for face in faces if face.score >= _FACE_SCORE]
        return sorted(found, key=lambda face: -face.size)

    def follow(self, picture: np.ndarray, face: Face, /) -> Face | None:
        """``face`` of the picture before, in this one; None: it is lost."""
        low, high = face.points.min(0), face.points.max(0)
        middle, size = (low + high) / 2, float((high - low).max())
        if size < 4:
            return None
        before, after = middle - _AROUND_FACE[0] * size, middle + _AROUND_FACE[1] * size
        found = self._face(picture, np.concatenate([before, after]))
        return found if found.score >= _FACE_SCORE else None

    def _boxes(self, picture: np.ndarray) -> np.ndarray:
        """The people: x1, y1, x2, y2 in pixels [n, 4], the surest first."""
        entry = self._people_input
        ratio = min(entry.height / picture.shape[0], entry.width / picture.shape[1])
        width, height = (max(1, int(side * ratio)) for side in picture.shape[1::-1])
        padded = np.full((entry.height, entry.width, 3), 114, np.uint8)
        # The published detector was trained on BGR.
        padded[:height, :width] = cv2.resize(picture, (width, height))[..., ::-1]
        batch = np.ascontiguousarray(padded.transpose(2, 0, 1)[None], np.float32)
        out = self._people.run(None, {entry.name: batch})[0][0]
        cells = _cells(entry)
        if out.shape != (len(cells), 85):
            raise DWPoseError(f"{DETECTOR_FILE}: gives {out.shape}, not {(len(cells), 85)}")
        middle = (out[:, :2] + cells[:, :2]) * cells[:, 2:]
        half = np.exp(np.clip(out[:, 2:4], -10, 10)) * cells[:, 2:] / 2
        boxes = np.concatenate([middle - half, middle + half], 1) / ratio
        scores = out[:, 4] * out[:, 5]
        likely = np.flatnonzero(scores > _PERSON_SCORE)
        order = likely[np.argsort(-scores[likely])]
        kept: list[int] = []
        for one in order:
            if all(_overlap(boxes[one], boxes[other]) <= _PERSON_OVERLAP for other in kept):
                kept.append(int(one))
        return np.asarray(boxes[kept[:_MOST_PEOPLE]])

    def _face(self, picture: np.ndarray, box: np.ndarray) -> Face:
        """The face of the person in a box, and the mean score of its points."""
        entry = self._pose_input
        middle = (box[:2] + box[2:]) / 2
        width, height = (box[2:] - box[:2]) * _PADDING
        aspect = entry.width / entry.height
        width, height = max(width, height * aspect), max(height, width / aspect)
        scale = width / entry.width
        origin = middle - np.array([width, height]) / 2
        matrix = np.array([[scale, 0, origin[0]], [0, scale, origin[1]]])
        seen = cv2.warpAffine(
            picture,
            matrix,
            (entry.width, entry.height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        batch = ((seen - _MEAN) / _DEVIATION).astype(np.float32).transpose(2, 0, 1)[None]
        across, down = self._pose.run(None, {entry.name: np.ascontiguousarray(batch)})[:2]
        if across.shape[:2] != (1, _POINTS) or down.shape[:2] != (1, _POINTS):
            raise DWPoseError(f"{POSE_FILE}: gives {across.shape}, not {_POINTS} points")
        x, sure_x = _peaks(across[0, _FACE])
        y, sure_y = _peaks(down[0, _FACE])
        steps = across.shape[2] / entry.width, down.shape[2] / entry.height
        points = np.stack([x / steps[0], y / steps[1]], 1) * scale + origin
        score = float(np.clip(np.minimum(sure_x, sure_y), 0, 1).mean())
        return Face(points.astype(np.float32), score)


def _peaks(lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each line [n, k] is largest, between cells by a parabola, and how large there."""
    at = lines.argmax(1)
    rows = np.arange(len(lines))
    inner = np.clip(at, 1, lines.shape[1] - 2)
    left, here, right = (lines[rows, inner + step].astype(np.float64) for step in (-1, 0, 1))
    bend = left - 2 * here + right
    shift = np.where((bend < 0) & (inner == at), (left - right) / (2 * np.minimum(bend, -1e-9)), 0)
    return at + np.clip(shift, -0.5, 0.5), lines[rows, at]


def _cells(entry: _Input) -> np.ndarray:
    """Column, row and stride of each output of the detector of people."""
    parts = []
    for stride in _STRIDES:
        rows, columns = np.mgrid[: entry.height // stride, : entry.width // stride]
        parts.append(np.stack([columns, rows, np.full_like(rows, stride)], 2).reshape(-1, 3))
    return np.concatenate(parts).astype(np.float32)


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union."""
    sides = np.maximum(0, np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]))
    both = float(sides.prod())
    areas = float((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod())
    return both / max(areas - both, 1e-9)


def load(settings: Settings, device: str) -> DWPose:
    """The detector of the configured folder. Raises DWPoseError."""
    return load_from(_directory(settings), device, threads=settings.model.cpu_threads)


def _directory(settings: Settings) -> Path:
    if settings.avatars.dwpose is not None:
        return settings.avatars.dwpose
    path = settings.model.path
    return Path("models" if path == "embedded" else path) / "dwpose"


def load_from(directory: Path, device: str, *, threads: int = 0) -> DWPose:
    """The detector of a folder with the two published files. Raises DWPoseError."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise DWPoseError(
            "avatars.landmarks = dwpose needs onnxruntime: pip install 'wsavatar[dwpose]'"
        ) from error
    missing = [name for name in (POSE_FILE, DETECTOR_FILE) if not (directory / name).is_file()]
    if missing:
        raise DWPoseError(
            f"{directory} lacks {' and '.join(missing)}: run "
            "`python run.py weights --download --dwpose`, or set avatars.dwpose to their folder"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.startswith("cuda") and "CUDAExecutionProvider" in ort.get_available_providers():
        index = int(device.partition(":")[2] or 0)
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": index}))
    sessions = []
    for name in (DETECTOR_FILE, POSE_FILE):
        try:
            sessions.append(ort.InferenceSession(str(directory / name), options, providers))
        except Exception as error:  # onnxruntime's own errors have no common base
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DWPoseError(
                f"{directory / name} cannot be loaded, download it again ({reason})"
            ) from error
    return DWPose(*sessions)
