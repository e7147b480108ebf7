"""The blocks of MuseTalk's UNet and of the VAE's decoder, each in as few passes as it takes.

* Group norm and SiLU are one step, layer norm and GEGLU too (`wsavatar.faces.musetalk.kernels`),
  and a convolution's bias is added where its output is read next.
* Nearest-neighbour upsampling and the 3x3 convolution behind it are one 2x2 convolution on the
  small picture: of the nine taps, those that fall on the same source pixel are summed beforehand,
  which leaves four of nine multiplications.
* Self-attention's queries, keys and values come from one product; residuals are added inside the
  product that makes the other term; biases of products that add to the same rows wait for whoever
  reads the rows.
* On a picture of few pixels a 3x3 convolution is one matrix product.

This module knows single blocks, not how they follow each other.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from wsavatar.errors import WsavatarError
from wsavatar.faces.musetalk import kernels

__all__ = [
    "Conv",
    "GroupNorm",
    "PictureAttention",
    "Resnet",
    "Stage",
    "Transformer",
    "UnfusableError",
    "bias_of",
    "constant",
    "from_vae_input",
    "padded_output",
    "require",
    "resampling",
    "to_vae_input",
    "upsampling_kernel",
]

_LANES = 8
"""Channels are padded to a multiple of this: tensor cores take no fewer."""
_SMALL_PICTURE = 64
_FEW_PIXELS = 512
"""Up to so many pixels in a picture and in a batch, a 3x3 convolution is one matrix product."""


class UnfusableError(WsavatarError, ValueError):
    """The architecture has a part that this module does not know; the message names it."""


class Stage(nn.Module):
    """A resnet block and, where there is one, the transformer behind it."""

    def __init__(self, resnet: Resnet, transformer: Transformer | None) -> None:
        super().__init__()
        self.resnet, self.transformer = resnet, transformer

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.resnet(x)
        return x if self.transformer is None else self.transformer(x)


class Resnet(nn.Module):
    """norm, SiLU, convolution, twice, and the way around. ``extra_bias`` is added at the end."""

    def __init__(self, block: Any, extra_bias: Tensor | None = None) -> None:
        super().__init__()
        require(isinstance(block, ResnetBlock2D), type(block).__name__)
        require(block.time_emb_proj is None, "a timestep that was not folded")
        require(block.time_embedding_norm in ("default", "group"), "time_embedding_norm")
        require(block.output_scale_factor == 1, "output_scale_factor")
        activation = type(block.nonlinearity).__name__
        require(isinstance(block.nonlinearity, nn.SiLU), f"a resnet's activation {activation}")
        require(block.upsample is None and block.downsample is None, "a resampling resnet")
        self.norm1, self.norm2 = GroupNorm(block.norm1), GroupNorm(block.norm2)
        self.conv1 = Conv(block.conv1, with_bias=False)
        self.conv2 = Conv(block.conv2, with_bias=False)
        self.bias1 = constant(block.conv1.bias)
        bias = block.conv2.bias.float()
        self.shortcut: Tensor | None = None
        if block.conv_shortcut is not None:
            require(block.conv_shortcut.kernel_size == (1, 1), "a wide conv_shortcut")
            self.shortcut = constant(block.conv_shortcut.weight.flatten(1).t())
            bias = bias + block.conv_shortcut.bias.float()
        if extra_bias is not None:
            bias = bias + extra_bias
        self.bias = constant(bias.to(block.conv2.bias.dtype))

    def forward(self, x: Tensor, sums: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The result, and its channel sums where it is large; ``sums`` are x's."""
        h = self._convolve(self.conv1, self.norm1, x, sums=sums)
        h = self._convolve(self.conv2, self.norm2, h, offset=self.bias1)
        around = x if self.shortcut is None else _at_pixels(x, self.shortcut)
        return kernels.add(h, around, self.bias)

    @staticmethod
    def _convolve(
        conv: Conv,
        norm: GroupNorm,
        x: Tensor,
        *,
        offset: Tensor | None = None,
        sums: Tensor | None = None,
    ) -> Tensor:
        b, _, h, w = x.shape
        normed = norm(x, silu=True, offset=offset, sums=sums)
        if h * w <= _SMALL_PICTURE and b * h * w <= _FEW_PIXELS:
            return _pictures(kernels.columns(normed) @ conv.matrix, x)
        made: Tensor = conv(normed)
        return made


