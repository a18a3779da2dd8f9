"""The gradient of one row, added up between ranks in parts while the backward pass still runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor

from ravine.engine.rows.theta import ParameterMatrix

BUCKET = 1 << 20  # bytes at least of a part, but for the last ones
Sum = Callable[[Tensor], Callable[[], None]]  # begins a sum in place; what it gives ends it


class Buckets:
    """Neighbouring columns of the gradient, the last layers' first, as a backward pass comes to them.
    Each part is sent when it and all before it are whole, so that all ranks send in the same order."""

    def __init__(self, population: ParameterMatrix, begin: Sum):
        self.active = False
        self._population, self._begin = population, begin
        self._ends: list[Callable[[], None]] = []  # of the parts that are sent
        entries = population.layout.entries
        sizes = [population.gradients_of[0][i].nbytes for i in range(len(entries))]
        # biases and norms stand behind all weights, and come from all layers: their part is the last
        weights = [i for i, entry in enumerate(entries) if entry.kind == "weight"]
        others = [i for i in range(len(entries)) if i not in set(weights)]
        self._parts: list[list[int]] = [[]]
        for i in reversed(weights):
            if sum(sizes[j] for j in self._parts[-1]) >= BUCKET:
                self._parts.append([])
            self._parts[-1].append(i)
        self._parts = [part for part in (*self._parts, others) if part]
        self._spans = [
            (min(entries[i].start for i in part), max(entries[i].stop for i in part))
            for part in self._parts
        ]
        self._part_of = {i: number for number, part in enumerate(self._parts) for i in part}
        for i, parameter in enumerate(population.parameters[0]):
            parameter.register_hook(partial(self._arrived, i))

    @contextmanager
    def overlapped(self) -> Iterator[None]:
        """A backward pass in it fills the gradient with the sum over the ranks."""
        self._missing = [set(part) for part in self._parts]
        self._ends.clear()
        self.active = True
        try:
            yield
        finally:
            self.active = False
        for i in set().union(*self._missing):  # parameters that the loss does not depend on
            self._population.gradients_of[0][i].zero_()
        self._missing = [set() for _ in self._parts]
        self._send()
        for end in self._ends:
            end()

    def _arrived(self, i: int, grad: Tensor) -> None:
        if not self.active:
            return
        self._population.gradients_of[0][i].copy_(grad.detach())
        self._missing[self._part_of[i]].discard(i)
        self._send()

    def _send(self) -> None:
        while len(self._ends) < len(self._parts) and not self._missing[len(self._ends)]:
            start, stop = self._spans[len(self._ends)]
            self._ends.append(self._begin(self._population.grad[0, start:stop]))
