"""The model that ships, in bfloat16, on a processor that computes in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("openvino")

from wsavatar.avatars.store import AvatarStore
from wsavatar.bench.precision import measure_precision, psnr_db
from wsavatar.config import AvatarSettings
from wsavatar.faces.musetalk.geometry import take_crop
from wsavatar.faces.musetalk.model import MuseTalk
from wsavatar.faces.musetalk.openvino_backend import has_bfloat16
from wsavatar.resources import embedded_weights

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not has_bfloat16(), reason="this processor does not compute in bfloat16"),
]


def test_pictures_in_bfloat16_stay_at_50_db_of_float32(samples_dir: Path) -> None:
    """Three seconds of a real voice on every bundled avatar: 50 dB or better in every frame."""
    models = [MuseTalk.load(embedded_weights(), dtype=dtype) for dtype in ("float32", "bfloat16")]
    store = AvatarStore(AvatarSettings(), models[0])
    avatars = [store.get(entry.id) for entry in store.list()]
    speech, rate = soundfile.read(samples_dir / "eng.wav", dtype="float32", frames=5 * 16_000)
    assert rate == 16_000
    _, half = measure_precision(models, avatars, np.ascontiguousarray(speech[2 * rate :]), 4)
    assert half.dtype == "bfloat16" and half.frames == 75 * len(avatars)
    assert half.worst_frame_db >= 50


def test_faces_prepared_in_bfloat16_stay_at_50_db_of_float32() -> None:
    """The model's own picture of every bundled avatar, encoded and decoded: in every frame."""
    full, half = (
        MuseTalk.load(embedded_weights(), dtype=dtype) for dtype in ("float32", "bfloat16")
    )
    store = AvatarStore(AvatarSettings(), full)
    for entry in store.list():
        avatar = store.get(entry.id)
        boxes = [tuple(map(int, box)) for box in avatar.face.crop_boxes[:4]]
        crops = np.stack([take_crop(avatar.pictures[i], box, 256) for i, box in enumerate(boxes)])
        true, made = (
            model.redraw(model.encode_crops(crops)).astype(np.int32) for model in (full, half)
        )
        rows = slice(full.spec.decoded_from_y, None)
        errors = np.square(made - true)[:, rows].mean(axis=(1, 2, 3))
        assert 50 <= psnr_db(float(errors.max())) < 70
