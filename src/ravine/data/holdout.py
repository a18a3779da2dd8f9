"""Which rows are for training, validation and test: stratified by class, or whole groups, by the data's
seed; or the last ones in an order."""

from __future__ import annotations

import torch
from torch import Tensor

from ravine import randomness
from ravine.errors import InputError

DRAWS = 20  # of groups, of which the one is taken whose classes have most nearly their shares


def hold_out(
    size: int,
    fraction: float,
    labels: Tensor | None,
    seed: int,
    name: str,
    groups: Tensor | None = None,
    order: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Split row numbers into (kept, held out), each in rising order; with labels, class by class.

    The number held out is the fraction of all, to the nearest row, at least one. Classes share it
    by largest remainders, and each keeps at least one row. With ``groups`` [N] the rows of a group
    stay together: as many rows as whole groups give. With ``order`` [N] the last rows are held out,
    those of one time all together; NaN comes first. Raises InputError where no such split is possible.

    >>> kept, held = hold_out(10, 0.2, torch.tensor([0] * 5 + [1] * 5), seed=0, name="validation")
    >>> len(kept), [int(h >= 5) for h in held]
    (8, [0, 1])
    """
    wanted = max(1, int(size * fraction + 0.5))
    if wanted >= size:
        raise InputError(
            f"data.{name}",
            got=fraction,
            expected=f"a fraction that leaves training data out of {size} samples",
        )
    if order is not None:
        return _last(order, labels, size - wanted, name)
    generator = randomness.generator(seed, "split", name)
    if groups is not None:
        return _by_group(groups, labels, wanted, generator, name)
    shuffled = torch.randperm(size, generator=generator)
    if labels is None:
        held = shuffled[:wanted]
    else:
        if wanted > size - len(labels.unique()):
            raise InputError(
                f"data.{name}",
                got=fraction,
                expected="a fraction that leaves a training sample of every class",
                repair=f"{size} samples of {len(labels.unique())} classes; {wanted} would be split off",
            )
        held = _by_class(labels.cpu()[shuffled], shuffled, wanted)
    kept = torch.ones(size, dtype=torch.bool)
    kept[held] = False
    return kept.nonzero().flatten(), held.sort().values


def _by_class(labels: Tensor, shuffled: Tensor, wanted: int) -> Tensor:
    """The first rows of each class in the shuffled order, as many as its share."""
    _, inverse, counts = labels.unique(return_inverse=True, return_counts=True)
    take, left = counts * wanted // len(labels), counts * wanted % len(labels)
    most = torch.argsort(left, descending=True, stable=True)
    while short := wanted - int(take.sum()):
        # The guard for tiny classes: only a class that keeps another row may give one.
        may_give = take[most] < counts[most] - 1
        take[most[may_give][:short]] += 1
    rank = torch.empty_like(inverse)  # the place of each row among those of its class
    order = torch.argsort(inverse, stable=True)
    starts = torch.cumsum(counts, 0) - counts
    rank[order] = torch.arange(len(labels)) - starts[inverse[order]]
    return shuffled[rank < take[inverse]]


def _last(order: Tensor, labels: Tensor | None, cut: int, name: str) -> tuple[Tensor, Tensor]:
    """The rows from about the place ``cut`` on, where a new time begins."""
    times, rows = order.nan_to_num(-torch.inf).sort(stable=True)
    begins = (times[1:] != times[:-1]).nonzero().flatten() + 1  # of each time but the first
    if not len(begins):
        raise InputError(
            f"data.{name}", got="rows of one time alone", expected="an order of two times or more"
        )
    cut = int(begins[(begins - cut).abs().argmin()])
    kept, held = rows[:cut].sort().values, rows[cut:].sort().values
    if labels is not None and len(labels[kept].unique()) < len(labels.unique()):
        raise InputError(
            f"data.{name}",
            got="a class that only the last rows have",
            expected="training rows of every class",
            repair="hold out fewer rows, or split without an order",
        )
    return kept, held


def _by_group(
    groups: Tensor, labels: Tensor | None, wanted: int, generator: torch.Generator, name: str
) -> tuple[Tensor, Tensor]:
    """Whole groups in a random order until about so many rows are held out, of DRAWS orders the one
    whose classes have most nearly their shares."""
    _, inverse, counts = groups.unique(return_inverse=True, return_counts=True)
    if labels is None:
        table = counts[:, None]  # [groups, 1]
    else:
        classes = labels.cpu().unique(return_inverse=True)[1]
        table = torch.zeros(len(counts), int(classes.max()) + 1, dtype=torch.long)
        table.index_put_((inverse, classes), torch.ones_like(classes), accumulate=True)
    share = table.sum(0) * (wanted / len(groups))
    best, least = None, float("inf")
    for _ in range(1 if labels is None else DRAWS):
        order = torch.randperm(len(counts), generator=generator)
        rows = counts[order].cumsum(0)
        taken = order[: int((rows - wanted).abs().argmin()) + 1]
        held = table[taken].sum(0)
        away = float((held - share).abs().sum())
        if away < least and (held < table.sum(0)).all():
            best, least = taken, away
    if best is None:
        raise InputError(
            f"data.{name}",
            got=f"{len(counts)} group{'s' if len(counts) > 1 else ''}",
            expected="whole groups to hold out that leave training rows of every class",
            repair="let fewer rows be one group, or split by rows",
        )
    out = torch.isin(inverse, best)
    return (~out).nonzero().flatten(), out.nonzero().flatten()