class Transformer(nn.Module):
    """Norm, projection, one block of self-attention, cross-attention and GEGLU, projection back.

    Its input already holds `output_bias`, all that its own products' biases come to in the end:
    the resnet before it adds them in passing. ``condition`` is set before each call: keys beside
    values, [b, tokens, 2 c].
    """

    condition: Tensor

    def __init__(self, block: Any) -> None:
        super().__init__()
        require(isinstance(block, Transformer2DModel), type(block).__name__)
        require(len(block.transformer_blocks) == 1, "several transformer blocks")
        inner = block.transformer_blocks[0]
        require(inner.norm_type == "layer_norm", f"norm_type {inner.norm_type}")
        require(not inner.only_cross_attention and inner.pos_embed is None, "transformer block")
        self.heads = inner.attn1.heads
        self.norm = GroupNorm(block.norm)
        self.proj_in = constant(block.proj_in.weight.flatten(1).t())
        self.norm1, self.norm2, self.norm3 = map(LayerNorm, (inner.norm1, inner.norm2, inner.norm3))
        own, other = inner.attn1, inner.attn2
        for linear in (own.to_q, own.to_k, own.to_v, other.to_q, other.to_k, other.to_v):
            require(linear.bias is None, "attention with biases")
        require(other.norm_cross is None, "cross_attention_norm")
        self.qkv = constant(torch.cat([own.to_q.weight, own.to_k.weight, own.to_v.weight]).t())
        self.out1 = constant(own.to_out[0].weight.t())
        self.query = constant(other.to_q.weight.t())
        self._condition_weight = torch.cat([other.to_k.weight, other.to_v.weight])
        self.out2 = constant(other.to_out[0].weight.t())
        gate, _, back = inner.ff.net
        require(type(gate).__name__ == "GEGLU", type(gate).__name__)
        self.ff_in, self.ff_bias = constant(gate.proj.weight.t()), constant(gate.proj.bias)
        self.ff_out = constant(back.weight.t())
        # Biases of the products that add to the same rows, in the order they join.
        dtype = back.bias.dtype
        pending = block.proj_in.bias.float()
        self.offset1 = constant(pending.to(dtype))
        pending = pending + own.to_out[0].bias.float()
        self.offset2 = constant(pending.to(dtype))
        pending = pending + other.to_out[0].bias.float()
        self.offset3 = constant(pending.to(dtype))
        pending = pending + back.bias.float()
        weight = block.proj_out.weight.flatten(1)
        self.proj_out = constant(weight.t())
        self.output_bias = weight.float() @ pending + block.proj_out.bias.float()
        self.offset = constant(-self.output_bias.to(dtype))

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


class PictureAttention(nn.Module):
    """The VAE's attention over all its pixels: one wide head, so products and a softmax."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        require(block.heads == 1 and block.residual_connection, "the VAE's attention")
        require(block.rescale_output_factor == 1, "rescale_output_factor")
        self.norm = GroupNorm(block.group_norm)
        linears = block.to_q, block.to_k, block.to_v
        self.qkv = constant(torch.cat([linear.weight for linear in linears]).t())
        self.qkv_bias = constant(torch.cat([linear.bias for linear in linears]))
        self.out = constant(block.to_out[0].weight.t())
        self.bias = constant(block.to_out[0].bias)

    def forward(self, x: Tensor, sums: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        b, c, h, w = x.shape
        rows = torch.addmm(self.qkv_bias, _rows(self.norm(x, silu=False, sums=sums)), self.qkv)
        q, k, v = rows.unflatten(0, (b, h * w)).chunk(3, dim=2)
        scores = torch.baddbmm(
            q.new_zeros(()), q, k.transpose(1, 2), beta=0, alpha=float(c) ** -0.5
        )
        seen = torch.bmm(scores.softmax(dim=2), v).flatten(0, 1)
        return kernels.add(_pictures(seen @ self.out, x), x, self.bias)


class Upsample(nn.Module):
    """Twice the size by nearest neighbours, then a 3x3 convolution."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        require(block.use_conv and not block.use_conv_transpose, "an upsampler without conv")
        require(block.norm is None and block.conv.kernel_size == (3, 3), "upsampler")
        weight = upsampling_kernel(block.conv.weight)
        self.weight = constant(weight.contiguous(memory_format=torch.channels_last))
        self.bias = constant(block.conv.bias)

    def forward(self, x: Tensor, sums: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return kernels.unfold_phases(F.conv2d(x, self.weight, padding=1), self.bias)


class Conv(nn.Module):
    """A convolution whose weight is channels_last."""

    def __init__(self, conv: nn.Conv2d, *, with_bias: bool = True) -> None:
        super().__init__()
        self.weight = constant(conv.weight.contiguous(memory_format=torch.channels_last))
        self.bias = constant(bias_of(conv)) if with_bias else None
        self.stride, self.padding = conv.stride, conv.padding

    @property
    def matrix(self) -> Tensor:
        """The same weights for `kernels.columns`: [9 in, out], the same memory."""
        return self.weight.permute(0, 2, 3, 1).flatten(1).t()

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class GroupNorm(nn.Module):
    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        require(isinstance(norm, nn.GroupNorm), type(norm).__name__)
        self.weight, self.bias = constant(norm.weight), constant(norm.bias)
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


class LayerNorm(nn.Module):
    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = constant(norm.weight), constant(norm.bias), norm.eps

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


def to_vae_input(conv: nn.Conv2d, scaling: float, shift: float) -> Conv:
    """The UNet's last convolution, giving z / scaling + shift, a channel of ones, and zeros."""
    channels = conv.out_channels
    wide = padded_output(conv, spare=1)
    wide.weight[:channels] /= scaling
    bias = bias_of(wide)
    bias[:channels] = bias[:channels] / scaling + shift
    bias[channels] = 1.0
    return Conv(wide)


def from_vae_input(conv: nn.Conv2d, before: nn.Conv2d | None) -> Conv:
    """The decoder's first convolution with ``post_quant_conv`` folded in, for that input."""
    channels = conv.in_channels
    weight = conv.weight.float()
    inputs = -(-(channels + 1) // _LANES) * _LANES
    wide = _resized(conv, inputs, conv.out_channels)
    wide.requires_grad_(False).to(weight)
    wide.weight.zero_()
    if before is None:
        wide.weight[:, :channels] = weight
    else:
        mix = before.weight.float().flatten(1)
        wide.weight[:, :channels] = torch.einsum("omhw,mi->oihw", weight, mix)
        wide.weight[:, channels] = torch.einsum("omhw,m->ohw", weight, bias_of(before).float())
    bias_of(wide).copy_(bias_of(conv))
    return Conv(wide.to(conv.weight.dtype))


def padded_output(conv: nn.Conv2d, spare: int = 0) -> nn.Conv2d:
    """The same convolution with output channels of zeros up to a multiple of eight."""
    outputs = -(-(conv.out_channels + spare) // _LANES) * _LANES
    wide = _resized(conv, conv.in_channels, outputs)
    wide.requires_grad_(False).to(conv.weight)
    wide.weight.zero_()
    bias = bias_of(wide).zero_()
    wide.weight[: conv.out_channels] = conv.weight
    bias[: conv.out_channels] = bias_of(conv)
    return wide


def _resized(conv: nn.Conv2d, inputs: int, outputs: int) -> nn.Conv2d:
    """Its window with other channels and fresh weights."""
    # torch takes a pair for each of these, and declares that it keeps any number.
    return nn.Conv2d(inputs, outputs, conv.kernel_size, conv.stride, conv.padding)  # type: ignore[arg-type, unused-ignore]


def resampling(block: Any) -> nn.Module:
    if type(block).__name__ == "Upsample2D":
        return Upsample(block)
    require(type(block).__name__ == "Downsample2D", type(block).__name__)
    require(block.use_conv and block.padding == 1 and block.norm is None, "downsampler")
    return Conv(block.conv)


def _at_pixels(x: Tensor, weight: Tensor) -> Tensor:
    """A 1x1 convolution as one product: [b, c, h, w], [c, d] -> [b, d, h, w]."""
    return _pictures(_rows(x) @ weight, x)


def _rows(x: Tensor) -> Tensor:
    """[b, c, h, w] in channels_last memory -> [b * h * w, c], the same memory."""
    return x.permute(0, 2, 3, 1).view(-1, x.shape[1])


def _pictures(rows: Tensor, like: Tensor) -> Tensor:
    b, _, h, w = like.shape
    return rows.view(b, h, w, rows.shape[1]).permute(0, 3, 1, 2)


def constant(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach(), requires_grad=False)


def bias_of(conv: nn.Conv1d | nn.Conv2d) -> Tensor:
    """Its bias. Raises UnfusableError where it has none."""
    require(conv.bias is not None, "a convolution without bias")
    return cast("Tensor", conv.bias)


def require(holds: bool, what: str) -> None:
    if not holds:
        raise UnfusableError(f"cannot fuse this model: {what} is not known here")
