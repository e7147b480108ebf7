"""The fused networks draw the face that diffusers' modules draw."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch.nn import functional as F
from transformers import WhisperConfig

from wsavatar.faces.musetalk import fused_blocks
from wsavatar.faces.musetalk.checkpoint import load_modules
from wsavatar.faces.musetalk.features import AudioEncoder, AudioFeatures, LogMel
from wsavatar.faces.musetalk.fused import FusedFaces
from wsavatar.faces.musetalk.fused_audio import FusedAudio
from wsavatar.faces.musetalk.fused_blocks import UnfusableError, upsampling_kernel
from wsavatar.faces.musetalk.networks import FaceGenerator, fold_timestep
from wsavatar.faces.musetalk.random import _tiny, _unet, _vae, _whisper
from wsavatar.resources import embedded_weights
from wsavatar.speech.chunker import FeatureGrid


def official_shape() -> tuple[UNet2DConditionModel, AutoencoderKL]:
    """The official layout of blocks at a fraction of its widths, biases and norms not trivial."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config(_unet([32, 64, 64], 4, 24, first_attends=True))
    vae = AutoencoderKL.from_config(_vae([16, 32, 32], 4, patch=1, layers=2, groups=8))
    with torch.no_grad():
        for module in (unet, vae):
            for name, tensor in module.named_parameters():
                if name.endswith("bias") or "norm" in name:
                    tensor.add_(torch.randn_like(tensor) * 0.1)
    fold_timestep(unet)
    return unet.eval(), vae.eval()


@torch.no_grad()
def difference(unet: UNet2DConditionModel, vae: AutoencoderKL, rows: int) -> tuple[int, float]:
    """Greatest difference in levels of 255, and the share of values that differ."""
    size, dim = 16, int(unet.config["cross_attention_dim"])
    latents = torch.randn(2, int(unet.config["in_channels"]), size, size)
    condition = torch.randn(2, 30, dim)
    plain = FaceGenerator(unet, vae, rows)(latents, condition).int()
    faces = FusedFaces(copy.deepcopy(unet), copy.deepcopy(vae), size, rows)
    fused = faces(latents, condition).int()
    assert fused.shape == plain.shape
    assert plain.float().std() > 10
    off = (plain - fused).abs()
    return int(off.max()), float((off > 0).float().mean())


@pytest.mark.parametrize("rows", [0, 7])
def test_the_official_architecture(rows: int) -> None:
    """Every kind of block of the official model agrees in float32, also with rows left out."""
    greatest, share = difference(*official_shape(), rows)
    assert greatest <= 1
    assert share < 1e-3


def test_the_embedded_model() -> None:
    """The trained weights that ship draw the same picture."""
    modules = load_modules(embedded_weights(), "v15", torch.float32)
    fold_timestep(modules.unet)
    greatest, share = difference(modules.unet, modules.vae, modules.spec.decode_from_row)
    assert greatest <= 1
    assert share < 1e-3


def test_a_tiny_decoder_in_the_vae_s_place() -> None:
    """TAESD takes the UNet's own latents, fused or not, and gives pictures of the same size."""
    unet, vae = official_shape()
    tiny = AutoencoderTiny.from_config(_tiny(8, 2)).eval().requires_grad_(False)
    tiny.decoder.layers[-1].bias += 0.5  # random weights draw about black: to mid grey
    latents, condition = torch.randn(2, 8, 16, 16), torch.randn(2, 30, 24)
    with torch.no_grad():
        plain = FaceGenerator(unet, vae, 7, tiny)(latents, condition).int()
        fused = FusedFaces(unet, vae, 16, 7, tiny)(latents, condition).int()
        by_vae = FaceGenerator(unet, vae, 7)(latents, condition)
    assert plain.shape == fused.shape == by_vae.shape
    assert (plain - fused).abs().max() <= 1
    assert plain[:, -1, :, :].float().mean() > 60


