"""MuseTalk's UNet and the VAE's decoder, rebuilt from diffusers' modules for one pass a thing.

The same arithmetic in fewer, larger steps, for devices where memory is the bottleneck:

* pictures stay in channels_last memory from the first convolution to the last pixel;
* group norm and SiLU are one step, layer norm and GEGLU too (`wsavatar.musetalk.kernels`), and a
  convolution's bias is added where its output is read next;
* nearest-neighbour upsampling and the 3x3 convolution behind it are one 2x2 convolution on the
  small picture: of the nine taps, those that fall on the same source pixel are summed beforehand,
  which leaves four of nine multiplications;
* keys and values of every cross-attention come from one matrix product, self-attention's queries,
  keys and values from one each; residuals are added inside the product that makes the other term;
* the VAE's scaling and its 1x1 ``post_quant_conv`` are folded into its first convolution (beside
  the latent stands a channel of ones, so that the folded bias ends at the border as it should).

`fuse` takes the modules over: it shares what needs no new layout, and says with `UnfusableError`
what in an architecture it does not know. This room knows no devices, batches or files.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from wsavatar.musetalk import kernels
from wsavatar.musetalk.networks import patch_of, scaling_of

__all__ = ["FusedFaces", "UnfusableError", "upsampling_kernel"]

_LANES = 8
"""Channels are padded to a multiple of this: tensor cores take no fewer."""
_SMALL_PICTURE = 64
_FEW_PIXELS = 512
"""Up to so many pixels in a picture and in a batch, a 3x3 convolution is one matrix product."""


class UnfusableError(ValueError):
    """The architecture has a part that this room does not know; the message names it."""


class FusedFaces(nn.Module):
    """latents [b, 2C, h, w], condition [b, tokens, dim] -> uint8 [b, S, S, 3] RGB.

    What `wsavatar.musetalk.networks.FaceGenerator` computes, up to rounding. The UNet's timestep
    must have been folded. Raises UnfusableError.
    """

    def __init__(
        self, unet: UNet2DConditionModel, vae: AutoencoderKL, decode_from_row: int = 0
    ) -> None:
        super().__init__()
        self.unet = _UNet(unet, scaling=scaling_of(vae))
        self.decoder = _Decoder(vae)
        self.decode_from_row = decode_from_row

    def forward(self, latents: Tensor, condition: Tensor) -> Tensor:
        made = self.unet(latents, condition)
        above = self.decode_from_row
        pixels: Tensor = self.decoder(made[:, :, above:] if above else made)
        rows = above * (pixels.shape[1] // (made.shape[2] - above))
        return F.pad(pixels, (0, 0, 0, 0, rows, 0)) if rows else pixels


class _UNet(nn.Module):
    """latents [b, 2C, h, w], condition -> [b, 8 n, h, w]: the VAE's input, a channel of ones."""

    def __init__(self, unet: UNet2DConditionModel, scaling: tuple[float, float]) -> None:
        super().__init__()
        config = unet.config
        _require(not config["center_input_sample"], "center_input_sample")
        _require(config["encoder_hid_dim"] is None, "encoder_hid_dim")
        _require(config["act_fn"] == "silu", f"act_fn {config['act_fn']}")
        self.attentions: list[_Transformer] = []
        self.conv_in = _Conv(unet.conv_in)
        self.down = nn.ModuleList(self._level(block) for block in unet.down_blocks)
        mid = unet.mid_block
        _require(len(mid.resnets) == len(mid.attentions) + 1, "mid_block")
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
        self.up = nn.ModuleList(self._level(block) for block in unet.up_blocks)
        self.norm_out = _GroupNorm(unet.conv_norm_out)
        self.conv_out = _to_vae_input(unet.conv_out, *scaling)
        # All keys and values that any block asks of the condition, in one product.
        weights = [a.take_condition_weight() for a in self.attentions]
        self.kv_weight = _constant(torch.cat(weights).t().contiguous())
        self.kv_widths = [len(weight) for weight in weights]

    def _level(self, block: nn.Module) -> nn.Module:
        attentions = list(getattr(block, "attentions", [])) or [None] * len(block.resnets)
        samplers = list(getattr(block, "downsamplers", None) or [])
        samplers += list(getattr(block, "upsamplers", None) or [])
        _require(len(samplers) <= 1, "several samplers a block")
        level = nn.Module()
        level.stages = nn.ModuleList(
            self._stage(resnet, attention)
            for resnet, attention in zip(block.resnets, attentions, strict=True)
        )
        level.sampler = _sampler(samplers[0]) if samplers else None
        return level

    def _stage(self, resnet: nn.Module, attention: nn.Module | None) -> nn.Module:
        if attention is None:
            return _Stage(_Resnet(resnet), None)
        transformer = _Transformer(attention)
        self.attentions.append(transformer)
        return _Stage(_Resnet(resnet, transformer.output_bias), transformer)

    def forward(self, latents: Tensor, condition: Tensor) -> Tensor:
        tokens = condition.shape[1]
        kv = (condition.flatten(0, 1) @ self.kv_weight).split(self.kv_widths, dim=1)
        for attention, own in zip(self.attentions, kv, strict=True):
            attention.condition = own.unflatten(0, (-1, tokens))
        x = self.conv_in(latents.contiguous(memory_format=torch.channels_last))
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
        return self.conv_out(self.norm_out(x, silu=True))


