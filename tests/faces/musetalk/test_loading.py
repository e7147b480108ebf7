"""A model that was converted before is known again by its files, and loads without its weights."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from wsavatar.faces.musetalk import checkpoint
from wsavatar.faces.musetalk.files import CheckpointError, fingerprint, read_files
from wsavatar.faces.musetalk.loading import LoadedStages
from wsavatar.faces.musetalk.model import MuseTalk
from wsavatar.faces.musetalk.torch_backend import DeviceMemory, device_stages

pytest.importorskip("openvino")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cache(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What OpenVINO converted of the smallest model."""
    cache = tmp_path_factory.mktemp("cache")
    MuseTalk.load(mini, cpu_backend="openvino", cpu_threads=1, cache=cache)
    return cache


@pytest.fixture
def weights_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise AssertionError("the weights were read")

    monkeypatch.setattr(checkpoint, "load_modules", read)


def load(directory: Path, cache: Path) -> MuseTalk:
    return MuseTalk.load(directory, cpu_backend="openvino", cpu_threads=1, cache=cache)


@pytest.mark.usefixtures("weights_are_not_read")
def test_what_was_converted_says_what_it_is(
    mini: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes, grid and fingerprint are those of the weights, which are not read again."""
    known = load(mini, cache).spec
    monkeypatch.undo()
    assert known == checkpoint.load_modules(mini, "v15", torch.float32).spec


@pytest.mark.usefixtures("weights_are_not_read")
def test_what_was_converted_draws_as_torch_does(
    mini: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features to rounding, and pictures to a level."""
    model = load(mini, cache)
    monkeypatch.undo()
    true = MuseTalk.load(mini, cpu_backend="torch")
    spec, rng = model.spec, np.random.default_rng(0)
    windows = rng.normal(0, 0.1, (2, spec.grid.window_samples)).astype(np.float32)
    heard, expected = (np.asarray(one.encode_audio(windows)) for one in (model, true))
    assert np.abs(heard - expected).max() < 1e-3
    rows = rng.normal(size=(2, *(8, 16, 16))).astype(np.float16)
    conditions = rng.normal(size=(2, 30, 32)).astype(np.float32)
    made, expected = (np.asarray(one.generate(rows, conditions), int) for one in (model, true))
    assert np.abs(made - expected).max() <= 1


def test_a_devices_memory_gives_what_numpy_gives(mini: Path) -> None:
    """What a GPU takes and gives, here on torch's CPU: rows in numpy or there, in parts or not."""
    modules, place = checkpoint.load_modules(mini, "v15", torch.float32), torch.device("cpu")
    stages, memory = device_stages(modules, place), DeviceMemory(place, "float32")
    there = MuseTalk(LoadedStages(modules.spec, "float32", stages, memory))
    here = MuseTalk.load(mini, cpu_backend="torch")
    rng = np.random.default_rng(1)
    chunker = here.windows.open_chunker(Fraction(25), 500)
    chunk, *_ = chunker.push(rng.normal(0, 0.1, 2 * chunker.sample_rate).astype(np.float32))
    heard = there.encode_audio(chunk.windows)
    assert isinstance(heard, torch.Tensor) and not len(there.encode_audio(chunk.windows[:0]))
    conditions = there.condition([heard[:5], heard[5:]], chunk)
    expected = here.condition(here.encode_audio(chunk.windows), chunk)
    assert np.array_equal(np.asarray(conditions), expected)
    crops = rng.integers(0, 256, (5, 256, 256, 3), np.uint8)
    latents = here.encode_crops(crops)
    assert np.array_equal(there.encode_crops(crops), latents)
    assert np.array_equal(there.redraw(latents), here.redraw(latents))
    faces = here.generate(latents, expected[:5])
    assert np.array_equal(np.asarray(there.generate(latents, conditions[:5])), faces)
    assert np.array_equal(np.asarray(there.generate(list(latents), list(conditions[:5]))), faces)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("sd-vae/config.json", None, "sd-vae/config.json: missing"),
        ("musetalkV15/unet.safetensors", None, "musetalkV15/unet.safetensors: missing"),
        ("musetalkV15/unet.safetensors", b"nothing", "cannot be read, download it again"),
        ("wsavatar.json", b"{]", "cannot be read as JSON"),
        ("whisper/preprocessor_config.json", b'{"hop_length": 80}', "hop_length must be 160"),
    ],
)
def test_files_that_are_wrong_now_are_named(
    mini: Path, cache: Path, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    """That the model was converted before hides no problem of its files."""
    directory = shutil.copytree(mini, tmp_path / "model")
    if content is None:
        (directory / name).unlink()
    else:
        (directory / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        load(directory, cache)


def test_files_are_told_apart_by_their_content(mini: Path, tmp_path: Path) -> None:
    """The same files are the same model wherever they lie; another weight or setting is not."""
    directory = shutil.copytree(mini, tmp_path / "model")
    files = read_files(mini, "v15")
    assert files is not None and read_files(directory, "v15") == files
    extras = json.loads((directory / "wsavatar.json").read_text())
    (directory / "wsavatar.json").write_text(json.dumps(extras | {"bfloat16": True}))
    assert fingerprint(directory, "v15") != files.fingerprint
    shutil.copy(mini / "wsavatar.json", directory)
    weights = bytearray((directory / "musetalkV15/unet.safetensors").read_bytes())
    weights[-1] ^= 1
    (directory / "musetalkV15/unet.safetensors").write_bytes(weights)
    assert fingerprint(directory, "v15") != files.fingerprint
    (directory / "whisper/config.json").unlink()
    assert fingerprint(directory, "v15") is None and read_files(directory, "v15") is None
