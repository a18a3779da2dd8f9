"""Normalisation layers: y = scale * (x - mean) / sqrt(variance + epsilon) + shift; they differ in
what they average.

Channels come first in maps (C, L) and (C, H, W). Scale and shift are learned, start at 1 and 0, and
are never decayed.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ravine.catalogue import Count, Flag, Positive, Probability, Real, Whole
from ravine.errors import InputError
from ravine.nn.batch_statistics import batch_statistics
from ravine.nn.stack import Shape, by_rank, need_rank


def batch_norm(
    shape: Shape,
    *,
    momentum: Probability = 0.1,
    average: Literal["running", "cumulative"] = "running",
    epsilon: Positive = 1e-5,
    center: Flag = True,
    scale: Flag = True,
    per: Literal["map", "position"] = "map",
    ghost: Whole = 0,
) -> nn.Module:
    """Normalise each channel (or feature) by mean and variance of the batch; in evaluation by
    averages over training.

    running: average <- (1 - momentum) average + momentum * batch value, PyTorch's convention
    (Keras's momentum is 1 - this one). cumulative: the plain mean over all batches. The batch
    variance divides by n, its average by n - 1. ``center`` and ``scale`` switch the learned shift
    and scale. ``per`` position keeps statistics for each position of a map, not for each map.
    ``ghost`` > 0 normalises parts of the batch of that size, each by its own statistics.

    ``epsilon`` is added to the variance, against division by zero.

    Errors: in training, a batch with one value per channel.

    >>> y = batch_norm((3,))(torch.randn(100, 3) * 5 + 2)
    >>> bool((y.mean(0).abs() < 1e-5).all() and ((y.var(0) - 1).abs() < 0.02).all())
    True

    Source: Ioffe and Szegedy, "Batch normalization", 2015; ghost batches: Hoffer, Hubara and
    Soudry, "Train longer, generalize better", 2017.
    """
    width = math.prod(shape) if per == "position" else shape[0]
    memory = None if average == "cumulative" else momentum
    if (
        average == "running"
        and center
        and scale
        and per == "map"
        and not ghost
        and len(shape) in (1, 2, 3)
    ):
        return {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d}[len(shape)](
            width, epsilon, memory
        )
    return BatchNorm(width, epsilon, memory, center, scale, per == "position", ghost)


def layer_norm(
    shape: Shape, *, epsilon: Positive = 1e-5, over: Literal["auto", "last", "all"] = "auto"
) -> nn.Module:
    """Normalise each sample alone, over its features: training and evaluation are the same.

    all: over every entry of a sample; last: over the last axis, each step of a sequence alone.
    auto: last for features and sequences, all for maps (C, H, W). Scale and shift have the shape
    that is averaged over.

    ``epsilon`` is added to the variance, against division by zero.

    >>> y = layer_norm((50,))(torch.randn(4, 50) * 5 + 2)
    >>> bool((y.mean(1).abs() < 1e-5).all())
    True

    Source: Ba, Kiros and Hinton, "Layer normalization", 2016.
    """
    whole = over == "all" or (over == "auto" and len(shape) > 2)
    return nn.LayerNorm(shape if whole else shape[-1:], epsilon)


def group_norm(shape: Shape, *, groups: Count = 32, epsilon: Positive = 1e-5) -> nn.Module:
    """Normalise each sample over groups of channels and all positions; one group: layer norm, C
    groups: instance norm.

    ``epsilon`` is added to the variance, against division by zero.

    Errors: ``groups`` does not divide the channels.

    >>> group_norm((8, 5, 5), groups=4)(torch.zeros(2, 8, 5, 5)).shape
    torch.Size([2, 8, 5, 5])

    Source: Wu and He, "Group normalization", 2018.
    """
    if shape[0] % groups:
        raise InputError("groups", got=groups, expected=f"a divisor of the {shape[0]} channels")
    return nn.GroupNorm(groups, shape[0], epsilon)


def instance_norm(shape: Shape, *, epsilon: Positive = 1e-5, affine: Flag = False) -> nn.Module:
    """Normalise each channel of each sample over its positions; ``affine`` adds learned scale and
    shift.

    ``epsilon`` is added to the variance, against division by zero.

    Errors: the input is not a map (C, H, W) or (C, L).

    >>> instance_norm((8, 5, 5))(torch.zeros(2, 8, 5, 5)).shape
    torch.Size([2, 8, 5, 5])

    Source: Ulyanov, Vedaldi and Lempitsky, "Instance normalization", 2016.
    """
    kind = by_rank(shape, {2: nn.InstanceNorm1d, 3: nn.InstanceNorm2d}, "instance norm")
    return kind(shape[0], epsilon, affine=affine)


def local_response_norm(
    shape: Shape,
    *,
    size: Count = 5,
    alpha: Real = 1e-4,
    beta: Real = 0.75,
    bias: Positive = 1.0,
    alpha_on: Literal["mean", "sum"] = "mean",
) -> nn.Module:
    """Divide each entry by (bias + alpha * m)^beta, m the mean of the squares over ``size``
    neighbouring channels (channels beyond the edge are zeros).

    Defaults are PyTorch's. The paper has ``bias`` 2, and ``alpha_on = "sum"``: alpha times the sum of
    the squares, ``size`` times as much; ``alexnet`` uses these.

    Errors: the input is not a map (C, L) or (C, H, W).

    >>> local_response_norm((8, 5, 5))(torch.zeros(2, 8, 5, 5)).shape
    torch.Size([2, 8, 5, 5])

    Source: Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional
    networks", 2012.
    """
    need_rank(shape, (2, 3), "maps (C, L) or (C, H, W)", "put it before flatten")
    return nn.LocalResponseNorm(size, alpha * (size if alpha_on == "sum" else 1), beta, bias)


class BatchNorm(nn.Module):
    """Batch norm with the switches that torch.nn's lacks; ``momentum`` None is the cumulative
    average."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        width: int,
        epsilon: float,
        momentum: float | None,
        center: bool,
        scale: bool,
        position: bool,
        ghost: int,
    ):
        super().__init__()
        self.epsilon, self.momentum, self.position, self.ghost = epsilon, momentum, position, ghost
        self.weight = nn.Parameter(torch.ones(width)) if scale else None
        self.bias = nn.Parameter(torch.zeros(width)) if center else None
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))

    def reset_parameters(self) -> None:
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self.num_batches_tracked.zero_()
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1) if self.position else x
        if not self.training:
            y = F.batch_norm(
                flat,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                False,
                0.0,
                self.epsilon,
            )
        elif self.ghost:
            y = torch.cat([self._normalise(part) for part in _parts(flat, self.ghost)])
        else:
            y = self._normalise(flat)
        return y.view_as(x)

    def _normalise(self, x: Tensor) -> Tensor:
        count = x.shape[0] * math.prod(x.shape[2:])
        if count < 2:
            raise InputError(
                "",
                got=tuple(x.shape),
                expected="more than one value per channel when training with batch norm",
            )
        variance, mean = batch_statistics(x.detach())
        self.num_batches_tracked.add_(1)
        step = (
            1 / self.num_batches_tracked.to(mean.dtype) if self.momentum is None else self.momentum
        )
        self.running_mean.add_((mean - self.running_mean) * step)
        self.running_var.add_((variance - self.running_var) * step)
        return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.epsilon)

    def extra_repr(self) -> str:
        return f"{self.running_mean.numel()}, momentum={self.momentum}, ghost={self.ghost}"


def _parts(x: Tensor, size: int) -> list[Tensor]:
    """Parts of ``size`` samples; a single left-over sample joins the part before it."""
    parts = list(x.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts
