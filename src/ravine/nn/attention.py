"""Attention over sequences (T, F): self-attention, positions, and the block of a transformer.

All of them keep the shape (T, F). The product itself is PyTorch's ``scaled_dot_product_attention``.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ravine.catalogue import Count, Flag, PerMember, Positive, Probability
from ravine.errors import InputError
from ravine.nn.randomized import Dropout
from ravine.nn.stack import Shape, need_rank


def attention(
    shape: Shape,
    *,
    heads: Count = 4,
    causal: Flag = False,
    positions: Literal["none", "rotary"] = "none",
    bias: Flag = True,
) -> nn.Module:
    """Multi-head self-attention: softmax(Q K^T / sqrt(F / heads)) V for each head, then a dense
    layer.

    Q, K and V are one dense layer of x (T, F), divided among ``heads``; F must be a multiple of
    ``heads``. ``causal``: step t reads the steps up to t only. ``positions`` rotary turns the pairs
    (i, i + d/2) of each query and key of size d by the angle t * 10000^(-2 i / d), so that products
    depend on distances (Su et al., 2021); none: the layer does not know the order of the steps.
    ``bias``: whether both dense layers have one.

    >>> attention((7, 8), heads=2)(torch.zeros(5, 7, 8)).shape
    torch.Size([5, 7, 8])

    Errors: F is not a multiple of ``heads``, or, with rotary positions, of 2 ``heads``.

    Source: Vaswani et al., "Attention is all you need", 2017; Su et al., "RoFormer", 2021.
    """
    _sequences(shape)
    return SelfAttention(shape[1], heads, causal, positions == "rotary", bias)


def positions(
    shape: Shape, *, form: Literal["learned", "sinusoidal"] = "learned", std: Positive = 0.02
) -> nn.Module:
    """Add a vector for each step to x (T, F), so that layers that follow know the order.

    ``form`` learned: a parameter [T, F] that begins normal with deviation ``std``. sinusoidal:
    p[t, 2 i] = sin(t / 10000^(2 i / F)) and p[t, 2 i + 1] = cos of the same, no parameters. Shorter
    sequences take the first rows.

    >>> positions((3, 4), form="sinusoidal")(torch.zeros(1, 3, 4))[0, 0]
    tensor([0., 1., 0., 1.])

    Source: Vaswani et al., "Attention is all you need", 2017.
    """
    _sequences(shape)
    steps, width = shape
    return Positions(steps, width, std) if form == "learned" else SinusoidalPositions(steps, width)


def transformer_block(
    shape: Shape,
    *,
    heads: Count = 4,
    factor: Count = 4,
    activation: Literal["gelu", "relu"] = "gelu",
    causal: Flag = False,
    positions: Literal["none", "rotary"] = "none",
    norm: Literal["before", "after"] = "before",
    dropout: PerMember[Probability] = 0.0,
    bias: Flag = True,
) -> nn.Module:
    """Self-attention and a perceptron, each beside a shortcut: y = x + attention(norm(x)), then
    y + mlp(norm(y)).

    The perceptron has ``factor`` F hidden units and ``activation``. ``norm`` before is that form
    (pre-norm, which trains without warm-up); after is the paper's, norm(x + attention(x)).
    ``dropout`` acts on what is added to each shortcut. ``heads``, ``causal``, ``positions`` and
    ``bias`` as for ``attention``.

    >>> transformer_block((7, 8), heads=2)(torch.zeros(5, 7, 8)).shape
    torch.Size([5, 7, 8])

    Errors: those of ``attention``.

    Source: Vaswani et al., "Attention is all you need", 2017; Xiong et al., "On layer normalization
    in the transformer architecture", 2020.
    """
    _sequences(shape)
    attend = SelfAttention(shape[1], heads, causal, positions == "rotary", bias)
    return TransformerBlock(attend, factor, activation, norm == "before", dropout, bias)


class SelfAttention(nn.Module):
    """x [B, T, F] -> [B, T, F]; ``forward(x, used)``: steps where ``used`` [B, T] is false are not
    read."""

    def __init__(self, width: int, heads: int, causal: bool, rotary: bool, bias: bool):
        super().__init__()
        if width % heads or (rotary and width % (2 * heads)):
            multiple = f"a multiple of {2 * heads if rotary else heads}, for {heads} heads"
            raise InputError("heads", got=f"{width} features", expected=multiple)
        self.heads, self.causal, self.rotary = heads, causal, rotary
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor, used: Tensor | None = None) -> Tensor:
        batch, steps, width = x.shape
        split = self.qkv(x).view(batch, steps, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)  # [B, heads, T, F / heads]
        if self.rotary:
            q, k = _rotate(q), _rotate(k)
        mask = None if used is None else used[:, None, None, :]  # [B, 1, 1, T]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal)
        return self.out(y.transpose(1, 2).reshape(batch, steps, width))

    def extra_repr(self) -> str:
        kinds = [name for name in ("causal", "rotary") if getattr(self, name)]
        return ", ".join([f"heads={self.heads}", *kinds])


class Positions(nn.Module):
    """A learned vector for each of at most ``steps`` steps."""

    def __init__(self, steps: int, width: int, std: float):
        super().__init__()
        self.std = std
        self.weight = nn.Parameter(torch.empty(steps, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.std)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight[: x.shape[1]]


class SinusoidalPositions(nn.Module):
    """Sines and cosines of each step at wavelengths from 2 pi to 20000 pi; no parameters."""

    table: Tensor

    def __init__(self, steps: int, width: int):
        super().__init__()
        angle = torch.arange(steps, dtype=torch.float64)[:, None]
        pair = torch.arange((width + 1) // 2, dtype=torch.float64)
        angle = angle * torch.exp(-math.log(1e4) * 2 * pair / width)  # [T, F / 2]
        table = torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width]
        self.register_buffer("table", table.to(torch.get_default_dtype()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table[: x.shape[1]].to(x.dtype)


class TransformerBlock(nn.Module):
    """Attention and a perceptron beside shortcuts; see ``transformer_block``."""

    def __init__(
        self,
        attend: SelfAttention,
        factor: int,
        activation: str,
        before: bool,
        dropout: float,
        bias: bool,
    ):
        super().__init__()
        width = attend.out.in_features
        self.before = before
        self.norm1 = nn.LayerNorm(width, bias=bias)
        self.attention = attend
        self.norm2 = nn.LayerNorm(width, bias=bias)
        self.mlp = nn.Sequential(
            nn.Linear(width, factor * width, bias=bias),
            nn.GELU() if activation == "gelu" else nn.ReLU(),
            nn.Linear(factor * width, width, bias=bias),
        )
        self.drop = Dropout(dropout)
        self.drop_mlp = Dropout(dropout)

    def forward(self, x: Tensor, used: Tensor | None = None) -> Tensor:
        if self.before:
            x = x + self.drop(self.attention(self.norm1(x), used))
            return x + self.drop_mlp(self.mlp(self.norm2(x)))
        x = self.norm1(x + self.drop(self.attention(x, used)))
        return self.norm2(x + self.drop_mlp(self.mlp(x)))


def _sequences(shape: Shape) -> None:
    need_rank(
        shape,
        (2,),
        "sequences (T, F)",
        "put an embedding before it, or reshape the sample to (steps, features)",
    )


def _rotate(x: Tensor) -> Tensor:
    """Rotary positions of x [..., T, d]: the pair (x_i, x_{i + d/2}) of step t turned by
    t * 10000^(-2 i / d)."""
    half = x.shape[-1] // 2
    # Angles in float32 at least: bfloat16 cannot tell step 257 from 256.
    wide = torch.promote_types(x.dtype, torch.float32)
    speed = torch.arange(half, device=x.device, dtype=wide).mul(-math.log(1e4) / half).exp()
    angle = torch.arange(x.shape[-2], device=x.device, dtype=wide)[:, None] * speed  # [T, d / 2]
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
