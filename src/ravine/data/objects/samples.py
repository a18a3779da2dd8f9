"""Samples and collated batches of other people's Datasets -> (inputs, target) as tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ravine.data.objects.convert import tensor, value_of
from ravine.data.objects.fields import TARGETS, Fields, inputs_and_target, is_text
from ravine.errors import InputError
from ravine.records import class_of, fields_of, is_named_tuple, is_record, made

_INPUTS = ("x", "input", "inputs", "image", "img", "pixel_values", "features", "data")


def stack(items: list[Any]) -> tuple[Tensor, Tensor]:
    """Samples (x, y) of a Dataset as a batch."""
    xs, ys = zip(*(parts_of(item) for item in items), strict=True)
    return joined(list(xs)), joined(list(ys))


def pair(batch: Any) -> tuple[Tensor, Tensor]:
    """A collated batch as (x, y)."""
    x, y = parts_of(batch, least=2)
    x, y = (Fields.of(each).pack(each) if has_several(each) else value_of(each) for each in (x, y))
    return x, y


def by_name(item: Any) -> Mapping[str, Any] | None:
    """The fields of a sample or batch that is read by name: of a dictionary, a dataclass, …, and of a
    named tuple that names a target. None of anything else."""
    fields = fields_of(item)
    in_order = is_named_tuple(item) and not any(name in TARGETS for name in item._fields)
    return None if in_order else fields


def parts_of(item: Any, least: int = 1) -> tuple[Any, Any]:
    """Inputs and target of a sample, or of a batch, whose arrays have ``least`` = 2 axes or more. Beside
    an input that is called so, numbers and text alone are remarks."""
    named = by_name(item)
    if named is not None:
        return _parts_by_name(named, least)
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


def _parts_by_name(item: Mapping[str, Any], least: int) -> tuple[Any, Any]:
    names, target = input_names(item, least)
    inputs = {name: item[name] for name in names}
    first = next(iter(inputs.values()))
    if target is None:
        y = torch.zeros(len(first)) if least == 2 else 0.0
    return (inputs if len(inputs) > 1 else first), y if target is None else item[target]


def input_names(item: Mapping[str, Any], least: int) -> tuple[list[str], str | None]:
    """What the inputs and the target of a sample by name are called."""
    inputs, target = inputs_and_target(item)
    arrays = [name for name, each in inputs.items() if getattr(each, "ndim", 0) >= least]
    if called := next((name for name in _INPUTS if name in inputs), None):
        return (arrays if len(arrays) > 1 else [called]), target
    if least == 2:  # one number for a whole batch is no input
        inputs = {name: each for name, each in inputs.items() if not isinstance(each, int | float)}
    if not inputs or (len(inputs) == 1 and is_text(next(iter(inputs.values())))):
        raise InputError(
            "data",
            got=f"samples with the keys {sorted(map(str, item))}",
            expected="an input (x, image, …) and a target (y, label, …)",
            repair="samples of numbers by name are given by a DataLoader whose collate_fn makes "
            "tensors; texts are made tokens there",
        )
    return list(inputs), target


def form_of(item: Any, least: int) -> dict[str, Any]:
    """In which form a sample, or a batch, is given, where its inputs and its target alone do not say it:
    the class of an object, and the names of one input and its target. Plain data."""
    named, found = by_name(item), dict[str, Any]()
    if class_of(item):
        found["record"] = class_of(item)
    if named is not None:
        names, target = input_names(named, least)
        if len(names) == 1:
            found |= {"input": names[0], "target": target}
    return found


def one_input(x: Any, facts: Mapping[str, Any]) -> Any:
    """The input of samples by name that have one; anything else as it is."""
    named = by_name(x)
    if named is None:
        return x
    wanted = facts.get("form", {}).get("input", "x")
    if wanted not in named:
        raise InputError("x", got=", ".join(map(str, named)), expected=wanted)
    return named[wanted]


def is_labelled(item: Any) -> bool:
    """Whether a sample, or a batch, is more than an input alone."""
    named = by_name(item)
    if named is not None:
        return any(name in TARGETS for name in named)
    if isinstance(item, (tuple, list)):
        return len(item) != 1 or not hasattr(item[0], "shape")
    return not isinstance(item, Tensor | np.ndarray)


def has_several(x: Any) -> bool:
    """Whether the inputs of a sample, or of a batch, are several."""
    return isinstance(x, Mapping) or (isinstance(x, tuple) and len(x) > 1) or is_record(x)


def stacked_inputs(values: list[Any]) -> Any:
    """Samples of several inputs as a batch of each."""
    ordered = isinstance(values[0], tuple)
    fields: list[Mapping[Any, Any]] = [
        dict(enumerate(value)) if ordered else fields_of(value) or {} for value in values
    ]
    columns = {name: [value_of(each[name]) for each in fields] for name in fields[0]}
    for name, column in columns.items():
        if len({each.shape for each in column}) > 1:
            raise InputError(
                f"data: {name}",
                got="samples of different shapes",
                expected="one shape",
                repair="pad to one length, as a tokenizer does with padding='max_length'",
            )
    stacked = {name: torch.stack(column) for name, column in columns.items()}
    return tuple(stacked.values()) if ordered else stacked


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
    if is_record(batch):
        fields = fields_of(batch) or {}
        return made(class_of(batch), {name: _first(value, count) for name, value in fields.items()})
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
