"""Statistics of the training part in float64, a chunk at a time, so that no copy of the data is ever made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ravine.data.source import rows_per_chunk

Per = Literal["feature", "channel", "global"]


@dataclass
class Rows:
    """Rows that are fitted to: their shape without the first extent, their dtype, and a way to go through them."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    again: Callable[[], Iterable[Tensor]]

    @classmethod
    def of(cls, x: Tensor | Rows) -> Rows:
        if isinstance(x, Rows):
            return x
        return cls(tuple(x.shape[1:]), x.dtype, lambda: x.split(rows_per_chunk(x)))

    def chunks(self) -> Iterator[Tensor]:
        """Chunks in float64."""
        for chunk in self.again():
            yield chunk.double()

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Rows:
        """The rows as they are behind a transform."""
        first = function(next(iter(self.again()))[:1])
        return Rows(tuple(first.shape[1:]), first.dtype, lambda: (function(chunk) for chunk in self.again()))


@dataclass
class Moments:
    count: Tensor | float
    mean: Tensor
    variance: Tensor  # over N, not N - 1
    low: Tensor
    high: Tensor


def axes(shape: tuple[int, ...], per: Per) -> list[int]:
    """The axes of [N, *shape] that a statistic runs over; the channel is axis 1 of images and the last of all else."""
    rank = len(shape) + 1
    if per == "feature":
        return [0]
    if per == "global":
        return list(range(rank))
    channel = 1 if rank >= 4 else rank - 1
    return [axis for axis in range(rank) if axis != channel]


def moments(x: Tensor | Rows, per: Per) -> Moments:
    """Mean, variance, minimum and maximum of shape ``[1 or extent, ...]`` without the first axis; NaN is passed over.

    Chunks are merged by Chan's formula (Chan, Golub, LeVeque 1979).
    """
    rows = Rows.of(x)
    over = axes(rows.shape, per)
    total: Moments | None = None
    for chunk in rows.chunks():
        part = _of_chunk(chunk, over)
        total = part if total is None else _merge(total, part)
    assert total is not None, "no rows"
    return total


def _of_chunk(chunk: Tensor, over: list[int]) -> Moments:
    known = ~torch.isnan(chunk)
    count = known.sum(over, keepdim=True)[0].double()
    mean = torch.nansum(chunk, over, keepdim=True)[0] / count.clamp(min=1)
    square = torch.where(known, chunk - mean, 0.0).square_().sum(over, keepdim=True)[0]
    low = torch.where(known, chunk, torch.inf).amin(over, keepdim=True)[0]
    high = torch.where(known, chunk, -torch.inf).amax(over, keepdim=True)[0]
    return Moments(count, mean, square / count.clamp(min=1), low, high)


def _merge(a: Moments, b: Moments) -> Moments:
    count = torch.as_tensor(a.count + b.count)
    share = b.count / count.clamp(min=1)
    apart = b.mean - a.mean
    mean = a.mean + apart * share
    variance = a.variance * (1 - share) + b.variance * share + apart.square() * share * (1 - share)
    return Moments(count, mean, variance, torch.minimum(a.low, b.low), torch.maximum(a.high, b.high))


def covariance(x: Tensor | Rows) -> tuple[Tensor, Tensor]:
    """Mean [D] and covariance [D, D] (over N - 1) of the flattened rows."""
    rows = Rows.of(x)
    mean = moments(rows, "feature").mean.flatten()
    total = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=mean.device)
    count = 0
    for chunk in rows.chunks():
        apart = chunk.flatten(1) - mean
        total.addmm_(apart.T, apart)
        count += len(chunk)
    return mean, total / max(1, count - 1)
