"""Convolution and pooling over maps (C, L) and (C, H, W), channels first.

Output extent of a kernel k with dilation d, stride s and padding p on each side: floor((n + 2 p - d
(k - 1) - 1) / s) + 1. Padding: "valid" is none; "same" pads (more after than before where odd) so
that the extent becomes ceil(n / s).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ravine.catalogue import Count, Flag, Pair, Whole
from ravine.errors import InputError
from ravine.nn.stack import Shape, by_rank, need_rank

_Pair = int | tuple[int, int]
_CONV = {2: nn.Conv1d, 3: nn.Conv2d}
_MAX = {2: nn.MaxPool1d, 3: nn.MaxPool2d}
_AVERAGE = {2: nn.AvgPool1d, 3: nn.AvgPool2d}


def conv(
    shape: Shape,
    *,
    channels: Count,
    kernel: Pair = 3,
    stride: Pair = 1,
    padding: Literal["valid", "same"] | Whole = "valid",
    dilation: Pair = 1,
    groups: Count = 1,
    bias: Flag = True,
) -> nn.Module:
    """Convolution (as everywhere in this field, a cross-correlation): y_o = b_o + sum over channels
    i of w_oi * x_i.

    Maps (C, H, W) -> (channels, H', W'), or (C, L) -> (channels, L'). ``kernel``, ``stride`` and
    ``dilation`` hold for both directions, or are a pair (height, width). ``groups`` divides the
    channels into independent groups (C groups: depthwise). Parameters: weight [channels, C /
    groups, kernel...], bias [channels]. A kernel as large as the map makes it a dense layer, a
    kernel of 1 a dense layer at every place; a stride leaves out places of the output.

    Errors: the input is not a map (C, H, W) or (C, L); ``groups`` does not divide the channels;
    the map is smaller than the kernel.

    >>> conv((1, 28, 28), channels=8, kernel=5, padding="same")(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 8, 28, 28])

    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998.
    """
    kind = by_rank(shape, _CONV, "a convolution")
    axes = len(shape) - 1
    if shape[0] % groups or channels % groups:
        raise InputError(
            "groups", got=groups, expected=f"a divisor of {shape[0]} (in) and {channels} (out)"
        )
    sizes, strides, spread = _each(kernel, axes), _each(stride, axes), _each(dilation, axes)
    extents = tuple(d * (k - 1) + 1 for k, d in zip(sizes, spread, strict=True))
    before, pads = _padding(shape[1:], extents, strides, padding)
    layer = kind(shape[0], channels, sizes, strides, pads, spread, groups, bias)
    return layer if before is None else nn.Sequential(before, layer)


def locally_connected(
    shape: Shape, *, channels: Count, kernel: Pair = 3, stride: Pair = 1, bias: Flag = True
) -> nn.Module:
    """Convolution with untied weights: each position has a kernel of its own. Maps (C, H, W), no
    padding.

    Parameters: weight [positions, channels, C * kernel], bias [channels, positions].

    ``kernel`` and ``stride`` hold for both directions, or are a pair (height, width).

    Errors: the input is not a map (C, H, W), or smaller than the kernel.

    >>> locally_connected((1, 8, 8), channels=4, kernel=3)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 4, 6, 6])

    Source: LeCun, "Generalization and network design strategies", 1989.
    """
    need_rank(shape, (3,), "maps of shape (C, H, W)", "put it before flatten")
    sizes, strides = _each(kernel, 2), _each(stride, 2)
    _padding(shape[1:], sizes, strides, "valid")
    return LocallyConnected(shape, channels, sizes, strides, bias)


def maxpool(
    shape: Shape,
    *,
    size: Pair = 2,
    stride: Pair | None = None,
    padding: Literal["valid", "same"] | Whole = "valid",
) -> nn.Module:
    """The greatest entry of each window. ``stride`` is ``size`` unless given; padding never wins.

    Errors: the input is not a map (C, H, W) or (C, L); it is smaller than the window; ``padding``
    over half the window.

    >>> maxpool((8, 28, 28))(torch.zeros(2, 8, 28, 28)).shape
    torch.Size([2, 8, 14, 14])

    Source: Ranzato et al., "Unsupervised learning of invariant feature hierarchies", 2007.
    """
    return _pool(by_rank(shape, _MAX, "max pooling"), shape, size, stride, padding, float("-inf"))


def avgpool(
    shape: Shape,
    *,
    size: Pair = 2,
    stride: Pair | None = None,
    padding: Literal["valid", "same"] | Whole = "valid",
) -> nn.Module:
    """The mean of each window. ``stride`` is ``size`` unless given; padding counts as zeros, as in
    PyTorch.

    Errors: the input is not a map (C, H, W) or (C, L); it is smaller than the window; ``padding``
    over half the window.

    >>> avgpool((8, 28, 28))(torch.zeros(2, 8, 28, 28)).shape
    torch.Size([2, 8, 14, 14])

    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998.
    """
    return _pool(by_rank(shape, _AVERAGE, "average pooling"), shape, size, stride, padding, 0.0)


def global_pool(shape: Shape, *, form: Literal["average", "max"] = "average") -> nn.Module:
    """Mean (or maximum) over all positions of each channel: (C, H, W) -> (C,), (C, L) -> (C,).

    ``form`` is average or max. It takes the place of dense layers over whole maps and leaves the
    image size free.

    Errors: the input is not a map (C, H, W) or (C, L).

    >>> global_pool((8, 7, 7))(torch.zeros(2, 8, 7, 7)).shape
    torch.Size([2, 8])

    Source: Lin, Chen and Yan, "Network in network", 2014.
    """
    by_rank(shape, _AVERAGE, "global pooling")
    return GlobalPool(form == "max")


def channel_pool(
    shape: Shape,
    *,
    size: Count = 2,
    stride: Count | None = None,
    form: Literal["max", "average"] = "max",
) -> nn.Module:
    """Pooling over windows of ``size`` neighbouring channels, ``stride`` apart (``size`` unless
    given).

    ``form`` is max or average.

    Errors: ``size`` is more than the channels.

    >>> channel_pool((8, 5, 5), size=4)(torch.zeros(2, 8, 5, 5)).shape
    torch.Size([2, 2, 5, 5])

    Source: Goodfellow et al., "Maxout networks", 2013 (the maximum, without overlap).
    """
    if size > shape[0]:
        raise InputError("size", got=size, expected=f"at most the {shape[0]} channels")
    return ChannelPool(size, stride or size, form == "max")


class LocallyConnected(nn.Module):
    """A kernel for each position: unfold, then one product per position."""

    unit_axes = 2  # of the weight: each position and channel is a unit

    def __init__(self, shape: Shape, channels: int, kernel: Shape, stride: Shape, bias: bool):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.out = tuple(
            (n - k) // s + 1 for n, k, s in zip(shape[1:], kernel, stride, strict=True)
        )
        positions, inputs = self.out[0] * self.out[1], shape[0] * kernel[0] * kernel[1]
        self.weight = nn.Parameter(torch.empty(positions, channels, inputs))
        self.bias = nn.Parameter(torch.empty(channels, positions)) if bias else None
        self.fans = (inputs, channels * kernel[0] * kernel[1])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in +-1 / sqrt(fan_in), as torch.nn.Conv2d."""
        bound = self.fans[0] ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, self.kernel, stride=self.stride)  # [B, C k k, positions]
        y = torch.einsum("bil,loi->bol", patches, self.weight)  # [B, channels, positions]
        return (y if self.bias is None else y + self.bias).unflatten(2, self.out)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, kernel_size={self.kernel}, stride={self.stride}"


