"""Members one by one: each row by its own module and autograd. Every program can run so."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from ravine.engine.rows.objective import Objective, attacked
from ravine.engine.rows.theta import ParameterMatrix, view
from ravine.engine.rows.ways.elementwise import Elementwise
from ravine.engine.rows.ways.way import PLAIN, Arithmetic, Way, store
from ravine.engine.rows.ways.workload import Workload
from ravine.nn.analysis.traits import takes_bfloat16
from ravine.randomness import key, seed_globally


class OneByOne(Way):
    """Used where no other way takes a program: a single network of convolutions or recurrence, whose
    kernels are large enough to fill the machine alone, or a module that cannot be mapped.

    In bfloat16 the weights are cast once a step, where every layer is known to take them so:
    autocast would cast them at each use, and their gradients back.
    """

    name = "one by one"
    phrase = "members one by one"
    calls_modules = True

    def __init__(
        self,
        population: ParameterMatrix,
        arithmetic: Arithmetic = PLAIN,
        *,
        cast_once: bool = True,
    ):
        self._cast_once = cast_once
        super().__init__(population, arithmetic)

    @classmethod
    def rule(cls, work: Workload) -> str | None:
        return "no other way takes this program"

    def bind(self) -> None:
        rows, products = self.population, self.arithmetic.products
        self.low: Tensor | None = None  # [P, D], theta in the precision of products
        if products is None or not self._cast_once or rows.sharded:
            return
        if not takes_bfloat16(rows.objectives[0].model):
            return  # autocast decides for each operation
        self.low = torch.empty_like(rows.theta, dtype=products)
        entries, theta = rows.layout.entries, rows.theta.detach()
        sources = [theta if entry.kind == "norm" else self.low for entry in entries]
        self._low = [
            [view(m[i], e) for m, e in zip(sources, entries, strict=True)] for i in range(len(rows))
        ]
        self._full = [[view(row, entry) for entry in entries] for row in theta]

    def gradients(
        self, x: Tensor, y: Tensor, weight: Tensor | None, step: int, accumulate: float = 0.0
    ) -> Tensor:
        def row(i: int) -> Tensor:
            return self.row_gradient(i, x, y, weight, step, accumulate)

        losses = list(self._each(row))
        return torch.stack(losses).to(self.population.theta.dtype)

    def row_gradient(
        self, i: int, x: Tensor, y: Tensor, weight: Tensor | None, step: int, accumulate: float
    ) -> Tensor:
        """The gradient of row i alone, into its row of grad; its loss."""
        own = (x[i], y[i]) if self.population.apart else (x, y)
        with torch.enable_grad():
            return self._row(i, *own, None if weight is None else weight[i], step, accumulate)

    def _each(self, row: Callable[[int], Tensor]) -> Iterable[Tensor]:
        return map(row, range(len(self.population)))

    def _row(
        self, i: int, x: Tensor, y: Tensor, weight: Tensor | None, step: int, accumulate: float
    ) -> Tensor:
        """Row i's gradient into its row of grad; its loss."""
        rows = self.population
        if rows.global_seeds is not None:  # a person's module may draw from the global generator
            seed_globally(key(rows.global_seeds[i], "module", step))
        with self._lowered(i):
            with Elementwise() if self.arithmetic.joined else contextlib.nullcontext():
                loss = self._training_loss(rows.objectives[i], x, y, weight)
            found = rows.slopes(i, loss)
        if rows.buckets is None or not rows.buckets.active:  # else they are there already
            store(rows.gradients_of[i], found, accumulate)
        return loss.detach()

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad(), self.casting():
            laid_out = self.laid_out(x)
            return torch.stack([o(laid_out, y, None) for o in self.population.objectives])

    def outputs(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.stack([self.call(o.model, x) for o in self.population.objectives])

    @contextlib.contextmanager
    def _lowered(self, i: int) -> Iterator[None]:
        """A member's parameters in the precision of products, forward and backward."""
        if self.low is None:
            yield
            return
        rows = self.population
        self.low[i].copy_(rows.theta[i])
        for parameter, low in zip(rows.parameters[i], self._low[i], strict=True):
            parameter.data = low
        try:
            yield
        finally:
            for parameter, full in zip(rows.parameters[i], self._full[i], strict=True):
                parameter.data = full

    def _training_loss(
        self, objective: Objective, x: Tensor, y: Tensor, weight: Tensor | None
    ) -> Tensor:
        """The mean loss of a batch, half of it on attacked inputs where the recipe asks for it."""
        x = self.laid_out(x)
        # weights that are cast already need no autocast
        with self.casting() if self.low is None else contextlib.nullcontext():
            if not objective.attacks:
                return self._loss(objective, x, y, weight)
            x = x.detach().requires_grad_()
            loss = self._loss(objective, x, y, weight)
            (slope,) = torch.autograd.grad(loss, x, retain_graph=True)
            other = attacked(x, slope, objective.adversarial)
            return (loss + self._loss(objective, other, y, weight)) / 2

    def _loss(self, objective: Objective, x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        network = self._network(objective)
        if self.low is None:
            return objective.mean(network(x), y, weight)
        output = network(x.to(self.low.dtype) if x.is_floating_point() else x)
        return objective.mean(output.to(self.population.theta.dtype), y, weight)

    def _network(self, objective: Objective) -> Callable[[Tensor], Any]:
        return objective.model
