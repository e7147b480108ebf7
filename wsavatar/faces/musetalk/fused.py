"""MuseTalk's UNet and the VAE's decoder, rebuilt from diffusers' modules for one pass a thing.

The same arithmetic in fewer, larger steps, for devices where memory is the bottleneck; the steps
are in `wsavatar.faces.musetalk.fused_blocks`. Here is how they follow each other, and what is done
once for all of them:

* pictures stay in channels_last memory from the first convolution to the last pixel;
* keys and values of every cross-attention come from one matrix product;
* the VAE's scaling and its 1x1 ``post_quant_conv`` are folded into the convolutions on both sides
  (beside the latent stands a channel of ones, so that the folded bias ends at the border as it
  should).

`FusedFaces` takes the modules over: it shares what needs no new layout, and says with
`UnfusableError` what in an architecture it does not know. This module knows no devices or files.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2DCrossAttn, UpDecoderBlock2D
from torch import Tensor, nn
from torch.nn import functional as F

from wsavatar.faces.musetalk import kernels
from wsavatar.faces.musetalk.fused_blocks import (
    Conv,
    GroupNorm,
    PictureAttention,
    Resnet,
    Stage,
    Transformer,
    UnfusableError,
    constant,
    from_vae_input,
    padded_output,
    require,
    resampling,
    to_vae_input,
)
from wsavatar.faces.musetalk.networks import patch_of, scaling_of

__all__ = ["FusedFaces", "UnfusableError"]


class FusedFaces(nn.Module):
    """latents [b, 2C, h, w], condition [b, tokens, dim] -> uint8 [b, S, S, 3] RGB.

    What `wsavatar.faces.musetalk.networks.FaceGenerator` computes, up to rounding, for latents
    whose sides are ``latent_size``. The UNet's timestep must have been folded. Raises
    UnfusableError.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        latent_size: int,
        decode_from_row: int = 0,
        tiny: AutoencoderTiny | None = None,
    ) -> None:
        super().__init__()
        step = 2 ** (len(unet.down_blocks) - 1)
        # An odd picture halves to one that does not double to its size again.
        require(latent_size % step == 0, f"a latent size of {latent_size}, no multiple of {step},")
        self.unet = _UNet(unet, scaling=scaling_of(vae) if tiny is None else (1.0, 0.0))
        self.decoder = _Decoder(vae) if tiny is None else _TinyDecoder(tiny)
        self.decode_from_row = decode_from_row

    def forward(self, latents: Tensor, condition: Tensor) -> Tensor:
        made = self.unet(latents, condition)
        above = self.decode_from_row
        pixels: Tensor = self.decoder(made[:, :, above:] if above else made)
        rows = above * (pixels.shape[1] // (made.shape[2] - above))
        return F.pad(pixels, (0, 0, 0, 0, rows, 0)) if rows else pixels


class _Level(nn.Module):
    """What `_UNet` does at one size: its stages and, but for the last, the way to the next size."""

    stages: nn.ModuleList
    sampler: nn.Module | None


class _UNet(nn.Module):
    """latents [b, 2C, h, w], condition -> [b, 8 n, h, w]: the VAE's input, a channel of ones."""

    # Both are an nn.ModuleList, which does not say of what.
    down: Iterable[_Level]
    up: Iterable[_Level]

    def __init__(self, unet: UNet2DConditionModel, scaling: tuple[float, float]) -> None:
        super().__init__()
        config = unet.config
        require(not config["center_input_sample"], "center_input_sample")
        require(config["encoder_hid_dim"] is None, "encoder_hid_dim")
        require(config["act_fn"] == "silu", f"act_fn {config['act_fn']}")
        self.attentions: list[Transformer] = []
        self.conv_in = Conv(unet.conv_in)
        down = nn.ModuleList(self._level(block) for block in unet.down_blocks)
        self.down = cast("Iterable[_Level]", down)
        mid = unet.mid_block
        require(isinstance(mid, UNetMidBlock2DCrossAttn), f"mid_block {type(mid).__name__}")
        self.mid = nn.ModuleList(
            [
                self._stage(mid.resnets[0], mid.attentions[0]),
                *(
                    self._stage(resnet, attention)
                    for resnet, attention in zip(
                        mid.resnets[1:], [*mid.attentions[1:], None], strict=True
                    )
                ),
            ]
        )
        up = nn.ModuleList(self._level(block) for block in unet.up_blocks)
        self.up = cast("Iterable[_Level]", up)
        self.norm_out = GroupNorm(unet.conv_norm_out)
        self.conv_out = to_vae_input(unet.conv_out, *scaling)
        # All keys and values that any block asks of the condition, in one product.
        weights = [a.take_condition_weight() for a in self.attentions]
        self.kv_weight = constant(torch.cat(weights).t().contiguous())
        self.kv_widths = [len(weight) for weight in weights]

    def _level(self, block: Any) -> _Level:
        attentions = list(getattr(block, "attentions", [])) or [None] * len(block.resnets)
        samplers = list(getattr(block, "downsamplers", None) or [])
        samplers += list(getattr(block, "upsamplers", None) or [])
        require(len(samplers) <= 1, "several samplers a block")
        level = _Level()
        level.stages = nn.ModuleList(
            self._stage(resnet, attention)
            for resnet, attention in zip(block.resnets, attentions, strict=True)
        )
        level.sampler = resampling(samplers[0]) if samplers else None
        return level

    def _stage(self, resnet: Any, attention: Any) -> Stage:
        if attention is None:
            return Stage(Resnet(resnet), None)
        transformer = Transformer(attention)
        self.attentions.append(transformer)
        return Stage(Resnet(resnet, transformer.output_bias), transformer)

    def forward(self, latents: Tensor, condition: Tensor) -> Tensor:
        tokens = condition.shape[1]
        kv = (condition.flatten(0, 1) @ self.kv_weight).split(self.kv_widths, dim=1)
        for attention, own in zip(self.attentions, kv, strict=True):
            attention.condition = own.unflatten(0, (-1, tokens))
        x: Tensor = self.conv_in(latents.contiguous(memory_format=torch.channels_last))
        skips = [x]
        for level in self.down:
            for stage in level.stages:
                x = stage(x)
                skips.append(x)
            if level.sampler is not None:
                x = level.sampler(x)
                skips.append(x)
        for stage in self.mid:
            x = stage(x)
        for level in self.up:
            for stage in level.stages:
                x = stage(torch.cat([x, skips.pop()], dim=1))
            if level.sampler is not None:
                x, _ = level.sampler(x)
        made: Tensor = self.conv_out(self.norm_out(x, silu=True))
        return made


class _Decoder(nn.Module):
    """What `_UNet` gives, any rows of it -> uint8 [b, height, width, 3]."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        decoder = vae.decoder
        self.patch = patch_of(vae)
        self.conv_in = from_vae_input(decoder.conv_in, vae.post_quant_conv)
        mid = decoder.mid_block
        require(len(mid.resnets) == 2, "decoder.mid_block")
        steps: list[nn.Module] = [Resnet(mid.resnets[0])]
        steps += [PictureAttention(attention) for attention in mid.attentions if attention]
        steps.append(Resnet(mid.resnets[1]))
        for block in decoder.up_blocks:
            require(isinstance(block, UpDecoderBlock2D), type(block).__name__)
            steps += [Resnet(resnet) for resnet in block.resnets]
            steps += [resampling(sampler) for sampler in block.upsamplers or []]
        self.steps = nn.ModuleList(steps)
        self.norm_out = GroupNorm(decoder.conv_norm_out)
        self.out_bias = constant(decoder.conv_out.bias)
        self.conv_out = Conv(padded_output(decoder.conv_out), with_bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x.contiguous(memory_format=torch.channels_last))
        sums = None
        for step in self.steps:
            x, sums = step(x, sums)
        x = self.conv_out(self.norm_out(x, silu=True, sums=sums))
        if self.patch == 1:
            return kernels.to_pixels(x, self.out_bias)
        x = x[:, : len(self.out_bias)] + self.out_bias[:, None, None]
        x = F.pixel_shuffle(x, self.patch)
        return kernels.to_pixels(
            x.contiguous(memory_format=torch.channels_last), torch.zeros_like(self.out_bias[:3])
        )


class _TinyDecoder(nn.Module):
    """A decoder of plain convolutions as it is, on the UNet's padded latents."""

    def __init__(self, tiny: AutoencoderTiny) -> None:
        super().__init__()
        self.channels = int(tiny.config["latent_channels"])
        self.decoder = tiny.decoder.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.decoder(x[:, : self.channels])
        return kernels.to_pixels(
            pixels.contiguous(memory_format=torch.channels_last), pixels.new_zeros(3)
        )
