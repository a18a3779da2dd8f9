"""Batch norm over the batch of all ranks: every normalisation by batch statistics, also one that a
person's module calls by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ravine.nn.batch_statistics import batch_statistics

Gather = Callable[[Tensor], Tensor]  # [...] -> [ranks, ...]


class SynchronizedStatistics(TorchFunctionMode):
    """Within it, means and variances of a batch are those of all ranks' parts of it."""

    def __init__(self, gather: Gather):
        super().__init__()
        self.gather = gather

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm and kwargs.get("training"):
            return self._normalised(*args, **kwargs)
        if func is batch_statistics:
            mean, variance, count = moments(args[0], self.gather)
            return variance * (count / (count - 1)), mean
        return func(*args, **kwargs)

    def _normalised(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = True,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        mean, variance, count = moments(x, self.gather)
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean), momentum)
                running_var.lerp_((variance * (count / (count - 1))).to(running_var), momentum)
        shape = (1, -1, *(1 for _ in x.shape[2:]))
        y = _Normalise.apply(x, mean.view(shape), (variance + eps).rsqrt().view(shape), self.gather)
        y = y if weight is None else y * weight.view(shape)
        return (y if bias is None else y + bias.view(shape)).to(x.dtype)


def moments(x: Tensor, gather: Gather) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance (by n) of each channel over all ranks, and n: parts are joined as by Chan et
    al., 1979, which loses no digits."""
    x = _wide(x.detach())
    axes = [axis for axis in range(x.dim()) if axis != 1]
    variance, mean = torch.var_mean(x, axes, correction=0)
    count = torch.full_like(mean, x.numel() / x.shape[1])
    means, variances, counts = gather(torch.stack([mean, variance, count])).unbind(1)  # [ranks, C]
    count = counts.sum(0)
    mean = (means * counts).sum(0) / count
    squares = (counts * (variances + (means - mean) ** 2)).sum(0)
    return mean, squares / count, count


class _Normalise(torch.autograd.Function):
    """(x - mean) * scale, where mean and scale = (variance + eps)^-1/2 are of all ranks' samples."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, scale: Tensor, gather: Gather) -> Tensor:
        y = (_wide(x) - mean) * scale
        ctx.save_for_backward(y, scale)
        ctx.gather, ctx.dtype = gather, x.dtype
        return y

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        """dx = scale * (g - mean(g) - y mean(g y)), the means over all ranks' samples."""
        y, scale = ctx.saved_tensors
        g = _wide(slope)
        axes = [axis for axis in range(g.dim()) if axis != 1]
        count = torch.full_like(scale, g.numel() / g.shape[1]).flatten()
        sums = ctx.gather(torch.stack([g.sum(axes), (g * y).sum(axes), count])).sum(0)  # [3, C]
        means = [(each / sums[2]).view_as(scale) for each in sums[:2]]
        return ((g - means[0] - y * means[1]) * scale).to(ctx.dtype), None, None, None


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