def test_large_and_small_pictures_take_the_same_convolution(monkeypatch) -> None:
    """A 3x3 convolution as one product equals the convolution."""
    unet, vae = official_shape()
    latents, condition = torch.randn(2, 8, 16, 16), torch.randn(2, 30, 24)
    with torch.no_grad():
        faces = FusedFaces(unet, vae, 16)
        by_products = faces(latents, condition).int()
        monkeypatch.setattr(fused_blocks, "_FEW_PIXELS", 0)
        by_convolutions = faces(latents, condition).int()
    assert (by_products - by_convolutions).abs().max() <= 1


def test_upsampling_and_convolution_are_one() -> None:
    """Four phases of a 2x2 convolution equal nearest upsampling and a 3x3 one, borders too."""
    weight, x = torch.randn(6, 5, 3, 3), torch.randn(2, 5, 4, 7)
    expected = F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, padding=1)
    phases = F.conv2d(x, upsampling_kernel(weight), padding=1).split(6, dim=1)
    for p in range(2):
        for q in range(2):
            got = phases[2 * p + q][:, :, p : p + 4, q : q + 7]
            torch.testing.assert_close(got, expected[:, :, p::2, q::2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("of_unet", "of_vae", "told"),
    [
        ({"act_fn": "gelu"}, {}, "act_fn gelu"),
        ({"mid_block_type": None}, {}, "mid_block NoneType"),
        ({"mid_block_type": "UNetMidBlock2D"}, {}, "mid_block UNetMidBlock2D"),
        ({"transformer_layers_per_block": 2}, {}, "several transformer blocks"),
        ({}, {"act_fn": "gelu"}, "activation GELU"),
        ({}, {"up_block_types": ["AttnUpDecoderBlock2D"] * 3}, "AttnUpDecoderBlock2D"),
    ],
)
def test_what_is_not_known_is_said(
    of_unet: dict[str, Any], of_vae: dict[str, Any], told: str
) -> None:
    """What would be drawn otherwise is refused by name, so that the model can run unfused."""
    unet_config = _unet([32, 64], 4, 24, first_attends=True) | of_unet
    vae_config = _vae([16, 32, 32], 4, patch=1, layers=1, groups=8) | of_vae
    unet = UNet2DConditionModel.from_config(unet_config)
    vae = AutoencoderKL.from_config(vae_config)
    with torch.no_grad(), pytest.raises(UnfusableError, match=told):
        fold_timestep(unet)
        FusedFaces(unet, vae, 16)


def test_a_convolution_without_bias_is_refused_too() -> None:
    """No published model has one; a changed one runs unfused."""
    unet, vae = official_shape()
    vae.decoder.conv_in.bias = None
    with torch.no_grad(), pytest.raises(UnfusableError, match="a convolution without bias"):
        FusedFaces(unet, vae, 16)


def test_latents_must_halve_evenly() -> None:
    """Three levels halve twice: 14 becomes 7, which doubles to 6 or 8, but never to 14 again."""
    unet, vae = official_shape()
    with pytest.raises(UnfusableError, match="a latent size of 14, no multiple of 4"):
        FusedFaces(unet, vae, 14)


@pytest.mark.parametrize(
    ("window_positions", "activation", "given"),
    [(65, "gelu", None), (120, "relu", None), (65, "gelu", [0, 2]), (65, "gelu", [3, 1])],
)
def test_a_block_s_features_without_the_padding(
    window_positions: int, activation: str, given: list[int] | None
) -> None:
    """Features of a block are those of the whole padded window, in float32 within rounding."""
    torch.manual_seed(0)
    config = WhisperConfig(
        **_whisper(64, 3, 120), activation_function=activation, out_indices=given
    )
    encoder = AudioEncoder(config).eval().requires_grad_(False)
    for tensor in encoder.parameters():
        tensor.add_(torch.randn_like(tensor) * 0.05)
    grid = FeatureGrid(block_positions=5, left_positions=20, right_positions=10)
    audio = torch.randn(3, grid.window_samples) * torch.tensor([[0.1], [0.001], [0.0]])
    samples = window_positions * grid.position_samples
    whole = AudioFeatures(LogMel(80), encoder)(F.pad(audio, (0, samples - audio.shape[1])))
    made = FusedAudio(LogMel(80), encoder, grid, window_positions)(audio)
    torch.testing.assert_close(made, whole[:, 20:25], rtol=1e-3, atol=1e-4)
