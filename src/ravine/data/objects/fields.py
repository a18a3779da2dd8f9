"""Samples of several inputs, such as a dictionary batch of Hugging Face: as one row of numbers each, so
that they are split, shuffled, stored and moved like any other data.

``Fields`` says how a row [D] falls into the inputs again; the network is given those, by name or in
order (`engine.weights.heads.spread`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ravine.errors import InputError
from ravine.records import class_of, fields_of, is_named_tuple, is_record, made

TARGETS = ("y", "target", "targets", "label", "labels")
_ALIKE = 32  # samples of one length, from which all are taken to have it
_EXACT = 2**24  # whole numbers up to which float32 is exact


@dataclass(frozen=True)
class Fields:
    """The inputs of a sample: their names (empty where they are given in order), shapes and dtypes."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    target: str = "y"  # the name of the target in a dictionary
    flat: bool = False  # whether a sample is (a, b, target), not ((a, b), target)
    record: str = ""  # the class of the inputs, where they come as an object of one (`records`)

    @classmethod
    def of(
        cls, inputs: Any, target: str = "y", *, flat: bool = False, record: str | None = None
    ) -> Fields:
        """The fields of a batch of inputs, each [N, ...]. ``record``: the class that they had before they
        were stacked, if that is not theirs.

        >>> fields = Fields.of({"ids": torch.zeros(4, 3, dtype=torch.int64), "size": torch.ones(4)})
        >>> fields.names, fields.shapes, fields.pack({"ids": [[1, 2, 3]], "size": [0.5]}).tolist()
        (('ids', 'size'), ((3,), ()), [[1.0, 2.0, 3.0, 0.5]])
        """
        named = _named(inputs)
        tensors = [_tensor(value) for value in named.values()]
        names = () if isinstance(inputs, tuple | list) else tuple(named)
        shapes = tuple(tuple(each.shape[1:]) for each in tensors)
        dtypes = tuple(str(t.dtype).removeprefix("torch.") for t in tensors)
        record = class_of(inputs) if record is None else record
        return cls(names, shapes, dtypes, target, flat, record)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Fields:
        """What ``to_dict`` gave."""
        shapes = tuple(tuple(shape) for shape in plain["shapes"])
        named = (tuple(plain["names"]), shapes, tuple(plain["dtypes"]), plain["target"])
        return cls(*named, plain.get("flat", False), plain.get("record", ""))

    def to_dict(self) -> dict[str, Any]:
        lists: dict[str, Any] = {"names": [*self.names], "dtypes": [*self.dtypes]}
        lists |= {"target": self.target} | ({"flat": True} if self.flat else {})
        lists |= {"record": self.record} if self.record else {}
        return lists | {"shapes": [list(shape) for shape in self.shapes]}

    def pack(self, inputs: Any) -> Tensor:
        """Inputs, each [N, ...], as rows [N, D]; a target beside them is left out.

        Errors: other names, shapes or lengths; whole numbers that float32 does not hold.
        """
        named = _named(inputs, by_name=bool(self.names))
        if self.names and self.target not in self.names:
            named.pop(self.target, None)
        if len(named) != len(self.shapes) or (self.names and set(named) != set(self.names)):
            expected = ", ".join(self.names) or f"{len(self.shapes)} inputs"
            raise InputError("x", got=", ".join(named), expected=expected)
        ordered = [named[name] for name in self.names] if self.names else list(named.values())
        columns = []
        for place, (value, shape) in enumerate(zip(ordered, self.shapes, strict=True)):
            tensor = _tensor(value)
            if tuple(tensor.shape[1:]) != shape:
                raise InputError(
                    f"x: {self.names[place] if self.names else place}",
                    got=f"samples of shape {list(tensor.shape[1:])}",
                    expected=f"{list(shape)} in every sample",
                    repair="pad to one length, as a tokenizer does with padding='max_length'",
                )
            largest = 0 if tensor.is_floating_point() or not tensor.numel() else _largest(tensor)
            if largest > _EXACT:
                expected = f"whole numbers up to {_EXACT}"
                raise InputError("x", got=largest, expected=expected)
            columns.append(tensor.reshape(len(tensor), -1).float())
        if len({len(column) for column in columns}) > 1:
            lengths = [len(column) for column in columns]
            raise InputError("x", got=f"inputs of {lengths} samples", expected="as many of each")
        return torch.cat(columns, 1)

    def unpack(self, rows: Tensor) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """The inputs of rows [B, D]: in order, or by name."""
        sizes = [torch.Size(shape).numel() for shape in self.shapes]
        parts = [
            _as(part, getattr(torch, dtype)).reshape(len(rows), *shape)
            for part, shape, dtype in zip(
                rows.split(sizes, 1), self.shapes, self.dtypes, strict=True
            )
        ]
        if self.names:
            return (), dict(zip(self.names, parts, strict=True))
        return tuple(parts), {}

    def given(self, rows: Tensor) -> Any:
        """The inputs of rows [B, D] in the form in which they were given: a dictionary, a tuple, or an
        object of their class."""
        ordered, named = self.unpack(rows)
        return made(self.record, named or ordered) if self.record else named or ordered

    @property
    def size(self) -> int:
        return sum(torch.Size(shape).numel() for shape in self.shapes)


