"""The same audio gives the same frames, whatever the chunks it came in."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from wsavatar.faces.musetalk.model import CpuBackend, DType, MuseTalk
from wsavatar.faces.musetalk.random import write_random_model
from wsavatar.speech.chunker import Chunk, Chunker

BACKENDS: list[tuple[CpuBackend, DType]] = [
    ("torch", "float32"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
]
RAGGED = [1, 3999, 160, 7, 12_345, 800]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, which OpenVINO converts once for both of its types."""
    directory = tmp_path_factory.mktemp("model")
    write_random_model(directory, size="mini")
    return directory


@pytest.fixture(scope="module", params=BACKENDS, ids="-".join)
def model(request: pytest.FixtureRequest, directory: Path) -> Iterator[MuseTalk]:
    backend, dtype = request.param
    if backend == "openvino":
        pytest.importorskip("openvino")
    threads = torch.get_num_threads()
    yield MuseTalk.load(
        directory,
        dtype=dtype,
        cpu_backend=backend,
        # Two: rows share them out. Torch's threads spin for each other, for seconds if it is busy.
        cpu_threads=1 if backend == "torch" else 2,
        cache=directory / "cache",
    )
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def audio() -> np.ndarray:
    """2.9 s that swell, pause and end at no boundary of anything."""
    rng = np.random.default_rng(3)
    samples = rng.uniform(-1, 1, 46_789) * np.abs(np.sin(np.arange(46_789) / 5000.0))
    samples[20_000:26_000] = 0.0
    return samples.astype(np.float32)


def cut(model: MuseTalk, audio: np.ndarray, fps: Fraction, chunk: int, pushes: list[int]):
    chunker = Chunker(model.spec.grid, fps, chunk)
    at, turn = 0, 0
    while at < len(audio):
        size = pushes[turn % len(pushes)]
        yield from chunker.push(audio[at : at + size])
        at, turn = at + size, turn + 1
    yield from chunker.flush()


def conditions(model: MuseTalk, chunk: Chunk) -> np.ndarray:
    return np.asarray(model.condition(model.encode_audio(chunk.windows), chunk))


def stream(model: MuseTalk, audio: np.ndarray, fps: Fraction, chunk: int, pushes: list[int]):
    return np.concatenate([conditions(model, c) for c in cut(model, audio, fps, chunk, pushes)])


def film(model: MuseTalk, latents: np.ndarray, conditions: np.ndarray, batch: int) -> np.ndarray:
    return np.concatenate(
        [
            np.asarray(model.generate(latents[at : at + batch], conditions[at : at + batch]))
            for at in range(0, len(latents), batch)
        ]
    )


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001)], ids=str)
def test_no_chunk_size_changes_a_condition(
    model: MuseTalk, audio: np.ndarray, fps: Fraction
) -> None:
    """Offline, and streamed in 0.1 to 2 s or in ragged pushes: conditions agree bit for bit."""
    whole = stream(model, audio, fps, 10**9, [len(audio)])
    assert len(whole) == -(-len(audio) * fps.numerator // (16_000 * fps.denominator))
    assert len({row.tobytes() for row in whole}) > 0.8 * len(whole)  # it does hear the audio
    for milliseconds in (100, 160, 250, 500, 1000, 2000):
        chunk = 16 * milliseconds
        assert np.array_equal(stream(model, audio, fps, chunk, [chunk]), whole), milliseconds
    assert np.array_equal(stream(model, audio, fps, 8000, RAGGED), whole)


def test_no_chunk_size_changes_a_frame(model: MuseTalk, audio: np.ndarray) -> None:
    """Frames of the same batches agree bit for bit; other batch sizes move at most one level.

    In bfloat16 they agree bit for bit in any batch.
    """
    fps, spec = Fraction(25), model.spec
    whole = stream(model, audio, fps, 10**9, [len(audio)])[:24]
    shape = (len(whole), 2 * spec.latent_channels, spec.latent_size, spec.latent_size)
    latents = np.random.default_rng(4).normal(size=shape).astype(np.float16)
    offline = film(model, latents, whole, batch=4)
    assert len({frame.tobytes() for frame in offline}) == len(offline)
    for chunk in (1600, 8000, 32_000):
        streamed = stream(model, audio, fps, chunk, RAGGED)[:24]
        assert np.array_equal(film(model, latents, streamed, batch=4), offline)
    for batch in (1, 3, 8):
        difference = film(model, latents, whole, batch).astype(int) - offline
        assert abs(difference).max() <= levels(model)


def levels(model: MuseTalk) -> int:
    """How far a batch may move a pixel."""
    return 0 if model.dtype == "bfloat16" else 1


def test_a_row_does_not_hear_the_rest_of_its_batch(model: MuseTalk) -> None:
    """A batch may mix frames of any sessions: its order and company change at most one level.

    In bfloat16 nothing.
    """
    spec, rng = model.spec, np.random.default_rng(5)
    shape = (4, 2 * spec.latent_channels, spec.latent_size, spec.latent_size)
    latents = rng.normal(size=shape).astype(np.float16)
    rows = rng.normal(size=(4, 10 * spec.layers, spec.dim)).astype(np.float32)
    faces = np.asarray(model.generate(latents, rows))
    turned = np.asarray(model.generate(list(latents[::-1]), list(rows[::-1])))
    assert abs(turned[::-1].astype(int) - faces).max() <= levels(model)


def test_audio_after_the_window_changes_nothing(model: MuseTalk, audio: np.ndarray) -> None:
    """A frame already sent stays true, whatever is said after it."""
    fps = Fraction(25)
    early = next(iter(cut(model, audio, fps, 16_000, [16_000])))
    other = audio.copy()
    other[16_000:] = 0.5
    assert np.array_equal(
        stream(model, other, fps, 10**9, [len(audio)])[: early.frame_count],
        stream(model, audio, fps, 10**9, [len(audio)])[: early.frame_count],
    )
    different = stream(model, other, fps, 10**9, [len(audio)])
    assert not np.array_equal(different, stream(model, audio, fps, 10**9, [len(audio)]))


def test_the_files_define_the_grid(model: MuseTalk, tmp_path: Path) -> None:
    """Another grid gives other features: the grid is part of the model, not a setting."""
    write_random_model(tmp_path / "other", size="mini")
    extras = tmp_path / "other" / "wsavatar.json"
    extras.write_text(extras.read_text().replace('"left_positions": 50', '"left_positions": 20'))
    other = MuseTalk.load(tmp_path / "other", cpu_backend="torch", cpu_threads=1)
    assert other.spec.grid.left_positions == 20
    assert other.spec.fingerprint != model.spec.fingerprint
