"""Statistics of the training part in float64, a chunk at a time, so that no copy of the data is
ever made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ravine.data.preprocessing.transform import Affine, Transform
from ravine.data.source import Split, rows_per_chunk

Per = Literal["feature", "channel", "global"]


@dataclass
class Rows:
    """Rows that are fitted to: their shape without the first extent, their dtype, and a way to go
    through them."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    again: Callable[[], Iterable[Tensor]]
    scaled: tuple[Rows, Affine] | None = (
        None  # where these are other rows, all moved and scaled alike
    )
    known: dict[Per, Moments] = field(default_factory=dict)  # moments that were asked for before

    @classmethod
    def of(cls, x: Tensor | Rows) -> Rows:
        if isinstance(x, Rows):
            return x
        return cls(tuple(x.shape[1:]), x.dtype, lambda: x.split(rows_per_chunk(x)))

    @classmethod
    def of_split(cls, split: Split, place: int) -> Rows:
        """The inputs (0) or the targets (1) of a part."""
        first = next(iter(split.chunks()))[place]
        return cls(
            tuple(first.shape[1:]), first.dtype, lambda: (chunk[place] for chunk in split.chunks())
        )

    def chunks(self) -> Iterator[Tensor]:
        """Chunks in float64."""
        for chunk in self.again():
            yield chunk.double()

    def first(self) -> Tensor:
        return next(iter(self.again()))[:1]

    def behind(self, transform: Transform) -> Rows:
        """The rows as a transform leaves them, in float64."""
        transform = transform.double()
        first = transform(self.first().double())
        rows = Rows(
            tuple(first.shape[1:]),
            first.dtype,
            lambda: (transform(chunk) for chunk in self.chunks()),
        )
        if isinstance(transform, Affine) and transform.scale.numel() == 1:
            rows.scaled = self, transform
        return rows


@dataclass
class Moments:
    count: Tensor
    mean: Tensor
    variance: Tensor  # over N, not N - 1
    low: Tensor
    high: Tensor


def axes(shape: tuple[int, ...], per: Per) -> list[int]:
    """The axes of [N, *shape] that a statistic runs over; the channel is axis 1 of images and the
    last of all else."""
    rank = len(shape) + 1
    if per == "feature":
        return [0]
    if per == "global":
        return list(range(rank))
    channel = 1 if rank >= 4 else rank - 1
    return [axis for axis in range(rank) if axis != channel]


def moments(x: Tensor | Rows, per: Per) -> Moments:
    """Mean, variance, minimum and maximum of shape ``[1 or extent, ...]`` without the first axis;
    NaN is passed over.

    Chunks are merged by Chan's formula (Chan, Golub, LeVeque 1979).
    """
    rows = Rows.of(x)
    if per not in rows.known:
        rows.known[per] = _moments(rows, per)
    return rows.known[per]


def _moments(rows: Rows, per: Per) -> Moments:
    if rows.scaled:
        return _scaled(moments(rows.scaled[0], per), rows.scaled[1])
    if rows.dtype == torch.uint8 and per != "feature":
        return _of_bytes(rows, per)
    over = axes(rows.shape, per)
    total: Moments | None = None
    for chunk in rows.chunks():
        part = _of_chunk(chunk, over)
        total = part if total is None else _merge(total, part)
    assert total is not None, "no rows"
    return total


def _of_bytes(rows: Rows, per: Per) -> Moments:
    """Exact moments of bytes from their histograms, one a channel."""
    rank = len(rows.shape) + 1
    kept = [axis for axis in range(1, rank) if axis not in axes(rows.shape, per)]
    shape = [rows.shape[axis - 1] if axis in kept else 1 for axis in range(1, rank)]
    counts = torch.zeros(max(shape, default=1), 256, dtype=torch.float64)
    for chunk in rows.again():
        channels = chunk.movedim(kept[0], 0) if kept else chunk[None]
        for place, channel in enumerate(channels):
            counts[place] += torch.bincount(channel.flatten(), minlength=256).cpu()
    values = torch.arange(256, dtype=torch.float64)
    total = counts.sum(1)
    mean = counts @ values / total
    variance = (counts * (values - mean[:, None]).square()).sum(1) / total
    seen = counts > 0
    low = torch.where(seen, values, torch.inf).amin(1)
    high = torch.where(seen, values, -torch.inf).amax(1)
    return Moments(*(each.view(shape) for each in (total, mean, variance, low, high)))


def _scaled(of: Moments, by: Affine) -> Moments:
    """The moments of (x - shift) * scale from those of x: no second pass over the data."""
    low, high = by(of.low), by(of.high)
    scale = by.scale.flatten()[0]
    return Moments(
        of.count,
        by(of.mean),
        of.variance * scale**2,
        torch.minimum(low, high),
        torch.maximum(low, high),
    )


def _of_chunk(chunk: Tensor, over: list[int]) -> Moments:
    total = chunk.sum(over, keepdim=True)[0]
    if not bool(torch.isfinite(total).all()):
        return _of_known(chunk, over)
    count = torch.full_like(total, chunk.numel() / total.numel())
    mean = total / count
    square = (chunk - mean).square_().sum(over, keepdim=True)[0]
    return Moments(
        count,
        mean,
        square / count,
        chunk.amin(over, keepdim=True)[0],
        chunk.amax(over, keepdim=True)[0],
    )


def _of_known(chunk: Tensor, over: list[int]) -> Moments:
    """The same, NaN passed over."""
    known = ~torch.isnan(chunk)
    count = known.sum(over, keepdim=True)[0].double()
    mean = torch.nansum(chunk, over, keepdim=True)[0] / count.clamp(min=1)
    square = torch.where(known, chunk - mean, 0.0).square_().sum(over, keepdim=True)[0]
    low = torch.where(known, chunk, torch.inf).amin(over, keepdim=True)[0]
    high = torch.where(known, chunk, -torch.inf).amax(over, keepdim=True)[0]
    return Moments(count, mean, square / count.clamp(min=1), low, high)


def _merge(a: Moments, b: Moments) -> Moments:
    count = a.count + b.count
    share = b.count / count.clamp(min=1)
    apart = b.mean - a.mean
    mean = a.mean + apart * share
    variance = a.variance * (1 - share) + b.variance * share + apart.square() * share * (1 - share)
    return Moments(
        count, mean, variance, torch.minimum(a.low, b.low), torch.maximum(a.high, b.high)
    )


def covariance(x: Tensor | Rows) -> tuple[Tensor, Tensor]:
    """Mean [D] and covariance [D, D] (over N - 1) of the flattened rows."""
    rows = Rows.of(x)
    mean = moments(rows, "feature").mean.flatten()
    total = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=mean.device)
    count = 0
    for chunk in _in_blocks(rows.chunks(), 2048):
        apart = chunk.flatten(1) - mean
        total.addmm_(apart.T, apart)
        count += len(chunk)
    return mean, total / max(1, count - 1)


def _in_blocks(chunks: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Chunks joined to blocks of at least so many rows, where a product is worth it."""
    held: list[Tensor] = []
    for chunk in chunks:
        held.append(chunk)
        if sum(map(len, held)) >= size:
            yield torch.cat(held)
            held = []
    if held:
        yield torch.cat(held)