def packed(value: Any, facts: Mapping[str, Any], name: str) -> Any:
    """Inputs or targets, several as rows of numbers: ``name``, "fields" or "target_fields", says how in the
    facts of the data."""
    parts = facts.get(name)
    return Fields.from_dict(parts).pack(value) if parts is not None and several(value) else value


def several(inputs: Any) -> bool:
    """Whether inputs are several: a dictionary, an object of several fields, or a tuple of arrays of as
    many samples each."""
    if isinstance(inputs, Mapping) or (is_record(inputs) and not is_named_tuple(inputs)):
        return True
    arrays = isinstance(inputs, tuple) and len(inputs) > 1
    return arrays and all(isinstance(item, Tensor | np.ndarray) and item.ndim for item in inputs)


def inputs_and_target(batch: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The inputs of a dictionary, and the name of its target, if it has one. What is None is left out,
    and text beside arrays of numbers.

    Errors: a dictionary with nothing but a target.
    """
    target = next((name for name in TARGETS if name in batch), None)
    inputs = {n: v for n, v in batch.items() if n != target and v is not None}
    if not inputs:
        raise InputError(
            "data",
            got=f"samples with the keys {sorted(map(str, batch))}",
            expected=f"inputs, and a target called {', '.join(TARGETS)}",
        )
    numbers = {name: value for name, value in inputs.items() if not is_text(value)}
    return numbers or inputs, target


def is_text(value: Any) -> bool:
    """Whether a value is text, or a list of texts."""
    first = value[0] if isinstance(value, list | tuple) and value else value
    return isinstance(first, str | bytes)


def _named(inputs: Any, *, by_name: bool = False) -> dict[str, Any]:
    """The inputs by name, or by their places; a named tuple has both."""
    in_order = isinstance(inputs, tuple | list) and not (by_name and is_named_tuple(inputs))
    fields = None if in_order else fields_of(inputs)
    if fields is not None:
        return {str(name): value for name, value in fields.items()}
    return {str(place): value for place, value in enumerate(inputs)}


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Sequence) and value and isinstance(value[0], Tensor):
        return torch.stack([item.detach().cpu() for item in value])
    try:
        return torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError):
        raise InputError(
            "x",
            got=f"an input of type {type(value).__name__} that is no array of numbers",
            expected="numbers of one shape in every sample",
            repair="turn text into numbers, and pad, in the Dataset or in collate_fn",
        ) from None


def _largest(whole: Tensor) -> int:
    return int(whole.long().abs().max())


def _as(part: Tensor, dtype: torch.dtype) -> Tensor:
    return part if dtype.is_floating_point else part.round().to(dtype)


def longest(inputs_of: Callable[[int], Any], count: int) -> tuple[int, ...]:
    """The places of the samples that are longest in each of several inputs; none where all that are
    looked at have one length, or cannot be collated alone.

    >>> longest(lambda place: {"ids": torch.zeros(1, 3 + place % 2), "mask": torch.zeros(1, 3)}, 9)
    (0, 1)
    """
    best: dict[Any, tuple[int, int]] = {}
    differ = False
    for place in range(count):
        if place == _ALIKE and not differ:
            break
        try:
            x = inputs_of(place)
        except Exception:  # a collate_fn may want more samples than one
            return ()
        named = dict(enumerate(x)) if isinstance(x, tuple) else fields_of(x)
        if named is None or len(named) < 2:
            return ()
        for name, value in named.items():
            size = value.shape[1] if getattr(value, "ndim", 0) > 1 else 0
            held = best.setdefault(name, (size, place))
            differ = differ or size != held[0]
            best[name] = (size, place) if size > held[0] else held
    return tuple(sorted({place for _, place in best.values()})) if differ else ()
