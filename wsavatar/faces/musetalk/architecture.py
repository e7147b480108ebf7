"""Builds a model's three networks from what their config files say, of any size.

It knows the classes. It does not know where configs come from or what weights go in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import nn
from transformers import WhisperConfig

from wsavatar.faces.musetalk.features import AudioEncoder
from wsavatar.faces.musetalk.layout import Part
from wsavatar.faces.musetalk.networks import patch_of

__all__ = ["build", "config_of"]


def build(part: Part, config: Mapping[str, Any]) -> nn.Module:
    """One network, its weights not yet meaningful. Raises whatever its class finds wrong."""
    if part == "whisper":
        return AudioEncoder(WhisperConfig(**config))
    if part == "vae":
        vae = AutoencoderKL.from_config(config)
        patch_of(vae)
        return cast("nn.Module", vae)
    if part == "tiny":
        return cast("nn.Module", AutoencoderTiny.from_config(config))
    return cast("nn.Module", UNet2DConditionModel.from_config(config))


def config_of(module: nn.Module) -> dict[str, Any]:
    """What a UNet or VAE was built from, defaults filled in."""
    return dict(cast("Mapping[str, Any]", module.config))
