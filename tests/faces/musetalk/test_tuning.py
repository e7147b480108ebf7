"""A person's tuning: data beside an avatar that its latents are corrected with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from tests.drawn_faces import face_video
from wsavatar.avatars.store import AvatarStore
from wsavatar.avatars.tuning import TUNING_FILE, write_tuning_file
from wsavatar.avatars.writing import write_avatar
from wsavatar.config import AvatarSettings
from wsavatar.faces.musetalk.correction import LatentCorrection, tuned
from wsavatar.faces.musetalk.model import MuseTalk
from wsavatar.faces.musetalk.spec import ModelSpec
from wsavatar.faces.musetalk.tuning import Tuning, TuningError, array_shapes, read_tuning
from wsavatar.resources import embedded_weights

NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
BACKENDS = ["torch", "openvino", pytest.param("cuda", marks=[pytest.mark.gpu, NO_CUDA])]


@pytest.fixture(scope="module")
def model(mini: Path) -> MuseTalk:
    return MuseTalk.load(mini, device="cpu", cpu_backend="torch")


def some_tuning(spec: ModelSpec, size: float = 0.3) -> Tuning:
    """As if something had been learned."""
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.normal(0, size, shape).astype(np.float32)
        for name, shape in array_shapes(spec).items()
    }
    return Tuning(spec.fingerprint, **arrays)


def latents_of(spec: ModelSpec, count: int) -> np.ndarray:
    shape = (count, 2 * spec.latent_channels, spec.latent_size, spec.latent_size)
    return np.random.default_rng(1).normal(0, 1, shape).astype(np.float16)


def test_what_is_written_is_read(model: MuseTalk) -> None:
    """The file has everything, is small, and an untrained correction changes nothing."""
    tuning = some_tuning(model.spec)
    data = tuning.to_bytes()
    assert len(data) < 4 * 1024 * 1024
    read = read_tuning(data, model.spec)
    for name, array in tuning.arrays().items():
        np.testing.assert_array_equal(read.arrays()[name], array)
    latents = latents_of(model.spec, 3)
    untrained = LatentCorrection(model.spec).tuning(model.spec.fingerprint)
    np.testing.assert_array_equal(tuned(latents, untrained, model.spec), latents)
    assert np.abs(tuned(latents, tuning, model.spec) - latents).max() > 0.1


def with_metadata(tuning: Tuning, **said: object) -> bytes:
    metadata = {"wsavatar": json.dumps({"version": 1, "model": tuning.fingerprint} | said)}
    return save(tuning.arrays(), metadata=metadata)


BAD: dict[str, tuple[Callable[[Tuning], bytes], str]] = {
    "other weights": (lambda t: replace(t, fingerprint="f" * 64).to_bytes(), "other weights"),
    "another format": (lambda t: with_metadata(t, version=2), "format 2"),
    "no metadata": (lambda t: save(t.arrays()), "damaged, or no file of finetune"),
    "cut off": (lambda t: t.to_bytes()[:-100], "damaged, or no file of finetune"),
    "empty": (lambda t: b"", "damaged, or no file of finetune"),
    "a pickle": (lambda t: b"\x80\x04cos\nsystem\n.", "damaged, or no file of finetune"),
    "another shape": (
        lambda t: replace(t, offset=np.zeros((2, 2), np.float32)).to_bytes(),
        r"its offset is float32 \[2, 2\]",
    ),
    "another type": (
        lambda t: replace(t, offset=t.offset.astype(np.float64)).to_bytes(),
        "its offset is float64",
    ),
    "not finite": (
        lambda t: replace(t, outwards_bias=np.full_like(t.outwards_bias, np.nan)).to_bytes(),
        "not finite",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_in_one_sentence(model: MuseTalk, case: str) -> None:
    """Whatever the file holds, the reason is said, and nothing of it is used."""
    make, reason = BAD[case]
    with pytest.raises(TuningError, match=reason):
        read_tuning(make(some_tuning(model.spec)), model.spec)


def test_more_arrays_than_a_tuning_has_are_refused(model: MuseTalk) -> None:
    """Nor are there fewer."""
    tuning = some_tuning(model.spec)
    metadata = {"wsavatar": json.dumps({"version": 1, "model": tuning.fingerprint})}
    arrays = tuning.arrays()
    for changed in (arrays | {"more": np.zeros(3, np.float32)}, {"offset": arrays["offset"]}):
        with pytest.raises(TuningError, match="it has arrays"):
            read_tuning(save(changed, metadata=metadata), model.spec)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_mixes_tuned_and_other_avatars(mini: Path, backend: str) -> None:
    """Each frame is what it is alone, and the tuned ones are other pictures."""
    if backend == "openvino":
        pytest.importorskip("openvino")
        model = MuseTalk.load(embedded_weights(), device="cpu", cpu_backend="openvino")
    elif backend == "cuda":
        model = MuseTalk.load(mini, device="cuda:0")
    else:
        model = MuseTalk.load(mini, device="cpu", cpu_backend="torch")
    spec = model.spec
    latents = latents_of(spec, 4)
    mixed = latents.copy()
    mixed[1::2] = tuned(latents, some_tuning(spec), spec)[1::2]
    shape = (4, spec.grid.frame_positions * spec.layers, spec.dim)
    conditions = np.random.default_rng(2).normal(0, 1, shape).astype(np.float32)

    def drawn(rows: np.ndarray, heard: np.ndarray) -> np.ndarray:
        return np.asarray(torch.as_tensor(model.generate(list(rows), list(heard))).cpu(), int)

    together = drawn(mixed, conditions)
    alone = np.concatenate([drawn(mixed[i : i + 1], conditions[i : i + 1]) for i in range(4)])
    assert np.abs(together - alone).max() <= 1
    change = np.abs(together - drawn(latents, conditions)).max(axis=(1, 2, 3))
    assert (change[::2] <= 1).all() and (change[1::2] > 8).all()


@pytest.fixture
def avatars(tmp_path: Path) -> Path:
    frames, landmarks = face_video(160, 128, 6, size=70)
    write_avatar(tmp_path / "avatars", "ada", "Ada", frames, 25, landmarks)
    return tmp_path / "avatars"


def inputs(avatars: Path, model: MuseTalk) -> np.ndarray:
    settings = AvatarSettings(directory=avatars, cache=avatars.parent / "cache", detail=False)
    return AvatarStore(settings, model).get("ada").face.inputs


def test_an_avatar_with_the_file_is_tuned(avatars: Path, model: MuseTalk) -> None:
    """It takes effect at the next start, whatever the cache holds; so does its absence."""
    plain = inputs(avatars, model)
    tuning = some_tuning(model.spec)
    write_tuning_file(avatars / "ada", tuning.to_bytes())
    for _ in range(2):  # prepared, and from the cache
        np.testing.assert_array_equal(inputs(avatars, model), tuned(plain, tuning, model.spec))
    (avatars / "ada" / TUNING_FILE).unlink()
    np.testing.assert_array_equal(inputs(avatars, model), plain)


@pytest.mark.parametrize("content", [b"nonsense", b"\0" * (4 * 1024 * 1024 + 1)])
def test_an_unfit_file_is_reported_and_not_used(
    avatars: Path, model: MuseTalk, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """The avatar speaks as it did without."""
    plain = inputs(avatars, model)
    (avatars / "ada" / TUNING_FILE).write_bytes(content)
    np.testing.assert_array_equal(inputs(avatars, model), plain)
    assert "avatar ada: finetuned.safetensors is not used" in caplog.text


def test_a_link_out_of_the_folder_is_not_followed(
    avatars: Path, model: MuseTalk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A tuning lies in the avatar's own folder."""
    plain = inputs(avatars, model)
    (tmp_path / "elsewhere").write_bytes(some_tuning(model.spec).to_bytes())
    (avatars / "ada" / TUNING_FILE).symlink_to(tmp_path / "elsewhere")
    np.testing.assert_array_equal(inputs(avatars, model), plain)
    assert "outside the avatar's folder" in caplog.text
