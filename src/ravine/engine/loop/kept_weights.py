"""Which weights a member is evaluated and ends with: the last, their average, or the best so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ravine.data.pipeline import Pipeline
from ravine.engine.loop.stopping import Stopping, keeps_best
from ravine.engine.rows.members import Members, Newcomers, Tensors, Values
from ravine.engine.rows.population import Population
from ravine.engine.rows.step import Stepper
from ravine.nn.normalization import BatchNorm
from ravine.recipe import Recipe

Final = tuple[Tensor, dict[str, Tensor]]  # rows [P, D], and stacked buffers


class Weights:
    """The averages at epochs' ends (SWA) and the best weights of a population, beside theta and the
    running average, which the stepper keeps."""

    def __init__(self, stepper: Stepper, members: Members, waiting: Sequence[Recipe]):
        self.population: Population = stepper.population
        self.stepper, self.members = stepper, members
        self.swa_counts = [0] * len(members)  # epochs' ends that are in each average
        self.best: Tensor | None = None  # [P, D]
        self.best_buffers: dict[str, Tensor] = {}
        recipes = [*members.recipes, *waiting]
        if any(keeps_best(recipe) for recipe in recipes):
            self.best = self.population.theta.detach().clone()
            self.best_buffers = _clones(self.population.saved_buffers())
        members.add(Values("swa_counts", self, "swa_counts", _no_counts, state=int, returns=True))
        members.add(Tensors("best", self, "best", lambda new: new.theta))
        members.add(Tensors("best_buffer", self, "best_buffers", lambda new: new.buffers))

    def average_epoch(self, rows: Sequence[int]) -> None:
        """Stochastic weight averaging: the mean of the weights at the epochs' ends."""
        average = self.stepper.average
        assert average is not None
        for row in rows:
            self.swa_counts[row] += 1
            average[row].lerp_(self.population.theta[row], 1.0 / self.swa_counts[row])

    def evaluated(self) -> Tensor:
        """The weights that are evaluated [P, D]: the average where a member keeps one, else
        theta."""
        average, theta = self.stepper.average, self.population.theta
        if average is None:
            return theta
        recipes = self.members.recipes
        averages = [
            bool(r.average.ema) or n > 0 for r, n in zip(recipes, self.swa_counts, strict=True)
        ]
        return torch.where(torch.tensor(averages, device=theta.device)[:, None], average, theta)

    def broken(self, rows: Sequence[int]) -> list[int]:
        """Those of the rows whose average has NaN or infinity while their weights have none."""
        if self.stepper.average is None:
            return []
        finite = [w.isfinite().all(1) for w in (self.population.theta, self.evaluated())]
        bad = finite[0] & ~finite[1]
        return [row for row in rows if bad[row]]

    def keep_best(self, rows: Sequence[int]) -> None:
        """Keep the weights that were just evaluated as the best of these members."""
        if self.best is None or not rows:
            return
        evaluated, buffers = self.evaluated(), self.population.saved_buffers()
        for row in rows:
            self.best[row].copy_(evaluated[row])
            for name, stacked in buffers.items():
                self.best_buffers[name][row].copy_(stacked[row])

    def final(self, stops: Sequence[Stopping]) -> Final:
        """The weights and buffers with which each member would end now."""
        rows = self.evaluated().clone()
        buffers = _clones(self.population.saved_buffers())
        for i, stop in enumerate(stops):
            if self.best is not None and stop.keeps_best and stop.best is not None:
                rows[i].copy_(self.best[i])
                for name, stacked in buffers.items():
                    stacked[i].copy_(self.best_buffers[name][i])
        return rows, buffers

    def refresh_statistics(
        self,
        pipeline_of: Callable[[int], Pipeline],
        stops: Sequence[Stopping],
        rows: Sequence[int],
        final: Final,
    ) -> None:
        """The running statistics of averaged networks, computed anew from the training data of
        each row (SWA, 2018).

        The population holds the final weights.
        """
        if not self.population.saved_buffers():
            return
        for row in rows:
            if self.swa_counts[row] > 0 and not stops[row].keeps_best:
                model = self.population.objectives[row].model
                update_statistics(model, (batch.x for batch in pipeline_of(row).split("train")))
                self.population.gather_buffers()
                for name, stacked in self.population.saved_buffers().items():
                    final[1][name][row].copy_(stacked[row])


@torch.no_grad()
def update_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Running means and variances become the mean over these batches; whatever else a network
    keeps of its inputs is updated by its own rule.

    >>> norm = nn.BatchNorm1d(1)
    >>> update_statistics(norm, [torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [8.0]])])
    >>> norm.running_mean, norm.running_var
    (tensor([3.5000]), tensor([5.]))
    """
    norms: list[Any] = [
        m
        for m in model.modules()
        if isinstance(getattr(m, "running_mean", None), Tensor) and hasattr(m, "momentum")
    ]
    for norm in norms:
        if isinstance(norm, BatchNorm):
            norm.num_batches_tracked.zero_()
    training, momenta = model.training, [norm.momentum for norm in norms]
    model.train()
    try:
        for k, x in enumerate(batch for batch in batches if len(batch) > 1):
            for norm in norms:
                # 1, 1/2, 1/3, …: the plain mean, in which the first batch replaces what was there;
                # Ravine's own counts by itself, for it may see a batch in several parts
                norm.momentum = None if isinstance(norm, BatchNorm) else 1 / (k + 1)
            model(x)
    finally:
        model.train(training)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


@contextmanager
def held(
    population: Population, theta: Tensor, buffers: dict[str, Tensor] | None = None
) -> Iterator[None]:
    """A context in which the population holds other weights [P, D] (and buffers)."""
    if theta is population.theta:
        yield
        return
    _swap(population, theta, buffers or {})
    try:
        yield
    finally:
        _swap(population, theta, buffers or {})


@torch.no_grad()
def _swap(population: Population, theta: Tensor, buffers: dict[str, Tensor]) -> None:
    pairs = [(population.theta, theta)]
    pairs += [(population.buffers[name], other) for name, other in buffers.items()]
    for here, there in pairs:
        kept = here.detach().clone()
        here.copy_(there)
        there.copy_(kept)


def _clones(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _no_counts(new: Newcomers) -> list[int]:
    return [0] * len(new)
