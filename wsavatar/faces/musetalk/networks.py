"""The picture side of a model: crops to latents, and latents with a condition to pictures.

Plain torch modules around diffusers' UNet and VAE, with everything that never changes folded in,
so that one call (or one compiled graph) does a whole stage. They know no devices and no files.
"""

from __future__ import annotations

import math

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "CropEncoder",
    "FaceDecoder",
    "FaceGenerator",
    "fold_timestep",
    "patch_of",
    "scaling_of",
]


def patch_of(vae: AutoencoderKL) -> int:
    """The side p of the pixel blocks that the VAE takes as channels (1: plain RGB).

    Raises ValueError where in_channels is not 3 * p * p.
    """
    channels = int(vae.config["in_channels"])
    patch = math.isqrt(channels // 3)
    if channels != 3 * patch * patch or channels != int(vae.config["out_channels"]):
        raise ValueError(
            f"a VAE of {channels} channels takes no RGB picture (3 * p * p, in and out)"
        )
    return patch


class CropEncoder(nn.Module):
    """uint8 [n, S, S, 3] RGB -> [n, 2C, h, w]: latents of the crop masked, then as it is.

    The masked crop has its lower half at -1. The posterior's mode is taken where MuseTalk samples:
    the posterior of a trained VAE is so narrow that one cannot see it, and the mode makes a
    prepared avatar the same on every machine and every run.
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv
        self.patch = patch_of(vae)
        self.scaling, self.shift = scaling_of(vae)

    def forward(self, crops: Tensor) -> Tensor:
        dtype = next(self.encoder.parameters()).dtype
        pixels = crops.permute(0, 3, 1, 2).to(dtype) / 127.5 - 1.0
        upper = pixels[:, :, : pixels.shape[2] // 2]
        masked = torch.cat([upper, torch.full_like(upper, -1.0)], dim=2)
        return torch.cat([self._encode(masked), self._encode(pixels)], dim=1)

    def _encode(self, pixels: Tensor) -> Tensor:
        moments = self.encoder(F.pixel_unshuffle(pixels, self.patch))
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        mean: Tensor = moments.chunk(2, dim=1)[0]
        return (mean - self.shift) * self.scaling


class FaceDecoder(nn.Module):
    """latents [b, C, h, w] -> uint8 [b, S, S, 3] RGB.

    Latent rows above ``decode_from_row`` are not decoded, and their pixels are black. With ``tiny``
    that decodes instead of the VAE's decoder: it takes latents as the UNet makes them.
    """

    def __init__(
        self, vae: AutoencoderKL, decode_from_row: int = 0, tiny: AutoencoderTiny | None = None
    ) -> None:
        super().__init__()
        self.tiny = None if tiny is None else tiny.decoder
        self.decoder, self.post_quant_conv = vae.decoder, vae.post_quant_conv
        self.patch = patch_of(vae)
        self.scaling, self.shift = scaling_of(vae)
        self.decode_from_row = decode_from_row
        self.pixels_per_row = self.patch * 2 ** (len(vae.config["block_out_channels"]) - 1)

    def forward(self, latents: Tensor) -> Tensor:
        pixels = ((self.drawn(latents) + 1.0) * 127.5).clamp(0, 255).round().to(torch.uint8)
        above = self.decode_from_row * self.pixels_per_row
        return F.pad(pixels, (0, 0, above, 0)).permute(0, 2, 3, 1).contiguous()

    def drawn(self, latents: Tensor) -> Tensor:
        """The decoded rows alone, [b, 3, rows, S], about -1 to 1: differentiable."""
        latents = latents[:, :, self.decode_from_row :]
        if self.tiny is not None:
            made: Tensor = self.tiny(latents)
            return made
        latents = latents / self.scaling + self.shift
        if self.post_quant_conv is not None:
            latents = self.post_quant_conv(latents)
        return F.pixel_shuffle(self.decoder(latents), self.patch)


class FaceGenerator(nn.Module):
    """latents [b, 2C, h, w], condition [b, 10 * layers, dim] -> uint8 [b, S, S, 3] RGB.

    One step of the UNet at timestep 0, whose output is the latent itself; then `FaceDecoder`. Call
    `fold_timestep` on the UNet first.
    """

    timestep: Tensor

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        decode_from_row: int = 0,
        tiny: AutoencoderTiny | None = None,
    ) -> None:
        super().__init__()
        self.unet, self.decode = unet, FaceDecoder(vae, decode_from_row, tiny)
        # Lies on the device: from a number diffusers would copy it there at each call, and wait.
        self.register_buffer("timestep", torch.zeros((), dtype=torch.long), persistent=False)

    def forward(self, latents: Tensor, condition: Tensor) -> Tensor:
        pixels: Tensor = self.decode(self._predicted(latents, condition))
        return pixels

    def drawn(self, latents: Tensor, condition: Tensor) -> Tensor:
        """As `FaceDecoder.drawn`: differentiable."""
        return self.decode.drawn(self._predicted(latents, condition))

    def _predicted(self, latents: Tensor, condition: Tensor) -> Tensor:
        made: Tensor = self.unet(
            latents, self.timestep, encoder_hidden_states=condition, return_dict=False
        )[0]
        return made


@torch.no_grad()  # inference mode's tensors would not survive a move to another device
def fold_timestep(unet: UNet2DConditionModel) -> None:
    """Fold the embedding of timestep 0 into the biases it is added to, and drop its layers.

    MuseTalk runs its UNet at timestep 0 only, so what each block adds for it is a constant.
    """
    embedding = unet.time_embedding(
        unet.time_proj(torch.zeros(1, device=unet.device)).to(unet.dtype)
    )
    for block in unet.modules():
        if not isinstance(block, ResnetBlock2D) or block.time_emb_proj is None:
            continue
        if block.time_embedding_norm != "default":
            raise ValueError(f"time_embedding_norm {block.time_embedding_norm!r} cannot be folded")
        added = block.time_emb_proj(block.nonlinearity(embedding))[0]
        block.conv1.bias = nn.Parameter(block.conv1.bias + added, requires_grad=False)
        block.time_emb_proj = None
    unet.time_embedding = _NoTimestep()


class _NoTimestep(nn.Module):
    def forward(self, sample: Tensor, condition: Tensor | None = None) -> None:
        return None


def scaling_of(vae: AutoencoderKL) -> tuple[float, float]:
    """The VAE's scaling and shift: latents are (mean - shift) * scaling."""
    shift = vae.config.get("shift_factor")
    return float(vae.config["scaling_factor"]), 0.0 if shift is None else float(shift)
