"""What OpenVINO converts of a model: its stages as modules of torch, with examples of their inputs.

Importing it imports torch, diffusers and transformers, which takes seconds.
"""

from __future__ import annotations

import torch

from wsavatar.faces.musetalk.checkpoint import LoadedModules
from wsavatar.faces.musetalk.features import LogMel
from wsavatar.faces.musetalk.networks import CropEncoder, FaceGenerator, fold_timestep
from wsavatar.faces.musetalk.openvino_backend import StageSource

__all__ = ["stage_sources"]


def stage_sources(modules: LoadedModules) -> list[StageSource]:
    """The stages of a model in float32, by name. Changes the modules."""
    spec, size = modules.spec, modules.spec.latent_size
    fold_timestep(modules.unet)
    samples = modules.extras.window_positions * spec.grid.position_samples
    mel = LogMel(modules.audio.config.num_mel_bins)
    audio = torch.zeros(2, samples)
    crops = torch.zeros(2, spec.crop_size, spec.crop_size, 3, dtype=torch.uint8)
    latents = torch.zeros(2, 2 * spec.latent_channels, size, size)
    condition = torch.zeros(2, spec.grid.frame_positions * spec.layers, spec.dim)
    faces = FaceGenerator(modules.unet, modules.vae, spec.decode_from_row, modules.tiny)
    return [
        StageSource("mel", mel, (audio,)),
        StageSource("encoder", modules.audio, (mel(audio),)),
        StageSource("crops", CropEncoder(modules.vae), (crops,)),
        StageSource("redraw", faces.decode, (latents[:, : spec.latent_channels],)),
        StageSource("faces", faces, (latents, condition)),
    ]