class _Decoder(nn.Module):
    """What `_UNet` gives, any rows of it -> uint8 [b, height, width, 3]."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        decoder = vae.decoder
        self.patch = patch_of(vae)
        self.conv_in = _from_vae_input(decoder.conv_in, vae.post_quant_conv)
        mid = decoder.mid_block
        _require(len(mid.resnets) == 2, "decoder.mid_block")
        steps: list[nn.Module] = [_Resnet(mid.resnets[0])]
        steps += [_PictureAttention(attention) for attention in mid.attentions if attention]
        steps.append(_Resnet(mid.resnets[1]))
        for block in decoder.up_blocks:
            steps += [_Resnet(resnet) for resnet in block.resnets]
            steps += [_sampler(sampler) for sampler in block.upsamplers or []]
        self.steps = nn.ModuleList(steps)
        self.norm_out = _GroupNorm(decoder.conv_norm_out)
        self.out_bias = _constant(decoder.conv_out.bias)
        self.conv_out = _Conv(_padded_output(decoder.conv_out), with_bias=False)

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


class _Stage(nn.Module):
    """A resnet block and, where there is one, the transformer behind it."""

    def __init__(self, resnet: _Resnet, transformer: _Transformer | None) -> None:
        super().__init__()
        self.resnet, self.transformer = resnet, transformer

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.resnet(x)
        return x if self.transformer is None else self.transformer(x)


class _Resnet(nn.Module):
    """norm, SiLU, convolution, twice, and the way around. ``extra_bias`` is added at the end."""

    def __init__(self, block: nn.Module, extra_bias: Tensor | None = None) -> None:
        super().__init__()
        _require(isinstance(block, ResnetBlock2D), type(block).__name__)
        _require(block.time_emb_proj is None, "a timestep that was not folded")
        _require(block.time_embedding_norm in ("default", "group"), "time_embedding_norm")
        _require(block.output_scale_factor == 1, "output_scale_factor")
        _require(block.upsample is None and block.downsample is None, "a resampling resnet")
        self.norm1, self.norm2 = _GroupNorm(block.norm1), _GroupNorm(block.norm2)
        self.conv1 = _Conv(block.conv1, with_bias=False)
        self.conv2 = _Conv(block.conv2, with_bias=False)
        self.bias1 = _constant(block.conv1.bias)
        bias = block.conv2.bias.float()
        self.shortcut: Tensor | None = None
        if block.conv_shortcut is not None:
            _require(block.conv_shortcut.kernel_size == (1, 1), "a wide conv_shortcut")
            self.shortcut = _constant(block.conv_shortcut.weight.flatten(1).t())
            bias = bias + block.conv_shortcut.bias.float()
        if extra_bias is not None:
            bias = bias + extra_bias
        self.bias = _constant(bias.to(block.conv2.bias.dtype))

    def forward(self, x: Tensor, sums: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The result, and its channel sums where it is large; ``sums`` are x's."""
        h = self._convolve(self.conv1, self.norm1, x, sums=sums)
        h = self._convolve(self.conv2, self.norm2, h, offset=self.bias1)
        around = x if self.shortcut is None else _at_pixels(x, self.shortcut)
        return kernels.add(h, around, self.bias)

    @staticmethod
    def _convolve(
        conv: _Conv,
        norm: _GroupNorm,
        x: Tensor,
        *,
        offset: Tensor | None = None,
        sums: Tensor | None = None,
    ) -> Tensor:
        b, _, h, w = x.shape
        normed = norm(x, silu=True, offset=offset, sums=sums)
        if h * w <= _SMALL_PICTURE and b * h * w <= _FEW_PIXELS:
            return _pictures(kernels.columns(normed) @ conv.matrix, x)
        return conv(normed)


