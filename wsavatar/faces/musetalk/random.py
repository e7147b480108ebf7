"""Writes a model of random weights in the official layout, to test speed and plumbing.

It knows the sizes of known architectures. It does not know how files are read again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from wsavatar.faces.musetalk.architecture import build
from wsavatar.faces.musetalk.layout import Part

__all__ = ["SIZES", "Size", "write_random_model"]

Size = Literal["full", "mini", "compact"]
SIZES: tuple[Size, ...] = get_args(Size)


def write_random_model(directory: Path, size: Size = "full", seed: int = 0) -> None:
    """Write an official-layout model of random weights into ``directory``.

    ``full`` has the official sizes (850 M parameters in the UNet; float16, 1.9 GB); ``compact`` the
    sizes of a model for two CPU cores; ``mini`` is for tests and takes milliseconds a frame. The
    same seed gives the same files. Raises FileExistsError rather than overwrite a model.
    """
    directory = Path(directory)
    taken = [name for name in ("musetalkV15", "sd-vae", "whisper") if (directory / name).exists()]
    if taken:
        raise FileExistsError(f"{directory} already holds {', '.join(taken)}; choose another place")
    architecture = _ARCHITECTURES[size]
    dtype = torch.float16 if size == "full" else torch.float32
    generator = torch.Generator().manual_seed(seed)
    parts: list[tuple[str, str, Part]] = [
        ("musetalkV15/musetalk.json", "musetalkV15/unet.safetensors", "unet"),
        ("sd-vae/config.json", "sd-vae/diffusion_pytorch_model.safetensors", "vae"),
        ("whisper/config.json", "whisper/model.safetensors", "whisper"),
    ]
    if "tiny" in architecture:
        parts.append(("taesd/config.json", "taesd/diffusion_pytorch_model.safetensors", "tiny"))
    for config_name, weights_name, part in tqdm(parts, desc=f"random {size} model", leave=False):
        config = architecture[part]
        _write_json(directory / config_name, config)
        with torch.device("meta"):
            module = build(part, config)
        tensors = _random_tensors(module, generator, dtype)
        if part == "whisper":
            tensors = {f"model.encoder.{name}": tensor for name, tensor in tensors.items()}
        save_file(tensors, directory / weights_name, metadata={"format": "pt"})
    _write_json(directory / "whisper" / "preprocessor_config.json", _PREPROCESSOR)
    if "extras" in architecture:
        _write_json(directory / "wsavatar.json", architecture["extras"])


def _random_tensors(
    module: nn.Module, generator: torch.Generator, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Norms at one, biases at zero, the rest scaled to keep a layer's variance (no overflow)."""
    tensors = {}
    for name, shape in tqdm(
        [(name, tensor.shape) for name, tensor in module.state_dict().items()],
        leave=False,
        unit="tensor",
    ):
        if len(shape) == 1:
            value = torch.ones(shape) if "norm" in name and name.endswith("weight") else None
            tensors[name] = (torch.zeros(shape) if value is None else value).to(dtype)
            continue
        scale = 0.02 if "embed_positions" in name else shape[1:].numel() ** -0.5
        tensors[name] = torch.randn(shape, generator=generator).mul_(scale).to(dtype)
    return tensors


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")


def _unet(widths: list[int], channels: int, cross: int, first_attends: bool) -> dict[str, Any]:
    down = ["CrossAttnDownBlock2D"] * len(widths)
    up = ["CrossAttnUpBlock2D"] * len(widths)
    if first_attends:  # SD 1.x: attention everywhere but in the deepest block
        down[-1], up[0] = "DownBlock2D", "UpBlock2D"
    else:  # compact: none at the widest resolution, where it is dearest
        down[0], up[-1] = "DownBlock2D", "UpBlock2D"
    return {
        "_class_name": "UNet2DConditionModel",
        "in_channels": 2 * channels,
        "out_channels": channels,
        "block_out_channels": widths,
        "down_block_types": down,
        "up_block_types": up,
        "cross_attention_dim": cross,
        "attention_head_dim": 8,
        "layers_per_block": 2 if first_attends else 1,
        "norm_num_groups": 32 if first_attends else 16,
        "sample_size": 64,
        "act_fn": "silu",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
    }


def _vae(widths: list[int], channels: int, patch: int, layers: int, groups: int) -> dict[str, Any]:
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": 3 * patch * patch,
        "out_channels": 3 * patch * patch,
        "latent_channels": channels,
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "layers_per_block": layers,
        "norm_num_groups": groups,
        "mid_block_add_attention": patch == 1,
        "sample_size": 256,
        "act_fn": "silu",
        "scaling_factor": 0.18215 if patch == 1 else 1.0,
    }


def _whisper(dim: int, layers: int, positions: int) -> dict[str, Any]:
    return {
        "model_type": "whisper",
        "num_mel_bins": 80,
        "d_model": dim,
        "encoder_layers": layers,
        "encoder_attention_heads": dim // 64 or 1,
        "encoder_ffn_dim": 4 * dim,
        "max_source_positions": positions,
    }


def _tiny(width: int, doublings: int) -> dict[str, Any]:
    return {
        "_class_name": "AutoencoderTiny",
        "latent_channels": 4,
        "encoder_block_out_channels": [width] * (doublings + 1),
        "decoder_block_out_channels": [width] * (doublings + 1),
        "num_encoder_blocks": [1, *[3] * doublings],
        "num_decoder_blocks": [*[3] * doublings, 1],
        "scaling_factor": 1.0,
    }


_PREPROCESSOR = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 80,
    "sampling_rate": 16_000,
    "hop_length": 160,
    "n_fft": 400,
    "chunk_length": 30,
}

_SHORT_WINDOW = {
    "crop_size": 256,
    "extra_margin": 10,
    "grid": {"block_positions": 5, "left_positions": 50, "right_positions": 10},
    "window_positions": 65,
    "decode_from_row": 7,
}

_ARCHITECTURES: dict[Size, dict[str, dict[str, Any]]] = {
    "full": {
        "unet": _unet([320, 640, 1280, 1280], 4, 384, first_attends=True),
        "vae": _vae([128, 256, 512, 512], 4, patch=1, layers=2, groups=32),
        "whisper": _whisper(384, 4, 1500),
        "tiny": _tiny(64, 3),
    },
    "compact": {
        "unet": _unet([64, 128, 192], 16, 192, first_attends=False),
        "vae": _vae([48, 64, 96], 16, patch=4, layers=1, groups=16),
        "whisper": _whisper(192, 4, 65),
        "extras": _SHORT_WINDOW,
    },
    "mini": {
        "unet": _unet([16, 32], 4, 32, first_attends=False),
        "vae": _vae([16, 16, 16], 4, patch=4, layers=1, groups=8),
        "whisper": _whisper(32, 2, 65),
        "tiny": _tiny(8, 4),
        "extras": _SHORT_WINDOW,
    },
}
