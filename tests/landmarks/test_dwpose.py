"""DWPose: decoding of the published networks' outputs, and errors that say what to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsavatar.config import AvatarSettings, ModelSettings, Settings
from wsavatar.landmarks.base import Face
from wsavatar.landmarks.dwpose import DETECTOR_FILE, POSE_FILE, DWPose, DWPoseError, load_from
from wsavatar.landmarks.registry import load_landmarks

WIDTH, HEIGHT = 288, 384
CELLS = (80 * 80, 40 * 40, 20 * 20)


@dataclass
class _Entry:
    name: str
    shape: list[Any]


class People:
    """Gives fixed boxes (x, y, w, h in the detector's 640 pixels, score), keeps its input."""

    def __init__(self, *boxes: tuple[float, float, float, float, float]) -> None:
        self.boxes = boxes
        self.seen: np.ndarray | None = None

    def get_inputs(self) -> list[Any]:
        return [_Entry("images", [1, 3, 640, 640])]

    def run(self, names: None, inputs: dict[str, np.ndarray], /) -> list[np.ndarray]:
        self.seen = inputs["images"]
        out = np.zeros((1, sum(CELLS), 85), np.float32)
        for x, y, w, h, score in self.boxes:
            column, row = int(x // 16), int(y // 16)
            values = [x / 16 - column, y / 16 - row, np.log(w / 16), np.log(h / 16), 1.0, score]
            out[0, CELLS[0] + row * 40 + column, :6] = values
        return [out]


class Pose:
    """Puts each of the 133 points at a known place of its input, keeps its input."""

    def __init__(self, score: float = 0.9) -> None:
        rng = np.random.default_rng(3)
        self.places = rng.uniform(20, 260, (133, 2))
        self.score = score
        self.seen: np.ndarray | None = None

    def get_inputs(self) -> list[Any]:
        return [_Entry("input", ["batch", 3, HEIGHT, WIDTH])]

    def run(self, names: None, inputs: dict[str, np.ndarray], /) -> list[np.ndarray]:
        self.seen = inputs["input"]
        outs = []
        for axis, size in enumerate((WIDTH, HEIGHT)):
            away = np.arange(2 * size)[None] - 2 * self.places[:, axis : axis + 1]
            outs.append((self.score * (1 - (away / 60) ** 2)).astype(np.float32)[None])
        return outs


def test_points_return_to_the_picture() -> None:
    """Points 23 to 90 come back in pixels of the picture, finer than the network's half pixels."""
    picture = np.zeros((320, 640, 3), np.uint8)
    pose = Pose()
    (face,) = DWPose(People((300, 160, 120, 160, 0.9)), pose).find(picture)
    # The box with a quarter more, 150 x 200: its height decides, as 288:384 is 150:200.
    scale = 150 / WIDTH
    expected = pose.places[23:91] * scale + np.array([300 - 75, 160 - 100])
    np.testing.assert_allclose(face.points, expected, atol=0.02)
    assert face.score == pytest.approx(0.9, abs=0.01)


def test_the_networks_get_what_they_were_trained_on() -> None:
    """People: BGR from 0 to 255 on grey 114. Points: RGB by ImageNet's mean and deviation."""
    picture = np.zeros((320, 640, 3), np.uint8)
    picture[:] = (200, 100, 50)
    people, pose = People((300, 160, 120, 160, 0.9)), Pose()
    DWPose(people, pose).find(picture)
    assert people.seen is not None and pose.seen is not None
    assert people.seen[0, :, 100, 100].tolist() == [50, 100, 200]
    assert people.seen[0, :, 500, 100].tolist() == [114, 114, 114]
    wanted = (np.array([200, 100, 50]) - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    np.testing.assert_allclose(pose.seen[0, :, 190, 140], wanted, atol=1e-4)


def test_each_person_counts_once() -> None:
    """Boxes of one person that overlap are one face, unlikely ones none; the largest is first."""
    people = People(
        (100, 300, 80, 160, 0.8), (120, 300, 84, 164, 0.7), (420, 300, 160, 320, 0.6),
        (300, 100, 50, 90, 0.2),
    )  # fmt: skip
    found = DWPose(people, Pose()).find(np.zeros((640, 640, 3), np.uint8))
    assert len(found) == 2
    assert found[0].size > found[1].size


def test_a_person_without_a_face_is_none() -> None:
    """Where the points of the face are unsure, there is no face, and a followed one is lost."""
    detector = DWPose(People((300, 160, 120, 160, 0.9)), Pose(score=0.1))
    picture = np.zeros((320, 640, 3), np.uint8)
    assert detector.find(picture) == []
    face = Face(np.random.default_rng(0).uniform(100, 160, (68, 2)).astype(np.float32), 0.9)
    assert detector.follow(picture, face) is None


def test_a_face_is_followed_without_looking_for_people() -> None:
    """Following takes the surroundings of the points before, not the detector of people."""
    people = People()
    face = Face(np.random.default_rng(0).uniform(100, 160, (68, 2)).astype(np.float32), 0.9)
    found = DWPose(people, Pose()).follow(np.zeros((320, 640, 3), np.uint8), face)
    assert found is not None and people.seen is None


def test_another_networks_file_is_refused() -> None:
    """A file of another shape is named."""

    class Other(People):
        def get_inputs(self) -> list[Any]:
            return [_Entry("tokens", [1, 77])]

    with pytest.raises(DWPoseError, match=DETECTOR_FILE):
        DWPose(Other(), Pose())


def test_missing_files_say_how_to_get_them(tmp_path: Path) -> None:
    """Without onnxruntime, without files, or with damaged ones: one sentence each."""
    settings = Settings(
        model=ModelSettings(path=str(tmp_path)), avatars=AvatarSettings(landmarks="dwpose")
    )
    with pytest.raises(DWPoseError, match=r"pip install|weights --download --dwpose"):
        load_landmarks(settings)
    pytest.importorskip("onnxruntime")
    with pytest.raises(DWPoseError, match="weights --download --dwpose"):
        load_landmarks(settings)
    for name in (POSE_FILE, DETECTOR_FILE):
        (tmp_path / name).write_bytes(b"not a network")
    with pytest.raises(DWPoseError, match="download it again"):
        load_from(tmp_path, "cpu")


def test_real_files_of_the_official_layout_load(tmp_path: Path) -> None:
    """Two small random networks in ONNX, of the published inputs and outputs, run end to end."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    _write(onnx, tmp_path / DETECTOR_FILE, "images", (640, 640), [("output", (sum(CELLS), 85))])
    _write(
        onnx, tmp_path / POSE_FILE, "input", (HEIGHT, WIDTH),
        [("simcc_x", (133, 2 * WIDTH)), ("simcc_y", (133, 2 * HEIGHT))],
    )  # fmt: skip
    detector = load_from(tmp_path, "cpu", threads=1)
    picture = np.full((100, 150, 3), 90, np.uint8)
    faces = detector.find(picture)
    assert all(face.points.shape == (68, 2) and np.isfinite(face.points).all() for face in faces)
    assert len(faces) == 1


def _write(
    onnx: Any,
    path: Path,
    entry: str,
    size: tuple[int, int],
    outs: list[tuple[str, tuple[int, int]]],
) -> None:
    """A network that adds its input's mean, times zero, to random constants."""
    rng = np.random.default_rng(1)
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("ReduceMean", [entry], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
    ]
    constants = [onnx.numpy_helper.from_array(np.zeros(1, np.float32), "zero")]
    for name, shape in outs:
        values = rng.uniform(0, 1, (1, *shape)).astype(np.float32)
        if name == "output":
            values[:, :, 4] = 0
            values[0, CELLS[0] + 20 * 40 + 20, :6] = [0.5, 0.5, 2.0, 2.5, 1.0, 0.9]
        constants.append(onnx.numpy_helper.from_array(values, f"{name}_values"))
        nodes.append(helper.make_node("Add", [f"{name}_values", "nothing"], [name]))
    graph = helper.make_graph(
        nodes, "random",
        [helper.make_tensor_value_info(entry, kinds.FLOAT, [1, 3, *size])],
        [helper.make_tensor_value_info(name, kinds.FLOAT, [1, *shape]) for name, shape in outs],
        constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))
