"""The package's network: on the bundled people, and on given pictures where these are at hand."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.bundled_people import PEOPLE, first_picture
from wsavatar.config import Settings
from wsavatar.person.mask import EmbeddedPersonMask, load_person_mask
from wsavatar.resources import embedded_weights
from wsavatar.training.person.evaluate import errors_of, judge_still

FACES = Path(__file__).parents[2].parent / "shared" / "faces"


@pytest.fixture(scope="module")
def mask() -> EmbeddedPersonMask:
    return load_person_mask(Settings())


def cut_by_colour(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The person, by OpenCV's GrabCut: these backgrounds are plain."""
    labels = np.full(picture.shape[:2], cv2.GC_PR_BGD, np.uint8)
    x1, y1 = points.min(0).astype(int)
    x2, y2 = points.max(0).astype(int)
    labels[y1 - 100 :, x1 - 60 : x2 + 60] = cv2.GC_PR_FGD
    labels[y2 + 60 :] = cv2.GC_PR_FGD
    cv2.fillConvexPoly(labels, cv2.convexHull(points.astype(np.int32)), cv2.GC_FGD)
    labels[480:, 190:320] = cv2.GC_FGD
    labels[:300, :60] = labels[:300, -60:] = cv2.GC_BGD
    cv2.setRNGSeed(0)
    cv2.grabCut(picture, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), 4)  # type: ignore[call-overload]
    return np.where(labels & 1, 255, 0).astype(np.uint8)


@pytest.mark.parametrize("name", PEOPLE)
def test_the_bundled_people_are_cut_out(mask: EmbeddedPersonMask, name: str) -> None:
    """All of the face is the person, the upper corners are not, and the outline is where the
    colours say."""
    picture, points = first_picture(name)
    [found] = mask.masks([picture], [points])
    inside = np.zeros(found.shape, np.uint8)
    cv2.fillConvexPoly(inside, cv2.convexHull(points.astype(np.int32)), 1)
    assert found[cv2.erode(inside, np.ones((15, 15), np.uint8)) > 0].min() > 230
    assert found[:200, :60].max() < 20 and found[:200, -60:].max() < 20
    overlap, _ = errors_of(found, cut_by_colour(picture, points))
    assert overlap > 0.96


def test_the_person_is_the_one_with_the_face(mask: EmbeddedPersonMask) -> None:
    """Two people side by side: each one's points give that one alone."""
    (left, points), (right, others) = first_picture("amara"), first_picture("leo")
    picture = np.ascontiguousarray(np.hstack([left, right]))
    one, other = mask.masks([picture, picture], [points, others + (512, 0)])
    for found, mine, theirs in (
        (one, points, others + (512, 0)),
        (other, others + (512, 0), points),
    ):
        (x, y), (u, v) = mine.mean(0).astype(int), theirs.mean(0).astype(int)
        assert found[y, x] > 230 and found[v, u] < 25


def test_a_small_person_is_cut_out_too(mask: EmbeddedPersonMask) -> None:
    """In a wide picture, a sixth as high as it."""
    picture, points = first_picture("mei")
    wide = np.empty((720, 1280, 3), np.uint8)
    wide[:] = picture[5, 5]
    small = cv2.resize(picture, (256, 256), interpolation=cv2.INTER_AREA)
    wide[464:, 700:956] = small
    whole, part = mask.masks([picture, wide], [points, points / 2 + (700, 464)])
    expected = cv2.resize(whole, (256, 256), interpolation=cv2.INTER_AREA)
    overlap, away = errors_of(part[464:, 700:956], expected)
    assert overlap > 0.93 and part[:400].max() < 25


def test_a_still_picture_s_mask_is_calm(mask: EmbeddedPersonMask) -> None:
    """With a sensor's noise and points that jitter, edges change by a level or two a frame."""
    found, calm = judge_still(mask, *first_picture("leo"))
    assert calm < 2 and calm < found / 4


def test_the_network_is_small() -> None:
    """At most 1.5 MiB in the package."""
    assert (embedded_weights() / "person" / "network.safetensors").stat().st_size <= 1.5 * 2**20


@pytest.mark.skipif(not FACES.is_dir(), reason=f"needs {FACES}")
def test_the_given_pictures_keep_their_faces(mask: EmbeddedPersonMask) -> None:
    """Paintings, drawings and cartoons: the face is there, the background mostly gone."""
    for name, points in json.loads((FACES / "landmarks.json").read_text()).items():
        if points is None:
            continue
        picture = cv2.imread(str(FACES / f"{name}.jpg"))
        assert picture is not None
        face = np.array(points, np.float32)
        [found] = mask.masks([cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)], [face])
        inside = np.zeros(found.shape, np.uint8)
        cv2.fillConvexPoly(inside, cv2.convexHull(face.astype(np.int32)), 1)
        assert found[inside > 0].mean() > 245, name
        assert 0.1 < found.mean() / 255 < 0.8, name
