"""What holds on a CUDA device: `pytest -m gpu`. Without one these skip."""

from __future__ import annotations

import threading
from fractions import Fraction

import numpy as np
import pytest
import torch

from wsavatar.faces.musetalk.graphs import GraphedStage
from wsavatar.faces.musetalk.model import MuseTalk
from wsavatar.faces.musetalk.random import _ARCHITECTURES, write_random_model
from wsavatar.resources import embedded_weights
from wsavatar.speech.chunker import Chunk, Chunker

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(scope="module")
def embedded() -> tuple[MuseTalk, MuseTalk]:
    """The model that ships, in float32 on the CPU and as it runs on a GPU."""
    here = MuseTalk.load(embedded_weights(), device="cpu", cpu_backend="torch")
    there = MuseTalk.load(embedded_weights(), device="cuda:0")
    there.warm_up([8])
    return here, there


def speech_chunk(model: MuseTalk) -> Chunk:
    chunker = Chunker(model.spec.grid, Fraction(25), 16_000)
    audio = np.random.default_rng(10).normal(0, 0.1, 32_000).astype(np.float32)
    return chunker.push(audio)[1]


def psnr(made: np.ndarray, true: np.ndarray) -> float:
    error = np.mean((made.astype(float) - true.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def inputs(model: MuseTalk) -> tuple[np.ndarray, np.ndarray]:
    """Latents of random crops and the conditions of a chunk, computed on the CPU."""
    chunk = speech_chunk(model)
    condition = np.asarray(model.condition(model.encode_audio(chunk.windows), chunk))
    shape = (len(condition), model.spec.crop_size, model.spec.crop_size, 3)
    crops = np.random.default_rng(11).integers(0, 256, shape, np.uint8)
    return model.encode_crops(crops), condition


def test_pictures_are_those_of_float32(embedded) -> None:
    """Trained weights at the GPU's own precision stay at 45 dB and more of float32's picture."""
    here, there = embedded
    latents, condition = inputs(here)
    true = np.asarray(here.generate(latents, condition))
    made = there.generate(latents, condition).cpu().numpy()
    decoded = here.spec.decoded_from_y
    assert psnr(made[:, decoded:], true[:, decoded:]) >= 45


def test_features_are_those_of_float32(embedded) -> None:
    """Features and conditions agree closely with the CPU's."""
    here, there = embedded
    chunk = speech_chunk(here)
    true = np.asarray(here.condition(here.encode_audio(chunk.windows), chunk))
    made = there.condition(there.encode_audio(chunk.windows), chunk)
    assert np.abs(made.cpu().numpy() - true).max() < 0.05


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 12])
def test_any_batch_size_gives_the_same_pictures(embedded, size) -> None:
    """Batches are filled up or cut to the captured sizes; a row does not depend on its company."""
    here, there = embedded
    latents, condition = inputs(here)
    latents, condition = latents[:size], condition[:size]
    alone = [there.generate(latents[i : i + 1], condition[i : i + 1]) for i in range(size)]
    together = there.generate(latents, condition)
    assert len(together) == size
    assert (together.int() - torch.cat(alone).int()).abs().float().mean() < 0.5


def test_a_result_survives_the_next_call(embedded) -> None:
    """What `generate` returned is the caller's: a later batch does not write over it."""
    here, there = embedded
    latents, condition = inputs(here)
    first = there.generate(latents[:4], condition[:4])
    kept = first.clone()
    there.generate(latents[4:8], condition[4:8])
    torch.cuda.synchronize()
    assert torch.equal(first, kept)


def test_threads_take_turns(embedded) -> None:
    """Calls from several threads at once each get their own rows' pictures."""
    here, there = embedded
    latents, condition = inputs(here)
    expected = [there.generate(latents[i : i + 2], condition[i : i + 2]) for i in range(8)]
    made: dict[int, torch.Tensor] = {}

    def run(i: int) -> None:
        for _ in range(5):
            made[i] = there.generate(latents[i : i + 2], condition[i : i + 2])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.cuda.synchronize()
    assert all(torch.equal(made[i], expected[i]) for i in range(8))


def test_a_model_of_another_shape_runs(mini) -> None:
    """Random weights of a small official layout load, capture and agree with the CPU."""
    here = MuseTalk.load(mini, device="cpu")
    there = MuseTalk.load(mini, device="cuda:0")
    there.warm_up([4])
    latents, condition = inputs(here)
    true = np.asarray(here.generate(latents[:4], condition[:4]))
    assert psnr(there.generate(latents[:4], condition[:4]).cpu().numpy(), true) >= 40


@pytest.mark.parametrize(
    ("unet", "extras", "why"),
    [
        ({"transformer_layers_per_block": 2}, {}, "several transformer blocks"),
        ({}, {"crop_size": 240}, "a latent size of 15"),
    ],
)
def test_a_model_that_cannot_be_fused_runs_as_it_is(
    tmp_path, monkeypatch, caplog, unet: dict[str, int], extras: dict[str, int], why: str
) -> None:
    """The log says why; it runs as diffusers has it, and agrees with the CPU."""
    mini = _ARCHITECTURES["mini"]
    changed = {"unet": mini["unet"] | unet, "extras": mini["extras"] | extras}
    monkeypatch.setitem(_ARCHITECTURES, "mini", mini | changed)
    write_random_model(tmp_path / "model", size="mini")
    here = MuseTalk.load(tmp_path / "model", device="cpu", cpu_backend="torch")
    with caplog.at_level("WARNING"):
        there = MuseTalk.load(tmp_path / "model", device="cuda:0")
    assert why in caplog.text and "unfused" in caplog.text
    assert there.batch_sizes == ()  # no graphs
    there.warm_up([4])
    latents, condition = inputs(here)
    true = np.asarray(here.generate(latents[:4], condition[:4]))
    assert psnr(there.generate(latents[:4], condition[:4]).cpu().numpy(), true) >= 40


def test_memory_is_known_and_given_back(embedded) -> None:
    """The share of memory in use is one of the whole card, and `release` never raises it."""
    _, there = embedded
    used = there.memory_used()
    assert 0 < used < 1
    there.release()
    assert there.memory_used() <= used + 0.01


def test_a_graph_is_captured_once_a_size() -> None:
    """A second request for a captured size does nothing."""
    calls = []

    def stage(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return x * 2

    graphed = GraphedStage("double", stage, [torch.zeros(1, 3, device="cuda:0")])
    graphed.specialise(3)
    graphed.specialise(4)
    assert graphed.sizes == (4,)
    captured = len(calls)
    x = torch.arange(30.0, device="cuda:0").view(10, 3)
    assert torch.equal(graphed(x), x * 2)
    assert len(calls) == captured
