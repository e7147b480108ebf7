"""A mouth at rest where nobody speaks, in the finished picture: of a bundled avatar, and of given
paintings and drawings where these are at hand.

Opening is read off the picture by an estimator that no training used, and held against what it
reads off the avatar's own picture: a painted mouth is not always closed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.bundled_people import first_picture
from tests.speech.sounds import RATE, breath, noise, tone
from wsavatar.avatars.format import read_avatar_file
from wsavatar.config import RenderSettings
from wsavatar.faces.musetalk.geometry import take_crop
from wsavatar.faces.musetalk.model import MuseTalk
from wsavatar.media.pictures import DecodedPictures
from wsavatar.render.finish.paste import paste
from wsavatar.resources import embedded_weights, resource_dir
from wsavatar.speech.chunker import Chunker
from wsavatar.training.figures import CLOSED_BELOW
from wsavatar.training.lip_estimator import LipEstimator
from wsavatar.training.networks import TOP

GIVEN = Path(__file__).parents[2].parent / "shared" / "faces"
FACES = ("anime", "cartoon_3d", "drawing_b", "painting_moustache")
SILENCE = {
    "nothing": np.zeros(RATE),
    "noise": noise(-50, 1.0),
    "hum of 50 Hz": tone(50, -40, 1.0),
    "hum of 60 Hz": tone(60, -40, 1.0),
    "a breath": breath(2.0, -45),
    "a soft breath": breath(2.0, -50),
}
Opened = Callable[[np.ndarray, np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def opened() -> Iterator[Opened]:
    """Picture and landmarks -> by how much each sixth frame of `SILENCE` is more open than it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more spin for each other on a busy machine
    model = MuseTalk.load(embedded_weights(), cpu_backend="torch", cpu_threads=1)
    estimator = LipEstimator.for_evaluation()
    parts = []
    for audio in SILENCE.values():
        chunker = Chunker(model.spec.grid, Fraction(25), RATE // 2)
        chunks = [*chunker.push(audio.astype(np.float32)), *chunker.flush()]
        made = [model.condition(model.encode_audio(c.windows), c) for c in chunks]
        parts.append(np.concatenate([np.asarray(one) for one in made])[::6])
    conditions = list(np.concatenate(parts))

    def read(crops: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(crops[:, TOP:].copy()).permute(0, 3, 1, 2) / 127.5 - 1
        with torch.no_grad():
            found: np.ndarray = estimator(pixels)[:, 0].numpy()
        return found

    def measure(picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        folder = resource_dir("avatars") / "amara"
        size = {"height": picture.shape[0], "width": picture.shape[1], "frame_count": 1}
        avatar = read_avatar_file(folder).model_copy(update=size)
        face = model.prepare(avatar, DecodedPictures(picture[None]), landmarks[None], detail=True)
        crop = tuple(int(edge) for edge in face.crop_boxes[0])
        patches = np.asarray(model.generate([face.inputs[0]] * len(conditions), conditions))
        boxes, jaw = (crop, face.paste_boxes[0], face.masks[0]), face.jaw_of(0)
        sharpness = RenderSettings().sharpness
        made = [paste(picture, patch, *boxes, sharpness=sharpness, jaw=jaw) for patch in patches]
        still, *moved = (take_crop(one, crop, model.spec.crop_size) for one in (picture, *made))
        return read(np.stack(moved)) - read(still[None])

    yield measure
    torch.set_num_threads(threads)


def test_a_bundled_avatar_is_at_rest_while_nobody_speaks(opened: Opened) -> None:
    """In silence, noise, hum and breath its mouth is as in its video, in 98 % of frames."""
    assert (opened(*first_picture("amara")) < CLOSED_BELOW).mean() >= 0.98


@pytest.mark.slow
@pytest.mark.skipif(not GIVEN.is_dir(), reason=f"needs {GIVEN}")
@pytest.mark.parametrize("name", FACES)
def test_painted_and_drawn_faces_are_at_rest_while_nobody_speaks(opened: Opened, name: str) -> None:
    """The same of faces that the model has never seen."""
    landmarks = np.array(json.loads((GIVEN / "landmarks.json").read_text())[name], np.float32)
    picture = cv2.imread(str(GIVEN / f"{name}.jpg"))
    assert picture is not None
    more = opened(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), landmarks)
    assert (more < CLOSED_BELOW).mean() >= 0.98
