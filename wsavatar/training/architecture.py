"""The embedded model's architecture: the official classes with fewer channels.

All sizes are written to the config files beside the weights; the loader reads them from there.
Differences from the official model, and reasons:

* the VAE works on 4x4 blocks of pixels (48 channels in and out), so that no layer runs at full
  resolution: on a CPU wide layers on a small grid are several times faster than narrow ones on a
  large grid;
* only the lower 9 of 16 latent rows are decoded: those above are never pasted;
* cross-attention is on the 8x8 and 4x4 grids; at 16x16 it costs time without a gain;
* the audio encoder gets one second, not thirty.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

__all__ = ["AUDIO", "AUDIO_DIM", "AUDIO_STATES", "MODEL", "UNET", "VAE", "build", "save"]

CROP_SIZE = 256
DECODE_FROM_ROW = 7
BLOCK, LEFT, RIGHT = 5, 40, 5
WINDOW_POSITIONS = LEFT + BLOCK + RIGHT
AUDIO_DIM = 192
AUDIO_GIVEN = [0, 2, 4, 6, 8]  # to the UNet: the embedding, and the states of every second layer
AUDIO_STATES = len(AUDIO_GIVEN)

VAE: dict[str, Any] = dict(
    in_channels=48,
    out_channels=48,
    down_block_types=["DownEncoderBlock2D"] * 3,
    up_block_types=["UpDecoderBlock2D"] * 3,
    block_out_channels=[48, 64, 96],
    layers_per_block=1,
    latent_channels=16,
    norm_num_groups=8,
    sample_size=64,
    mid_block_add_attention=False,
    scaling_factor=1.0,
)
UNET: dict[str, Any] = dict(
    sample_size=16,
    in_channels=32,
    out_channels=16,
    down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    block_out_channels=[64, 128, 192],
    layers_per_block=1,
    cross_attention_dim=AUDIO_DIM,
    attention_head_dim=4,
    norm_num_groups=16,
)
AUDIO: dict[str, Any] = dict(
    d_model=AUDIO_DIM,
    encoder_layers=8,
    out_indices=AUDIO_GIVEN,
    encoder_attention_heads=6,
    encoder_ffn_dim=1536,
    num_mel_bins=80,
    max_source_positions=WINDOW_POSITIONS,
    decoder_layers=0,
    vocab_size=8,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    decoder_start_token_id=3,
)
MODEL: dict[str, Any] = dict(
    crop_size=CROP_SIZE,
    extra_margin={"relative": 0.10},
    grid=dict(block_positions=BLOCK, left_positions=LEFT, right_positions=RIGHT),
    window_positions=WINDOW_POSITIONS,
    decode_from_row=DECODE_FROM_ROW,
    bfloat16=True,  # as `bench --parts precision` shows
)


def build() -> tuple[AutoencoderKL, UNet2DConditionModel, WhisperEncoder]:
    """The three networks, randomly initialised, float32."""
    config = WhisperConfig(**AUDIO)
    config._attn_implementation = "sdpa"
    return AutoencoderKL(**VAE), UNet2DConditionModel(**UNET), WhisperEncoder(config)


def save(
    directory: Path,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    audio: WhisperEncoder,
    scaling_factor: float,
) -> None:
    """Write the official layout, float16 safetensors."""

    def half(module: nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
        return {
            prefix + k: v.detach().to("cpu", torch.float16).contiguous()
            for k, v in module.state_dict().items()
        }

    def config(path: Path, values: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values, indent=2) + "\n")

    config(directory / "wsavatar.json", MODEL)
    config(
        directory / "sd-vae" / "config.json",
        {"_class_name": "AutoencoderKL", **VAE, "scaling_factor": scaling_factor},
    )
    save_file(half(vae), directory / "sd-vae" / "diffusion_pytorch_model.safetensors")
    config(
        directory / "musetalkV15" / "musetalk.json", {"_class_name": "UNet2DConditionModel", **UNET}
    )
    save_file(half(unet), directory / "musetalkV15" / "unet.safetensors")
    config(directory / "whisper" / "config.json", {"model_type": "whisper", **AUDIO})
    save_file(half(audio, "model.encoder."), directory / "whisper" / "model.safetensors")
    config(
        directory / "whisper" / "preprocessor_config.json",
        dict(
            feature_extractor_type="WhisperFeatureExtractor",
            feature_size=80,
            sampling_rate=16000,
            hop_length=160,
            n_fft=400,
            chunk_length=1,
        ),
    )
