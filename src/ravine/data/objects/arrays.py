"""Data given in Python -> a Source: arrays and tensors, in parts or not, PyTorch Datasets and
DataLoaders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from ravine.data.objects.fields import TARGETS, inputs_and_target, several
from ravine.data.objects.labelled import is_labelled, is_table, labelled
from ravine.data.objects.pairs import from_pairs
from ravine.data.objects.samples import by_name
from ravine.data.objects.stream import from_streams
from ravine.data.source import Source
from ravine.errors import InputError, unknown
from ravine.records import class_of

_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}
_ORDER = ("train", "validation", "test")


def from_python(given: Any, task: str = "auto", *, seed: int = 0, batch: int = 128) -> Source:
    """The source that a person's own objects are.

    ``x``; ``(x, y)``; ``(x, y, x_val, y_val)``, with ``x_test, y_test`` after it; a Dataset or
    DataLoader; a ``datasets`` table or a frame of pandas or polars with a column called as targets are;
    a tuple of up to three of any of those (training, validation, test); or a dict with the keys
    ``train``, ``validation``, ``test``. Dataclasses and other objects with fields (`records`) are read as
    dictionaries are. Of a DataLoader its dataset, collate_fn, workers and batch size
    are taken; the order is the recipe's, unless it has a sampler of its own.
    ``batch`` is that of an IterableDataset.

    Bytes [N, H, W] and [N, H, W, C] are images and become [N, C, H, W]; whole numbers [N, T] of
    other types are tokens unless something is preprocessed; text, bool and whole numbers as targets
    are classes, floats a regression.
    """
    record, named = class_of(given), by_name(given)
    given = given if named is None else named
    parts = {name: _read(part) for name, part in _by_part(given).items()}
    pairs = {name: _pair(part, name) for name, part in parts.items()}
    if all(isinstance(pair, tuple) for pair in pairs.values()):
        first = given if _is_batch(given) else parts["train"]
        named = by_name(first)
        target = "y" if named is None else inputs_and_target(named)[1] or ""
        source = from_pairs(pairs, task, target=target, flat=_count(first) > 2)
        record = record or class_of(first)
        source.facts |= {"form": {"record": record}} if record and named is not None else {}
        return source
    return from_streams(pairs, task, seed, batch)


def _read(part: Any) -> Any:
    """Tables of other libraries as pairs; anything else as it is."""
    if isinstance(part, Tensor | np.ndarray | tuple | list | Mapping | DataLoader):
        return part
    if is_table(part):
        return labelled(part)
    if isinstance(part, Iterator):
        raise InputError(
            "data",
            got=f"a {type(part).__name__}, which can be read once",
            expected="what can be read once in every epoch",
            repair="give an IterableDataset whose __iter__ begins again, or a list of its samples",
        )
    return part


def _by_part(given: Any) -> dict[str, Any]:
    if _is_batch(given):
        return {"train": _inputs_and_targets(given)}
    if isinstance(given, Mapping):
        for name in given:
            if name not in _NAMES:
                raise unknown("data", str(name), _NAMES)
        parts = {_NAMES[name]: part for name, part in given.items()}
        if "train" not in parts:
            raise InputError("data", got=sorted(given), expected="a part called train")
        return parts
    if isinstance(given, (Dataset, DataLoader)) or not isinstance(given, (tuple, list)):
        return {"train": given}
    if 0 < len(given) <= len(_ORDER) and all(map(_has_targets, given)):
        return dict(zip(_ORDER, given, strict=False))
    if len(given) == 2 and several(given[0]) and not several(given[1]):
        return {"train": tuple(given)}
    if len(given) == 2 and _is_array(given[0]) and several(given[1]):
        return {"train": tuple(given)}  # targets of several kinds
    whole = [
        isinstance(item, (Dataset, DataLoader))
        or is_labelled(item)
        or (isinstance(item, tuple) and len(item) == 2)
        for item in given
    ]
    if given and all(whole) and len(given) <= 3:
        return dict(zip(_ORDER, given, strict=False))
    if len(given) in (2, 4, 6) and not any(whole):
        return {
            name: (given[2 * i], given[2 * i + 1])
            for i, name in enumerate(_ORDER[: len(given) // 2])
        }
    if len(given) > len(_ORDER) and all(isinstance(i, Mapping) or _is_sample(i) for i in given):
        return {"train": Samples(given)}
    raise InputError(
        "data",
        got=f"{len(given)} objects",
        expected="(x, y), (x, y, x_val, y_val), up to three Datasets or pairs, or a dict of parts",
    )


def _is_array(given: Any) -> bool:
    return isinstance(given, Tensor | np.ndarray)


def _is_batch(given: Any) -> bool:
    """Whether a dictionary holds inputs, with or without targets, not parts."""
    if not isinstance(given, Mapping) or set(given) & set(_NAMES):
        return False
    return bool(set(given) & set(TARGETS)) or (bool(given) and all(map(_is_array, given.values())))


def _has_targets(given: Any) -> bool:
    """Whether an object is a part of the data, with targets of its own."""
    if isinstance(given, Dataset | DataLoader):
        return True
    named = by_name(given)
    return _is_batch(named) and bool(set(named or ()) & set(TARGETS))


def _inputs_and_targets(given: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    inputs, target = inputs_and_target(given)
    return inputs, None if target is None else given[target]


def _is_sample(item: Any) -> bool:
    return (isinstance(item, tuple | list) and len(item) == 2) or by_name(item) is not None


class Samples(Dataset[Any]):
    """A list of samples (x, y), or of dictionaries."""

    def __init__(self, samples: Sequence[Any]):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: int) -> Any:
        return self.samples[place]


def _pair(part: Any, name: str) -> Any:
    """(x, y) where the part is arrays or holds tensors; else the Dataset or DataLoader itself."""
    if isinstance(part, DataLoader) or (isinstance(part, Dataset) and not isinstance(part, Tensor)):
        return _tensors_of(part) or part
    named = by_name(part)
    if named is not None:
        return _inputs_and_targets(named)
    if isinstance(part, (tuple, list)) and len(part) == 2:
        return tuple(part)
    if isinstance(part, (Tensor, np.ndarray)):
        return part, None
    raise InputError(
        f"data ({name})",
        got=type(part).__name__,
        expected="arrays (x, y), a Dataset or a DataLoader",
    )


def _tensors_of(data: Any) -> tuple[Any, Tensor | None] | None:
    """Inputs and targets of a TensorDataset, or of a part of one."""
    tensors = _held(data)
    if not tensors:
        return None
    if len(tensors) == 1:
        return tensors[0], None
    return (tensors[:-1] if len(tensors) > 2 else tensors[0]), tensors[-1]


def _held(data: Any) -> tuple[Tensor, ...]:
    if isinstance(data, TensorDataset):
        return data.tensors
    if isinstance(data, Subset):
        rows = torch.as_tensor(data.indices)
        return tuple(each[rows] for each in _held(data.dataset))
    return ()


def _count(data: Any) -> int:
    """How many tensors a sample of a Dataset of tensors has."""
    return len(_held(data))
