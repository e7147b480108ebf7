"""Training examples of the landmark detector: points stay where the picture shows them."""

from __future__ import annotations

import numpy as np
import torch

from tests.drawn_faces import face_landmarks
from wsavatar.landmarks.geometry import MEAN_FACE, MIRROR, crop, place_of
from wsavatar.training.landmarks.convention import as_mediapipe
from wsavatar.training.landmarks.examples import Pools, SceneExamples, crop_examples, scene_examples
from wsavatar.training.landmarks.losses import finder_targets
from wsavatar.training.landmarks.painting import decorate, draw_face
from wsavatar.training.landmarks.views import Pool, Warp, cut, places_of, similarity

SIZE = 256


def spots(points: np.ndarray) -> np.ndarray:
    """A bright spot at each point: uint8 [1, 1, SIZE, SIZE]."""
    at = np.arange(SIZE) + 0.5
    x, y = np.exp(-((at[None] - points.T[:, :, None]) ** 2) / 8)
    made: np.ndarray = (255 * np.clip(y.T @ x, 0, 1)).astype(np.uint8)
    return made[None, None]


def test_points_follow_a_bent_and_mirrored_picture() -> None:
    """Spots on the points are found where the points are said to have gone."""
    torch.manual_seed(0)
    points = face_landmarks((128, 110), 110)
    few = torch.from_numpy(points[None, [8, 36, 45, 30, 48, 54]])
    whole = torch.from_numpy(points[None])
    warp = Warp.random(whole, torch.ones(1))
    bent = warp.bent(whole)
    torch.testing.assert_close(warp.source(bent), whole, atol=0.05, rtol=0)
    middle, size, roll = places_of(bent)
    matrix = similarity(middle, 1.6 * size, roll + 0.3, torch.ones(1, dtype=torch.bool))
    made = cut(torch.from_numpy(spots(few[0].numpy())), matrix, 160, warp)[0, 0]
    where = (warp.bent(few) - matrix[:, None, :, 2]) @ torch.linalg.inv(matrix[:, :, :2]).transpose(
        1, 2
    )
    for x, y in (where[0] * 160).numpy():
        patch = made[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4]
        row, column = divmod(int(patch.argmax()), patch.shape[1])
        assert patch.max() > 0.5
        assert abs(row - 3) <= 1 and abs(column - 3) <= 1


def test_training_and_detector_cut_the_same_crop() -> None:
    """The torch and the OpenCV versions of a place and its crop agree."""
    points = face_landmarks((128, 110), 100)
    turn = np.array([[0.9, -0.4], [0.4, 0.9]])
    points = ((points - 128) @ turn.T + 128).astype(np.float32)
    place = place_of(points)
    middle, size, roll = places_of(torch.from_numpy(points[None]))
    found = [*middle[0].tolist(), float(size), float(roll)]
    np.testing.assert_allclose(found, [place.x, place.y, place.size, place.roll], rtol=1e-4)
    rng = np.random.default_rng(1)
    picture = np.repeat(spots(rng.uniform(20, 236, (40, 2)))[0, 0][..., None], 3, 2)
    ours, _ = crop(picture, place, 160)
    matrix = similarity(middle, 1.6 * size, roll, torch.zeros(1, dtype=torch.bool))
    theirs = cut(torch.from_numpy(picture.transpose(2, 0, 1)[None].copy()), matrix, 160)
    inside = (slice(20, 140), slice(20, 140))
    assert np.abs(ours[inside][..., 0] / 255 - theirs[0, 0].numpy()[inside]).max() < 0.05


def test_a_mirrored_face_is_a_face() -> None:
    """Twice mirrored is the same, and the mean face is its own mirror image."""
    assert (MIRROR[MIRROR] == np.arange(68)).all()
    np.testing.assert_allclose(MEAN_FACE[MIRROR] * (-1, 1), MEAN_FACE, atol=0.0021)


def test_the_convention_turns_with_the_head() -> None:
    """Moving points to MediaPipe's places and turning, stretching or shifting them commute."""
    points = face_landmarks((0, 0), 100).astype(np.float64)
    turn = np.array([[0.5, -0.3], [0.2, 1.1]])
    np.testing.assert_allclose(
        as_mediapipe(points @ turn.T + 7), as_mediapipe(points) @ turn.T + 7, atol=1e-9
    )


def pools() -> Pools:
    """Some painted faces, backs and things."""
    device = torch.device("cpu")
    rng = np.random.default_rng(2)
    faces, backs, things = Pool(8, device), Pool(4, device), Pool(4, device)
    for _ in range(8):
        points = face_landmarks((128, 110), rng.uniform(80, 110))
        picture = draw_face(points, SIZE, rng)
        decorate(picture, points, rng)
        assert np.isfinite(picture).all() and picture.min() >= 0
        pixels = np.clip(picture * 255, 0, 255).astype(np.uint8)[None]
        faces.add(pixels, points[None])
        backs.add(np.ascontiguousarray(pixels[:, ::-1]))
        things.add(np.ascontiguousarray(pixels[:, :, ::-1] // 2))
    return Pools(faces, backs, things, torch.rand(3, 3, SIZE, SIZE))


def test_examples_are_pictures_with_and_without_faces() -> None:
    """Values from 0 to 1, the points of faces inside, and both kinds in each batch."""
    torch.manual_seed(1)
    made = crop_examples(pools(), 12, 160)
    assert made.pictures.shape == (12, 3, 160, 160)
    assert 0 <= made.pictures.min() and made.pictures.max() <= 1
    assert set(made.sure.tolist()) == {0.0, 1.0}
    inside = made.points[made.sure > 0.5]
    assert ((inside > 0) & (inside < 1)).float().mean() > 0.95
    scene = scene_examples(pools(), 4, SIZE)
    assert scene.pictures.shape == (4, 3, SIZE, SIZE) and scene.seen.any()


def test_the_finder_is_asked_for_faces_of_its_sizes_only() -> None:
    """A face of 32 pixels is wanted, one of 64 may be seen or not, one of 100 must not be."""
    places = torch.tensor([[[100.0, 60, 32, 0.2]], [[100, 60, 64, 0]], [[100, 60, 100, 0]]])
    seen = torch.ones((3, 1), dtype=torch.bool)
    heat, values, weight = finder_targets(SceneExamples(torch.zeros(3, 3, 128, 160), places, seen))
    assert [float(heat[k, 7, 12]) for k in range(3)] == [1.0, -1.0, 0.0]
    x, y, size = (float(v) for v in values[0, :3, 7, 12])
    assert (12.5 + x) * 8 == 100 and (7.5 + y) * 8 == 60
    assert abs(np.exp(size) * 8 - 32) < 1e-3 and weight[0, 7, 12] == 1
