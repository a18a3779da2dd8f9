"""Samples and collated batches of other people's Datasets -> (inputs, target) as tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ravine.data.objects.convert import tensor, value_of
from ravine.data.objects.fields import Fields, inputs_and_target
from ravine.errors import InputError

_INPUTS = ("x", "input", "inputs", "image", "img", "pixel_values", "features", "data")
_TARGETS = ("y", "target", "targets", "label", "labels")


def stack(items: list[Any]) -> tuple[Tensor, Tensor]:
    """Samples (x, y) of a Dataset as a batch."""
    xs, ys = zip(*(parts_of(item) for item in items), strict=True)
    return joined(list(xs)), joined(list(ys))


def pair(batch: Any) -> tuple[Tensor, Tensor]:
    """A collated batch as (x, y)."""
    x, y = parts_of(batch, least=2)
    x, y = (Fields.of(each).pack(each) if has_several(each) else value_of(each) for each in (x, y))
    return x, y


def parts_of(item: Any, least: int = 1) -> tuple[Any, Any]:
    """Inputs and target of a sample, or of a batch, whose arrays have ``least`` = 2 axes or more. Beside
    an input that is called so, numbers and text alone are remarks."""
    if isinstance(item, Mapping):
        named = any(name in item for name in _INPUTS)
        arrays = [v for v in item.values() if getattr(v, "ndim", 0) >= least]
        if len(item) > 2 and (not named or len(arrays) > 1):
            inputs, target = inputs_and_target(item)
            if named:
                inputs = {n: v for n, v in inputs.items() if getattr(v, "ndim", 0) >= least}
            return (inputs if len(inputs) > 1 else next(iter(inputs.values()))), item[target]
        x = next((item[name] for name in _INPUTS if name in item), None)
        y = next((item[name] for name in _TARGETS if name in item), None)
        if x is None or y is None:
            raise InputError(
                "data",
                got=f"samples with the keys {sorted(map(str, item))}",
                expected="an input (x, image, …) and a target (y, label, …)",
                repair="samples of numbers by name are given by a DataLoader whose collate_fn makes "
                "tensors; texts are made tokens there",
            )
        return x, y
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    if not is_labelled(item):
        x = item[0] if isinstance(item, (tuple, list)) else item
        return x, torch.zeros(len(x)) if least == 2 else 0.0
    if isinstance(item, (tuple, list)) and len(item) > 2:
        return tuple(item[:-1]), item[-1]
    raise InputError(
        "data",
        got=f"samples of type {type(item).__name__}",
        expected="pairs (x, y)",
        repair="return sample.x, sample.y from __getitem__, or from the DataLoader's collate_fn",
    )


def is_labelled(item: Any) -> bool:
    """Whether a sample, or a batch, is more than an input alone."""
    if isinstance(item, (tuple, list)):
        return len(item) != 1 or not hasattr(item[0], "shape")
    return not isinstance(item, Tensor | np.ndarray)


def has_several(x: Any) -> bool:
    """Whether the inputs of a sample, or of a batch, are several."""
    return isinstance(x, Mapping) or (isinstance(x, tuple) and len(x) > 1)


def stacked_inputs(values: list[Any]) -> Any:
    """Samples of several inputs as a batch of each."""
    first = values[0]
    names = list(first) if isinstance(first, Mapping) else range(len(first))
    columns = {name: [value_of(value[name]) for value in values] for name in names}
    for name, column in columns.items():
        if len({each.shape for each in column}) > 1:
            raise InputError(
                f"data: {name}",
                got="samples of different shapes",
                expected="one shape",
                repair="pad to one length, as a tokenizer does with padding='max_length'",
            )
    stacked = {name: torch.stack(column) for name, column in columns.items()}
    return stacked if isinstance(first, Mapping) else tuple(stacked.values())


def joined(values: list[Any]) -> Tensor:
    if has_several(values[0]):
        batch = stacked_inputs(values)
        return Fields.of(batch).pack(batch)
    rows = [value_of(value) for value in values]
    if len({row.shape for row in rows}) == 1:
        return torch.stack(rows)
    found = tensor(rows, "x")
    assert isinstance(found, Tensor)
    return found


@dataclass(frozen=True)
class WithLongest:
    """A collate_fn that pads each batch by itself, made to pad all batches alike: the longest samples
    are collated with every batch, and left out of it."""

    collate: Callable[[list[Any]], Any]
    dataset: Any
    places: tuple[int, ...]

    def __call__(self, items: list[Any]) -> Any:
        batch = self.collate([*items, *(self.dataset[place] for place in self.places)])
        return _first(batch, len(items))


def _first(batch: Any, count: int) -> Any:
    """The first samples of a collated batch."""
    if isinstance(batch, Mapping):
        return {name: _first(value, count) for name, value in batch.items()}
    if isinstance(batch, tuple | list) and any(getattr(part, "ndim", 0) for part in batch):
        return tuple(_first(part, count) for part in batch)
    return batch[:count] if hasattr(batch, "__getitem__") else batch


def check_width(x: Tensor, width: int) -> None:
    """Samples of several inputs have one shape in all batches."""
    if x.dim() == 2 and x.shape[1] != width:
        raise InputError(
            "data",
            got=f"batches of samples of {width} numbers, and of {x.shape[1]}",
            expected="samples of one shape, where they have several inputs",
            repair="pad to one length where batches are made, as a tokenizer does with "
            "padding='max_length'",
        )
