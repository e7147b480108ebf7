"""MuseTalk: each stage against transformers, diffusers and the published recipe."""

from __future__ import annotations

import json
import math
import shutil
import threading
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from torch.overrides import TorchFunctionMode
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from wsavatar.faces.musetalk.features import AudioEncoder, LogMel
from wsavatar.faces.musetalk.model import CpuBackend, DType, MuseTalk
from wsavatar.faces.musetalk.networks import CropEncoder, FaceDecoder, FaceGenerator, fold_timestep
from wsavatar.faces.musetalk.positions import gather_conditions, positional_encoding
from wsavatar.faces.musetalk.random import _ARCHITECTURES, write_random_model
from wsavatar.speech.chunker import Chunk, FeatureGrid

GRID = FeatureGrid()


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(mini: Path) -> MuseTalk:
    return MuseTalk.load(mini, cpu_backend="torch")


def config_of(mini: Path, name: str) -> dict:
    return json.loads((mini / name).read_text())


def plain_unet(mini: Path) -> UNet2DConditionModel:
    unet = UNet2DConditionModel.from_config(config_of(mini, "musetalkV15/musetalk.json"))
    unet.load_state_dict(load_file(mini / "musetalkV15" / "unet.safetensors"))
    return unet.eval().requires_grad_(False)


def plain_vae(mini: Path, **changes: object) -> AutoencoderKL:
    vae = AutoencoderKL.from_config(config_of(mini, "sd-vae/config.json") | changes)
    vae.load_state_dict(load_file(mini / "sd-vae" / "diffusion_pytorch_model.safetensors"))
    return vae.eval().requires_grad_(False)