class GlobalPool(nn.Module):
    """x [B, C, ...] -> [B, C]."""

    def __init__(self, maximum: bool):
        super().__init__()
        self.maximum = maximum

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        return flat.amax(2) if self.maximum else flat.mean(2)


class ChannelPool(nn.Module):
    """Windows over the channels of x [B, C, ...]."""

    def __init__(self, size: int, stride: int, maximum: bool):
        super().__init__()
        self.size, self.stride, self.maximum = size, stride, maximum

    def forward(self, x: Tensor) -> Tensor:
        last = x.shape[1] - self.size
        # [size, B, C', ...]
        windows = torch.stack([x[:, i : last + i + 1 : self.stride] for i in range(self.size)])
        return windows.amax(0) if self.maximum else windows.mean(0)


def _each(value: int | tuple[int, int], axes: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * axes
    if axes != len(value):
        raise InputError("", got=value, expected="one number for maps of shape (C, L)")
    return tuple(value)


def _pool(
    kind: Callable[..., nn.Module],
    shape: Shape,
    size: _Pair,
    stride: _Pair | None,
    padding: str | int,
    fill: float,
) -> nn.Module:
    axes = len(shape) - 1
    sizes = _each(size, axes)
    strides = sizes if stride is None else _each(stride, axes)
    before, pads = _padding(shape[1:], sizes, strides, padding, fill)
    if any(pad > size // 2 for pad, size in zip(pads, sizes, strict=True)):
        raise InputError("padding", got=padding, expected="at most half the pooling window")
    layer = kind(sizes, strides, pads)
    return layer if before is None else nn.Sequential(before, layer)


def _padding(
    extents: Shape, windows: Shape, strides: Shape, padding: str | int, fill: float = 0.0
) -> tuple[nn.Module | None, tuple[int, ...]]:
    """A padding layer where the two sides differ, and the padding of both sides otherwise."""
    if padding == "same":
        totals = [
            max((-(-n // s) - 1) * s + w - n, 0)
            for n, w, s in zip(extents, windows, strides, strict=True)
        ]
    else:
        totals = [0 if padding == "valid" else 2 * int(padding)] * len(extents)
    if any(n + total < w for n, w, total in zip(extents, windows, totals, strict=True)):
        raise InputError(
            "",
            got=f"maps of {' x '.join(map(str, extents))}",
            expected=f"at least {' x '.join(map(str, windows))}, the kernel",
            repair="use a smaller kernel, less pooling before it, or padding = same",
        )
    if all(total % 2 == 0 for total in totals):
        return None, tuple(total // 2 for total in totals)
    sides = [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
    pad: Any = {1: nn.ConstantPad1d, 2: nn.ConstantPad2d}[len(extents)]
    return pad(tuple(sides), fill), (0,) * len(extents)
