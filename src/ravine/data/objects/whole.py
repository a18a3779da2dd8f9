"""New data for a run that has been trained: arrays, samples by name, Datasets and DataLoaders, read
whole."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ravine.data.objects.samples import by_name, input_names, is_labelled
from ravine.data.objects.stream import Items, all_of, open_part
from ravine.errors import InputError
from ravine.randomness import key

_ROWS = 256  # of a stream that are read at a time


def read_all(given: Dataset | DataLoader, *, with_targets: bool = False) -> tuple[Tensor, Tensor]:
    """All samples of a Dataset or a DataLoader as (x, y): in the order of the Dataset, whatever the
    loader's; a stream in its own.

    Errors: it gives no targets, and ``with_targets``.
    """
    opened = open_part(given, key("all"), _ROWS)
    first = opened.dataset[0] if isinstance(opened, Items) else next(iter(opened.loader), None)
    if first is None or (with_targets and not _has_target(first)):
        got = "no samples" if first is None else "samples without targets"
        raise InputError("data", got=got, expected="samples (x, y), or with a target by name")
    return all_of(opened)


def _has_target(item: Any) -> bool:
    named = by_name(item)
    return is_labelled(item) if named is None else input_names(named, 1)[1] is not None


def pair_of(given: Any) -> tuple[Any, Any]:
    """New data, (x, y), inputs and targets by name, a Dataset or a DataLoader, as (x, y)."""
    if isinstance(given, Dataset | DataLoader):
        return read_all(given, with_targets=True)
    named = by_name(given)
    if named is not None:
        names, target = input_names(named, 1)
        given = {name: named[name] for name in names}, named.get(target or "")
    if not isinstance(given, tuple | list) or len(given) != 2 or given[1] is None:
        raise InputError("data", got=type(given).__name__, expected="(x, y), or a Dataset")
    return given[0], given[1]