def unshuffled(pixels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pixel_unshuffle(pixels, 4)


# Features


@pytest.mark.parametrize("samples", [480_000, 20_800, 16_000])
def test_log_mel_is_whispers(samples: int) -> None:
    """For 30 s and for short windows, silence in them included, transformers' figures to 1e-4."""
    audio = np.random.default_rng(1).normal(0, 0.1, samples).astype(np.float32)
    audio[samples // 3 : samples // 2] = 0.0
    extractor = WhisperFeatureExtractor()
    expected = extractor(
        audio, sampling_rate=16_000, padding="do_not_pad", return_tensors="np"
    ).input_features[0]
    made = LogMel(80)(torch.from_numpy(audio)[None])[0].numpy()
    assert made.shape == expected.shape == (80, samples // 160)
    assert np.abs(made - expected).max() < 1e-4


def test_hidden_states_are_those_of_transformers() -> None:
    """Embedding, layers, and the last one behind the final norm, in transformers' order."""
    config = WhisperConfig(
        num_mel_bins=80,
        d_model=32,
        encoder_layers=3,
        encoder_attention_heads=2,
        encoder_ffn_dim=64,
        max_source_positions=40,
    )
    torch.manual_seed(0)
    theirs = WhisperEncoder(config).eval()
    ours = AudioEncoder(config).eval()
    ours.load_state_dict(theirs.state_dict())
    mel = torch.randn(2, 80, 80)
    with torch.inference_mode():
        expected = torch.stack(theirs(mel, output_hidden_states=True).hidden_states, dim=2)
        made = ours(mel)
    assert made.shape == (2, 40, 4, 32)
    assert torch.allclose(made, expected, atol=1e-5)


def test_an_encoder_may_give_only_some_of_its_states() -> None:
    """Those that the config names, in its order; a state that is not there is refused."""
    torch.manual_seed(0)
    shape = dict(d_model=32, encoder_layers=4, encoder_attention_heads=2, encoder_ffn_dim=64)
    whole = AudioEncoder(WhisperConfig(**shape)).eval()
    some = AudioEncoder(WhisperConfig(**shape, out_indices=[0, 2, 4])).eval()
    some.load_state_dict(whole.state_dict())
    mel = torch.randn(2, 80, 80)
    with torch.inference_mode():
        assert torch.equal(some(mel), whole(mel)[:, :, [0, 2, 4]])
    for wrong in ([], [5], [-1], ["0"]):
        with pytest.raises(ValueError, match="are not states 0 to 4"):
            AudioEncoder(WhisperConfig(**shape, out_indices=wrong))


def test_at_25_fps_a_frame_is_conditioned_as_musetalk_conditions_it() -> None:
    """The published slices: pad 2 * ceil(50 / fps) zeros, take 10 from floor(i * 50 / fps)."""
    seconds, layers, dim, fps = 2, 3, 8, 25
    features = np.random.default_rng(2).normal(size=(50 * seconds, layers, dim))
    padding = np.zeros((2 * math.ceil(50 / fps), layers, dim))
    padded = np.concatenate([padding, features, np.zeros((30, layers, dim))])
    expected = [
        padded[i * 50 // fps : i * 50 // fps + 10].reshape(10 * layers, dim)
        for i in range(seconds * fps)
    ]
    chunk = Chunk(
        0, seconds * fps, 0, np.zeros((20, 1), np.float32), 50 * seconds, 32_000, Fraction(fps)
    )
    made = gather_conditions(features, chunk, GRID)
    assert np.array_equal(made, expected)
    as_tensor = gather_conditions(torch.from_numpy(features), chunk, GRID)
    assert np.array_equal(np.asarray(as_tensor), expected)


def test_features_of_other_blocks_are_refused() -> None:
    """A mix-up of chunks raises; it never conditions a frame on the wrong audio."""
    chunk = Chunk(10, 5, 3, np.zeros((4, 1), np.float32), None, 0, Fraction(25))
    with pytest.raises(ValueError, match="do not hold"):
        gather_conditions(np.zeros((5, 1, 1)), chunk, GRID)


def test_positional_encoding_is_the_sinusoid() -> None:
    """Sines in even columns, cosines in odd ones, one wavelength for each pair."""
    encoding = positional_encoding(50, 384)
    assert encoding.shape == (50, 384)
    for position, pair in [(0, 0), (7, 0), (49, 3), (13, 191)]:
        angle = position / 10_000 ** (2 * pair / 384)
        assert encoding[position, 2 * pair] == pytest.approx(math.sin(angle), abs=1e-4)
        assert encoding[position, 2 * pair + 1] == pytest.approx(math.cos(angle), abs=1e-4)


def test_only_a_windows_own_block_comes_back(model: MuseTalk) -> None:
    """Context is computed and left out; no windows give no features."""
    grid, spec = model.spec.grid, model.spec
    windows = np.random.default_rng(3).normal(0, 0.1, (2, grid.window_samples)).astype(np.float32)
    made = np.asarray(model.encode_audio(windows))
    assert made.shape == (2 * grid.block_positions, spec.layers, spec.dim)
    assert made.dtype == np.float32
    assert model.encode_audio(windows[:0]).shape == (0, spec.layers, spec.dim)
    with pytest.raises(ValueError, match="expected windows"):
        model.encode_audio(windows[:, 1:])


# Pictures


def test_folding_the_timestep_changes_nothing(mini: Path) -> None:
    """The UNet without its timestep layers gives what diffusers gives at timestep 0."""
    unet, rng = plain_unet(mini), torch.Generator().manual_seed(0)
    latents = torch.randn(2, 8, 16, 16, generator=rng)
    condition = torch.randn(2, 30, 32, generator=rng)
    expected = unet(latents, 0, condition).sample
    fold_timestep(unet)
    assert torch.allclose(unet(latents, 0, condition).sample, expected, atol=1e-4)
    assert not any("time_emb" in name for name, _ in unet.named_parameters())


@torch.inference_mode()
def test_what_was_folded_can_be_moved(mini: Path) -> None:
    """To another device, or another precision: it runs there as before."""
    with torch.inference_mode(False):
        unet = plain_unet(mini)
        fold_timestep(unet)
        unet.double()
    unet(torch.zeros(1, 8, 16, 16).double(), 0, torch.zeros(1, 30, 32).double())


@pytest.mark.parametrize("factors", [{"scaling_factor": 0.4}, {"shift_factor": 0.3}])
def test_a_face_is_one_unet_step_and_a_decoding(mini: Path, factors: dict[str, float]) -> None:
    """Latents out of the UNet, unscaled, decoded, in [-1, 1] to 0 … 255: as diffusers has it."""
    unet, vae = plain_unet(mini), plain_vae(mini, **factors)
    rng = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 8, 16, 16, generator=rng)
    condition = torch.randn(2, 30, 32, generator=rng)
    made = unet(latents, 0, condition).sample
    made = made / vae.config["scaling_factor"] + (vae.config["shift_factor"] or 0.0)
    pixels = torch.nn.functional.pixel_shuffle(vae.decode(made).sample, 4)
    expected = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1)
    fold_timestep(unet)
    faces = FaceGenerator(unet, vae)(latents, condition)
    assert faces.dtype == torch.uint8
    assert faces.shape == (2, 256, 256, 3)
    assert (faces.float() - expected).abs().max() <= 1


class _NoTensorsFromNumbers(TorchFunctionMode):
    """Fails where Python numbers become a tensor: on a GPU a copy that waits for the device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.tensor
        return func(*args, **(kwargs or {}))


def test_a_face_needs_nothing_from_the_host(mini: Path) -> None:
    """All inputs of a picture are on its device, so it never waits for the host."""
    unet, vae = plain_unet(mini), plain_vae(mini)
    fold_timestep(unet)
    faces = FaceGenerator(unet, vae)
    with _NoTensorsFromNumbers():
        faces(torch.zeros(1, 8, 16, 16), torch.zeros(1, 30, 32))
    assert "timestep" not in faces.state_dict()
    assert faces.half().timestep.dtype is torch.long


def test_rows_that_are_never_pasted_are_not_decoded(model: MuseTalk) -> None:
    """Above ``decode_from_row`` a face is black; below it is a picture."""
    spec, rng = model.spec, np.random.default_rng(6)
    latents = rng.normal(size=(1, 8, 16, 16)).astype(np.float16)
    condition = rng.normal(size=(1, 30, 32)).astype(np.float32)
    (face,) = np.asarray(model.generate(latents, condition))
    assert spec.decoded_from_y == 7 * 16
    assert not face[: spec.decoded_from_y].any()
    assert face[spec.decoded_from_y :].std() > 1


def test_crops_become_masked_and_reference_latents(mini: Path) -> None:
    """First the crop with its lower half at -1, then the crop: modes, scaled."""
    vae = plain_vae(mini, scaling_factor=0.7)
    crops = torch.from_numpy(
        np.random.default_rng(7).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    )
    pixels = crops.permute(0, 3, 1, 2).float() / 127.5 - 1
    masked = pixels.clone()
    masked[:, :, 128:] = -1
    expected = torch.cat(
        [vae.encode(unshuffled(x)).latent_dist.mode() * 0.7 for x in (masked, pixels)], dim=1
    )
    made = CropEncoder(vae)(crops)
    assert made.shape == (2, 8, 16, 16)
    assert torch.allclose(made, expected, atol=1e-5)


def test_redrawn_crops_show_the_references(mini: Path, model: MuseTalk) -> None:
    """The second half of a crop's latents, decoded as a face is: what the VAE leaves of the crop,
    with black above the rows that are never pasted."""
    crops = np.random.default_rng(8).integers(0, 256, (5, 256, 256, 3), dtype=np.uint8)
    latents = model.encode_crops(crops)
    redrawn = model.redraw(latents)
    assert redrawn.shape == crops.shape and redrawn.dtype == np.uint8
    assert not redrawn[:, : model.spec.decoded_from_y].any()
    vae = plain_vae(mini)
    reference = torch.from_numpy(latents[:, 4:]).float()
    expected = FaceDecoder(vae, model.spec.decode_from_row)(reference).numpy()
    assert np.abs(redrawn.astype(int) - expected).max() <= 1


def test_crops_of_another_shape_are_refused(model: MuseTalk) -> None:
    """Crops must be uint8 and of the model's size; the message says which."""
    latents = model.encode_crops(np.zeros((5, 256, 256, 3), np.uint8))
    assert latents.shape == (5, 8, 16, 16)
    assert latents.dtype == np.float16
    with pytest.raises(ValueError, match="256"):
        model.encode_crops(np.zeros((1, 128, 128, 3), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        model.encode_crops(np.zeros((1, 256, 256, 3), np.float32))


def test_latents_and_conditions_must_pair(model: MuseTalk) -> None:
    """A batch of unequal halves raises instead of broadcasting."""
    with pytest.raises(ValueError, match="2 latents, but 1 conditions"):
        model.generate(np.zeros((2, 8, 16, 16), np.float16), np.zeros((1, 30, 32), np.float32))


# Devices and types


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_makes_the_same_face(mini: Path, model: MuseTalk, dtype: str) -> None:
    """16-bit weights move a pixel by a few levels, not more."""
    half = MuseTalk.load(mini, dtype=dtype, cpu_backend="torch")
    rng = np.random.default_rng(8)
    latents = rng.normal(size=(1, 8, 16, 16)).astype(np.float16)
    condition = rng.normal(size=(1, 30, 32)).astype(np.float32)
    expected = np.asarray(model.generate(latents, condition)).astype(int)
    made = np.asarray(half.generate(latents, condition))
    assert np.abs(made - expected).mean() < 3
    windows = np.zeros((1, model.spec.grid.window_samples), np.float32)
    assert np.isfinite(half.encode_audio(windows)).all()


@pytest.mark.parametrize(
    ("asked", "flagged", "processor", "backend", "chosen"),
    [
        ("auto", True, True, "openvino", "bfloat16"),
        ("auto", True, False, "openvino", "float32"),
        ("auto", False, True, "openvino", "float32"),
        ("auto", True, True, "torch", "float32"),
        ("float32", True, True, "openvino", "float32"),
        ("bfloat16", False, False, "openvino", "bfloat16"),
    ],
)
def test_bfloat16_is_taken_where_processor_and_files_allow_it(
    mini: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: DType,
    flagged: bool,
    processor: bool,
    backend: CpuBackend,
    chosen: str,
) -> None:
    """Only by OpenVINO, where its files say that pictures stay true; float32 can be asked for."""
    openvino_backend = pytest.importorskip("wsavatar.faces.musetalk.openvino_backend")
    directory = shutil.copytree(mini, tmp_path / "model")
    extras = config_of(directory, "wsavatar.json") | {"bfloat16": flagged}
    (directory / "wsavatar.json").write_text(json.dumps(extras))
    compiled = SimpleNamespace(input_shapes=[(8, 16, 16), (30, 32)])
    stages = dict.fromkeys(("mel", "encoder", "crops", "redraw", "faces"), compiled)
    monkeypatch.setattr(openvino_backend, "compile_stages", lambda *args, **more: stages)
    monkeypatch.setattr(openvino_backend, "has_bfloat16", lambda: processor)
    assert MuseTalk.load(directory, dtype=asked, cpu_backend=backend).dtype == chosen


def test_a_device_that_is_not_there_is_named(mini: Path) -> None:
    """An unknown or absent device is a ValueError with its name."""
    with pytest.raises(ValueError, match="warp:1"):
        MuseTalk.load(mini, device="warp:1")
    with pytest.raises(ValueError, match="cuda:99"):
        MuseTalk.load(mini, device="cuda:99")
    with pytest.raises(ValueError, match="float16"):
        MuseTalk.load(mini, dtype="float16", cpu_backend="openvino")


def test_any_thread_may_call(model: MuseTalk) -> None:
    """Calls from several threads at once give each its own, right answer."""
    rng = np.random.default_rng(9)
    latents = rng.normal(size=(4, 8, 16, 16)).astype(np.float16)
    condition = rng.normal(size=(4, 30, 32)).astype(np.float32)
    expected = [
        np.asarray(model.generate(latents[i : i + 1], condition[i : i + 1])) for i in range(4)
    ]
    made: dict[int, np.ndarray] = {}

    def call(i: int) -> None:
        made[i] = np.asarray(model.generate(latents[i : i + 1], condition[i : i + 1]))

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(made[i], expected[i]) for i in range(4))


# Sizes


def test_full_size_is_the_published_size() -> None:
    """850 M parameters in the UNet, 84 M in the VAE, Whisper tiny's 8 M in the encoder."""
    architecture = _ARCHITECTURES["full"]
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in module.parameters()) / 1e6
            for module in (
                UNet2DConditionModel.from_config(architecture["unet"]),
                AutoencoderKL.from_config(architecture["vae"]),
                AudioEncoder(WhisperConfig(**architecture["whisper"])),
            )
        ]
    assert counts == [
        pytest.approx(850, abs=1),
        pytest.approx(83.7, abs=0.1),
        pytest.approx(8.2, abs=0.1),
    ]


def test_a_seed_is_a_model(tmp_path: Path, mini: Path) -> None:
    """The same seed writes the same weights; a directory that holds a model is not overwritten."""
    write_random_model(tmp_path / "same", size="mini", seed=0)
    write_random_model(tmp_path / "other", size="mini", seed=1)
    name = "musetalkV15/unet.safetensors"
    assert (tmp_path / "same" / name).read_bytes() == (mini / name).read_bytes()
    assert (tmp_path / "other" / name).read_bytes() != (mini / name).read_bytes()
    with pytest.raises(FileExistsError, match="already holds"):
        write_random_model(tmp_path / "same", size="mini")
