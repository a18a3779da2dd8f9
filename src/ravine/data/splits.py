"""Which rows are for training, validation and test: stratified by class, by the data's seed."""

from __future__ import annotations

import torch
from torch import Tensor

from ravine import randomness
from ravine.errors import InputError


def hold_out(size: int, fraction: float, labels: Tensor | None, seed: int, name: str) -> tuple[Tensor, Tensor]:
    """Split row numbers into (kept, held out), each in rising order; with labels, class by class.

    The number held out is the fraction of all, to the nearest row, at least one. Classes share it by largest
    remainders.

    >>> kept, held = hold_out(10, 0.2, torch.tensor([0] * 5 + [1] * 5), seed=0, name="validation")
    >>> len(kept), [int(h >= 5) for h in held]
    (8, [0, 1])
    """
    wanted = max(1, int(size * fraction + 0.5))
    if wanted >= size:
        raise InputError(
            f"data.{name}", got=fraction, expected=f"a fraction that leaves training data out of {size} samples"
        )
    generator = randomness.generator(seed, "split", name)
    shuffled = torch.randperm(size, generator=generator)
    if labels is None:
        held = shuffled[:wanted]
    else:
        held = _by_class(labels.cpu()[shuffled], shuffled, wanted)
        _leaves_all(labels.cpu(), held, fraction, name)
    kept = torch.ones(size, dtype=torch.bool)
    kept[held] = False
    return kept.nonzero().flatten(), held.sort().values


def _by_class(labels: Tensor, shuffled: Tensor, wanted: int) -> Tensor:
    """The first rows of each class in the shuffled order, as many as its share."""
    _, inverse, counts = labels.unique(return_inverse=True, return_counts=True)
    take, left = counts * wanted // len(labels), counts * wanted % len(labels)
    most = torch.argsort(left, descending=True, stable=True)
    take[most[: wanted - int(take.sum())]] += 1
    rank = torch.empty_like(inverse)  # the place of each row among those of its class
    order = torch.argsort(inverse, stable=True)
    starts = torch.cumsum(counts, 0) - counts
    rank[order] = torch.arange(len(labels)) - starts[inverse[order]]
    return shuffled[rank < take[inverse]]


def _leaves_all(labels: Tensor, held: Tensor, fraction: float, name: str) -> None:
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[held] = False
    empty = sorted(set(labels.unique().tolist()) - set(labels[kept].unique().tolist()))
    if empty:
        raise InputError(
            f"data.{name}",
            got=fraction,
            expected="at least one training sample of every class",
            repair=f"class {empty[0]} has only {int((labels == empty[0]).sum())} sample(s); add some or split off less",
        )
