"""The detector in the package: what it finds in pictures of the bundled people and in no picture.

The bundled people are renders whose points are known exactly; the pictures that people bring are
judged where they are at hand (``test_given_pictures.py``).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.bundled_people import PEOPLE, first_picture
from tests.drawn_faces import draw_face, face_landmarks
from wsavatar.config import Settings
from wsavatar.faces.musetalk.geometry import smooth_landmarks
from wsavatar.landmarks import running
from wsavatar.landmarks.base import Face
from wsavatar.landmarks.embedded import EmbeddedDetector, LandmarkWeightsError, load_from
from wsavatar.landmarks.registry import load_landmarks
from wsavatar.resources import embedded_weights
from wsavatar.training.landmarks.convention import as_mediapipe
from wsavatar.training.landmarks.evaluate import errors_of, high_frequency


@pytest.fixture(scope="module")
def detector() -> EmbeddedDetector:
    made = load_landmarks(Settings())
    assert isinstance(made, EmbeddedDetector)
    return made


def person(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The first frame of a bundled avatar, and its points at MediaPipe's places."""
    picture, points = first_picture(name)
    return picture, as_mediapipe(points)


def moved(
    picture: np.ndarray, points: np.ndarray, matrix: np.ndarray, width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """The picture and the points under an affine map, on grey."""
    made = cv2.warpAffine(
        picture, matrix, (width, height), flags=cv2.INTER_AREA, borderValue=(128, 128, 128)
    )
    return made, points @ matrix[:, :2].T + matrix[:, 2]


def only(faces: list[Face]) -> Face:
    assert len(faces) == 1
    return faces[0]


@pytest.mark.parametrize("name", PEOPLE)
def test_the_bundled_people_are_found(detector: EmbeddedDetector, name: str) -> None:
    """One face each; points within 2 % of the outer eye corners' distance, lips too."""
    picture, points = person(name)
    face = only(detector.find(picture))
    errors = errors_of(face.points, points)
    assert errors["all"] < 2 and errors["mouth"] < 2
    assert face.points.dtype == np.float32 and 0.8 < face.score <= 1


@pytest.mark.parametrize("angle", [-50, -30, 30, 50])
def test_a_tilted_head_is_found(detector: EmbeddedDetector, angle: float) -> None:
    """In-plane rotation costs little."""
    picture, points = person("mei")
    matrix = cv2.getRotationMatrix2D((256, 256), angle, 0.8)
    turned, wanted = moved(picture, points, matrix, 512, 512)
    assert errors_of(only(detector.find(turned)).points, wanted)["all"] < 4


def test_a_small_face_in_a_large_picture_is_found(detector: EmbeddedDetector) -> None:
    """A mouth of 25 pixels in a picture of 960."""
    picture, points = person("leo")
    scale = 25 / np.ptp(points[48:60, 0])
    matrix = np.array([[scale, 0, 600], [0, scale, 150]])
    small, wanted = moved(picture, points, matrix, 960, 720)
    assert errors_of(only(detector.find(small)).points, wanted)["all"] < 5


def test_a_face_at_the_border_is_found(detector: EmbeddedDetector) -> None:
    """The ear and the cheek's edge are outside; the points there may be outside too."""
    picture, points = person("amara")
    left = int(points[:, 0].min() + 0.08 * np.ptp(points[:, 0]))
    face = only(detector.find(np.ascontiguousarray(picture[:, left:])))
    assert errors_of(face.points, points - [left, 0])["all"] < 5


def test_several_faces_come_with_the_largest_first(detector: EmbeddedDetector) -> None:
    """Two people in one picture."""
    (one, _), (two, _) = person("amara"), person("leo")
    small = cv2.resize(two, (300, 300), interpolation=cv2.INTER_AREA)
    both = np.full((512, 812, 3), 90, np.uint8)
    both[:, :512], both[100:400, 512:] = one, small
    first, second = detector.find(both)
    assert first.points[:, 0].mean() < 512 < second.points[:, 0].mean()
    assert first.size > second.size


@pytest.mark.parametrize("size", [90, 250])
def test_a_simple_drawing_is_a_face(detector: EmbeddedDetector, size: float) -> None:
    """Flat colours and a few shapes are enough."""
    points = face_landmarks((200, 180), size)
    face = only(detector.find(draw_face(400, 360, points)))
    assert errors_of(face.points, points)["mouth"] < 8


@pytest.mark.parametrize("name", PEOPLE)
def test_a_blurred_face_is_found(detector: EmbeddedDetector, name: str) -> None:
    """Out of focus by a twentieth of the face: its mirror image gives other points, but each of
    them stays where it is when the crop moves."""
    picture, points = person(name)
    face = only(detector.find(cv2.GaussianBlur(picture, (0, 0), 14)))
    assert errors_of(face.points, points)["all"] < 7


def test_no_face_in_what_is_none(detector: EmbeddedDetector) -> None:
    """Plain, shaded, noise, stripes, a face upside down in pieces: nothing is found."""
    rng = np.random.default_rng(5)
    shade = np.linspace(0, 255, 480)[None, :, None] * np.ones((360, 1, 3))
    noise = cv2.GaussianBlur(rng.uniform(0, 255, (360, 480, 3)), (0, 0), 6)
    noise = (noise - noise.mean()) * 6 + 128
    stripes = 127 + 120 * np.sin(np.arange(480) / 7)[None, :, None] * np.ones((360, 1, 3))
    picture, points = person("leo")
    pieces = np.concatenate([picture[k : k + 32] for k in range(480, -1, -32)])
    for made in (np.zeros((64, 64, 3)), shade, noise, stripes, pieces):
        assert detector.find(np.clip(made, 0, 255).astype(np.uint8)) == []


def test_pictures_of_odd_sizes_are_looked_at(detector: EmbeddedDetector) -> None:
    """One pixel, one row, a tall strip: no face, no error."""
    for shape in ((1, 1, 3), (1, 700, 3), (900, 13, 3)):
        assert detector.find(np.full(shape, 120, np.uint8)) == []
    with pytest.raises(ValueError, match="uint8"):
        detector.find(np.zeros((40, 40), np.uint8))


def test_a_moving_face_is_followed(detector: EmbeddedDetector) -> None:
    """Shifts of a tenth of the face from frame to frame do not lose it."""
    picture, points = person("mei")
    face: Face | None = only(detector.find(picture))
    for shift in (12, 24, 30, 18):
        assert face is not None
        matrix = np.array([[1.0, 0, shift], [0, 1.0, shift / 2]])
        frame, wanted = moved(picture, points, matrix, 512, 512)
        face = detector.follow(frame, face)
        assert face is not None and errors_of(face.points, wanted)["all"] < 2.5


def test_a_face_that_is_gone_is_lost(detector: EmbeddedDetector) -> None:
    """After a cut to a picture without it, or when it is covered."""
    picture, points = person("mei")
    face = only(detector.find(picture))
    assert detector.follow(np.full_like(picture, 100), face) is None
    covered = picture.copy()
    x1, y1 = points.min(0).astype(int) - 40
    x2, y2 = points.max(0).astype(int) + 40
    covered[max(y1, 0) : y2, max(x1, 0) : x2] = (90, 120, 160)
    assert detector.follow(covered, face) is None


def test_a_still_face_stays_still(detector: EmbeddedDetector) -> None:
    """With a sensor's noise of 4 levels the smoothed crop moves by less than 0.3 px of 256."""
    picture, _ = person("leo")
    rng = np.random.default_rng(0)
    face: Face | None = only(detector.find(picture))
    tracks = []
    for _ in range(30):
        noisy = np.clip(np.round(picture + rng.normal(0, 4, picture.shape)), 0, 255)
        assert face is not None
        face = detector.follow(noisy.astype(np.uint8), face)
        assert face is not None
        tracks.append(face.points)
    raw = np.stack(tracks)
    for track, most in ((raw, 0.6), (smooth_landmarks(raw, 25), 0.3)):
        boxes = np.concatenate([track.min(1), track.max(1)], 1)
        assert high_frequency(boxes) < most


def test_any_thread_may_ask(detector: EmbeddedDetector) -> None:
    """Threads that use one detector get what one thread gets."""
    pictures = [person(name)[0] for name in PEOPLE]
    alone = [only(detector.find(picture)).points for picture in pictures]
    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(detector.find, pictures))
    for one, faces in zip(alone, together, strict=True):
        np.testing.assert_allclose(only(faces).points, one, atol=1e-3)


def test_torch_gives_the_same_points(
    detector: EmbeddedDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no OpenVINO, torch runs the networks: the same to a tenth of a pixel."""

    def absent(*_: object) -> None:
        raise ImportError("no OpenVINO here")

    monkeypatch.setattr(running, "_openvino", absent)
    picture, _ = person("amara")
    other = load_from(embedded_weights() / "landmarks", "cpu")
    np.testing.assert_allclose(
        only(other.find(picture)).points, only(detector.find(picture)).points, atol=0.1
    )


def test_damaged_files_are_named(tmp_path: Path) -> None:
    """A folder without usable weights is an error that says what to do."""
    with pytest.raises(LandmarkWeightsError, match="install wsavatar again"):
        load_from(tmp_path, "cpu")
    good = (embedded_weights() / "landmarks" / "landmarks.json").read_text()
    (tmp_path / "landmarks.json").write_text(good)
    (tmp_path / "networks.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(LandmarkWeightsError, match=str(tmp_path)):
        load_from(tmp_path, "cpu")
