"""Which columns are what: the columns of each parameter tensor in a row of theta, and the features of a
row of a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One parameter tensor: columns ``start:stop`` of every row, seen as ``shape``."""

    name: str
    shape: tuple[int, ...]
    start: int
    kind: str  # "weight", "bias" or "norm"
    layer: int  # the layer's place from the input, 0 first
    unit_axes: int = 1  # how many of the first dimensions count units; the others lead into one

    @property
    def units(self) -> int:
        """How many units the weights lead into: rows of a matrix, kernels; a vector leads into one."""
        return math.prod(self.shape[: self.unit_axes]) if len(self.shape) > 1 else 1

    @property
    def stop(self) -> int:
        return self.start + math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The entries of a row, weights first; ``weights`` is the number of columns that decay and
    penalties touch."""

    entries: tuple[Entry, ...]
    weights: int

    @property
    def size(self) -> int:
        return self.entries[-1].stop if self.entries else 0

    def __getitem__(self, name: str) -> Entry:
        return next(entry for entry in self.entries if entry.name == name)

    @classmethod
    def of(
        cls,
        parameters: Iterable[tuple[str, tuple[int, ...], str, int]],
        unit_axes: Mapping[str, int] | None = None,
    ) -> Layout:
        """Lay out (name, shape, kind, layer) one after the other, the weights before all others.

        ``unit_axes`` names the parameters whose units are counted by more than one dimension.

        >>> layout = Layout.of([("0.weight", (3, 2), "weight", 0), ("0.bias", (3,), "bias", 0), ("1.weight", (1, 3), "weight", 1)])
        >>> [(e.name, e.start, e.stop) for e in layout.entries], layout.weights, layout.size
        ([('0.weight', 0, 6), ('1.weight', 6, 9), ('0.bias', 9, 12)], 9, 12)
        """
        entries: list[Entry] = []
        start = weights = 0
        for name, shape, kind, layer in sorted(parameters, key=lambda p: p[2] != "weight"):
            axes = (unit_axes or {}).get(name, 1)
            entries.append(Entry(name, tuple(shape), start, kind, layer, axes))
            start = entries[-1].stop
            weights = start if kind == "weight" else weights
        return cls(tuple(entries), weights)


class Features(tuple[int, ...]):
    """The shape (F,) of a row of a table, and in ``groups`` what its features are, in order: pairs
    (what, width) with "number", "flag", "category" (columns of 0 and 1 of one category) or "text".

    >>> shape = Features((4,), [("number", 1), ("category", 3)])
    >>> shape == (4,), shape.groups
    (True, (('number', 1), ('category', 3)))
    """

    groups: tuple[tuple[str, int], ...]

    def __new__(cls, shape: Iterable[int], groups: Iterable[tuple[str, int]] = ()) -> Features:
        self = super().__new__(cls, tuple(shape))
        self.groups = tuple((what, width) for what, width in groups)
        return self