class _Transformer(nn.Module):
    """Norm, projection, one block of self-attention, cross-attention and GEGLU, projection back.

    Its input already holds `output_bias`, all that its own products' biases come to in the end:
    the resnet before it adds them in passing. ``condition`` is set before each call: keys beside
    values, [b, tokens, 2 c].
    """

    condition: Tensor

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        _require(isinstance(block, Transformer2DModel), type(block).__name__)
        _require(len(block.transformer_blocks) == 1, "several transformer blocks")
        inner = block.transformer_blocks[0]
        _require(inner.norm_type == "layer_norm", f"norm_type {inner.norm_type}")
        _require(not inner.only_cross_attention and inner.pos_embed is None, "transformer block")
        self.heads = inner.attn1.heads
        self.norm = _GroupNorm(block.norm)
        self.proj_in = _constant(block.proj_in.weight.flatten(1).t())
        self.norm1, self.norm2, self.norm3 = map(
            _LayerNorm, (inner.norm1, inner.norm2, inner.norm3)
        )
        own, other = inner.attn1, inner.attn2
        for linear in (own.to_q, own.to_k, own.to_v, other.to_q, other.to_k, other.to_v):
            _require(linear.bias is None, "attention with biases")
        self.qkv = _constant(torch.cat([own.to_q.weight, own.to_k.weight, own.to_v.weight]).t())
        self.out1 = _constant(own.to_out[0].weight.t())
        self.query = _constant(other.to_q.weight.t())
        self._condition_weight = torch.cat([other.to_k.weight, other.to_v.weight])
        self.out2 = _constant(other.to_out[0].weight.t())
        gate, _, back = inner.ff.net
        _require(type(gate).__name__ == "GEGLU", type(gate).__name__)
        self.ff_in, self.ff_bias = _constant(gate.proj.weight.t()), _constant(gate.proj.bias)
        self.ff_out = _constant(back.weight.t())
        # Biases of the products that add to the same rows, in the order they join.
        dtype = back.bias.dtype
        pending = block.proj_in.bias.float()
        self.offset1 = _constant(pending.to(dtype))
        pending = pending + own.to_out[0].bias.float()
        self.offset2 = _constant(pending.to(dtype))
        pending = pending + other.to_out[0].bias.float()
        self.offset3 = _constant(pending.to(dtype))
        pending = pending + back.bias.float()
        weight = block.proj_out.weight.flatten(1)
        self.proj_out = _constant(weight.t())
        self.output_bias = weight.float() @ pending + block.proj_out.bias.float()
        self.offset = _constant(-self.output_bias.to(dtype))

    def take_condition_weight(self) -> Tensor:
        weight, self._condition_weight = self._condition_weight, torch.empty(0)
        return weight

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        normed = self.norm(x, silu=False, offset=self.offset)
        rows = _rows(normed) @ self.proj_in
        qkv = (self.norm1(rows, self.offset1) @ self.qkv).unflatten(0, (b, h * w)).chunk(3, dim=2)
        rows.addmm_(self._attend(*qkv), self.out1)
        query = (self.norm2(rows, self.offset2) @ self.query).unflatten(0, (b, h * w))
        rows.addmm_(self._attend(query, *self.condition.chunk(2, dim=2)), self.out2)
        gated = kernels.geglu(self.norm3(rows, self.offset3) @ self.ff_in, self.ff_bias)
        rows.addmm_(gated, self.ff_out)
        _rows(x).addmm_(rows, self.proj_out)
        return x

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[b, n, c], [b, m, c], [b, m, c] -> rows [b * n, c]."""
        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (query, key, value))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).flatten(0, 1)


class _PictureAttention(nn.Module):
    """The VAE's attention over all its pixels: one wide head, so products and a softmax."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        _require(block.heads == 1 and block.residual_connection, "the VAE's attention")
        _require(block.rescale_output_factor == 1, "rescale_output_factor")
        self.norm = _GroupNorm(block.group_norm)
        linears = block.to_q, block.to_k, block.to_v
        self.qkv = _constant(torch.cat([linear.weight for linear in linears]).t())
        self.qkv_bias = _constant(torch.cat([linear.bias for linear in linears]))
        self.out = _constant(block.to_out[0].weight.t())
        self.bias = _constant(block.to_out[0].bias)

    def forward(self, x: Tensor, sums: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        b, c, h, w = x.shape
        rows = torch.addmm(self.qkv_bias, _rows(self.norm(x, silu=False, sums=sums)), self.qkv)
        q, k, v = rows.unflatten(0, (b, h * w)).chunk(3, dim=2)
        scores = torch.baddbmm(
            q.new_zeros(()), q, k.transpose(1, 2), beta=0, alpha=float(c) ** -0.5
        )
        seen = torch.bmm(scores.softmax(dim=2), v).flatten(0, 1)
        return kernels.add(_pictures(seen @ self.out, x), x, self.bias)


class _Upsample(nn.Module):
    """Twice the size by nearest neighbours, then a 3x3 convolution."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        _require(block.use_conv and not block.use_conv_transpose, "an upsampler without conv")
        _require(block.norm is None and block.conv.kernel_size == (3, 3), "upsampler")
        weight = upsampling_kernel(block.conv.weight)
        self.weight = _constant(weight.contiguous(memory_format=torch.channels_last))
        self.bias = _constant(block.conv.bias)

    def forward(self, x: Tensor, sums: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return kernels.unfold_phases(F.conv2d(x, self.weight, padding=1), self.bias)


class _Conv(nn.Module):
    """A convolution whose weight lies channels_last."""

    def __init__(self, conv: nn.Conv2d, *, with_bias: bool = True) -> None:
        super().__init__()
        self.weight = _constant(conv.weight.contiguous(memory_format=torch.channels_last))
        self.bias = _constant(conv.bias) if with_bias else None
        self.stride, self.padding = conv.stride, conv.padding

    @property
    def matrix(self) -> Tensor:
        """The same weights for `kernels.columns`: [9 in, out], the same memory."""
        return self.weight.permute(0, 2, 3, 1).flatten(1).t()

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class _GroupNorm(nn.Module):
    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        _require(isinstance(norm, nn.GroupNorm), type(norm).__name__)
        self.weight, self.bias = _constant(norm.weight), _constant(norm.bias)
        self.groups, self.eps = norm.num_groups, norm.eps

    def forward(
        self,
        x: Tensor,
        *,
        silu: bool,
        offset: Tensor | None = None,
        sums: Tensor | None = None,
    ) -> Tensor:
        return kernels.group_norm(
            x, self.weight, self.bias, self.groups, self.eps, silu=silu, offset=offset, sums=sums
        )


class _LayerNorm(nn.Module):
    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = _constant(norm.weight), _constant(norm.bias), norm.eps

    def forward(self, rows: Tensor, offset: Tensor) -> Tensor:
        return kernels.layer_norm(rows, self.weight, self.bias, self.eps, offset)


def upsampling_kernel(weight: Tensor) -> Tensor:
    """[out, in, 3, 3] behind nearest upsampling -> [4 out, in, 2, 2] on the small picture.

    Phase 0 of an axis sees source pixels i - 1 (one tap) and i (two), phase 1 sees i (two) and
    i + 1 (one). Sums are float32, rounded once.
    """

    def pairs(w: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        first, second, third = w.unbind(dim)
        return (
            torch.stack([first, second + third], dim),
            torch.stack([first + second, third], dim),
        )

    phases = [both for rows in pairs(weight.float(), 2) for both in pairs(rows, 3)]
    return torch.cat(phases).to(weight.dtype)


def _to_vae_input(conv: nn.Conv2d, scaling: float, shift: float) -> _Conv:
    """The UNet's last convolution, giving z / scaling + shift, a channel of ones, and zeros."""
    channels = conv.out_channels
    wide = _padded_output(conv, spare=1)
    wide.weight[:channels] /= scaling
    wide.bias[:channels] = wide.bias[:channels] / scaling + shift
    wide.bias[channels] = 1.0
    return _Conv(wide)


def _from_vae_input(conv: nn.Conv2d, before: nn.Conv2d | None) -> _Conv:
    """The decoder's first convolution with ``post_quant_conv`` folded in, for that input."""
    channels = conv.in_channels
    weight = conv.weight.float()
    inputs = -(-(channels + 1) // _LANES) * _LANES
    wide = nn.Conv2d(inputs, conv.out_channels, conv.kernel_size, conv.stride, conv.padding)
    wide.requires_grad_(False).to(weight)
    wide.weight.zero_()
    if before is None:
        wide.weight[:, :channels] = weight
    else:
        mix = before.weight.float().flatten(1)
        wide.weight[:, :channels] = torch.einsum("omhw,mi->oihw", weight, mix)
        wide.weight[:, channels] = torch.einsum("omhw,m->ohw", weight, before.bias.float())
    wide.bias.copy_(conv.bias)
    return _Conv(wide.to(conv.weight.dtype))


def _padded_output(conv: nn.Conv2d, spare: int = 0) -> nn.Conv2d:
    """The same convolution with output channels of zeros up to a multiple of eight."""
    outputs = -(-(conv.out_channels + spare) // _LANES) * _LANES
    wide = nn.Conv2d(conv.in_channels, outputs, conv.kernel_size, conv.stride, conv.padding)
    wide.requires_grad_(False).to(conv.weight)
    wide.weight.zero_()
    wide.bias.zero_()
    wide.weight[: conv.out_channels] = conv.weight
    wide.bias[: conv.out_channels] = conv.bias
    return wide


def _sampler(block: Any) -> nn.Module:
    if type(block).__name__ == "Upsample2D":
        return _Upsample(block)
    _require(type(block).__name__ == "Downsample2D", type(block).__name__)
    _require(block.use_conv and block.padding == 1 and block.norm is None, "downsampler")
    return _Conv(block.conv)


def _at_pixels(x: Tensor, weight: Tensor) -> Tensor:
    """A 1x1 convolution as one product: [b, c, h, w], [c, d] -> [b, d, h, w]."""
    return _pictures(_rows(x) @ weight, x)


def _rows(x: Tensor) -> Tensor:
    """[b, c, h, w] in channels_last memory -> [b * h * w, c], the same memory."""
    return x.permute(0, 2, 3, 1).view(-1, x.shape[1])


def _pictures(rows: Tensor, like: Tensor) -> Tensor:
    b, _, h, w = like.shape
    return rows.view(b, h, w, rows.shape[1]).permute(0, 3, 1, 2)


def _constant(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach(), requires_grad=False)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise UnfusableError(f"cannot fuse this model: {what} is not known here")
