"""Members, or the parts of one member's batch, on threads of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from ravine.engine.rows.theta import view
from ravine.engine.rows.ways.one_by_one import OneByOne
from ravine.engine.rows.ways.way import store
from ravine.engine.rows.ways.workload import Workload


class _Pool:
    """Threads that run one kernel each: several for a kernel would fight over the cores."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def map(
        self, threads: int, work: Callable[..., Tensor], *given: Iterable[Any]
    ) -> Iterable[Tensor]:
        """``map`` by so many threads."""
        if self._pool is None or self._pool._max_workers != threads:
            self._pool = ThreadPoolExecutor(threads, initializer=_one_kernel_thread)
        return self._pool.map(work, *given)


def _one_kernel_thread() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # the mode belongs to a thread


class Threads(OneByOne):
    """Each member on a thread of its own. Used on a CPU for several members with convolutions or
    recurrence: their kernels share threads poorly, while whole members share nothing, and vmap turns
    convolutions into slower grouped ones."""

    name = "members on threads"
    phrase = "members on {threads} threads, each on one"

    @classmethod
    def rule(cls, work: Workload) -> str | None:
        large = work.convolutional or work.recurrent
        if work.device != "cpu" or work.members == 1 or work.threads == 1 or work.foreign:
            return None
        return "convolutions and recurrence gain more from members on threads" if large else None

    def bind(self) -> None:
        super().bind()
        self._pool = _Pool()

    def _each(self, row: Callable[[int], Tensor]) -> Iterable[Tensor]:
        # threads would mix up the draws of modules that use the global generator
        if len(self.population) == 1 or self.population.global_seeds is not None:
            return super()._each(row)
        return self._pool.map(self.arithmetic.threads, row, range(len(self.population)))


class Parts(OneByOne):
    """The parts of a single member's batch on a thread each; the gradient of their mean is the sum of
    their shares. Used on a CPU for a recurrent network whose layers and loss see each sample alone:
    its kernels come one after another, each too short to be shared among threads."""

    name = "parts on threads"
    phrase = "parts of the batch on {threads} threads"
    own_threads = True

    @classmethod
    def possible(cls, work: Workload) -> bool:
        """Whether the gradient of a recurrent network's batch can be taken in parts."""
        several = work.threads > 1 and work.device == "cpu"
        return several and work.recurrent and work.divisible

    @classmethod
    def rule(cls, work: Workload) -> str | None:
        pays = cls.possible(work) and work.parts_pay
        return "recurrent kernels share threads poorly" if pays else None

    def bind(self) -> None:
        super().bind()
        self._pool = _Pool()

    def gradients(
        self, x: Tensor, y: Tensor, weight: Tensor | None, step: int, accumulate: float = 0.0
    ) -> Tensor:
        if len(self.population) > 1:  # rows have come
            return super().gradients(x, y, weight, step, accumulate)
        with self._lowered(0):  # threads of their own record gradients by default
            return self._in_parts(x, y, weight, accumulate)

    def _in_parts(self, x: Tensor, y: Tensor, weight: Tensor | None, accumulate: float) -> Tensor:
        rows, parts = self.population, self.arithmetic.threads
        total = rows.objectives[0].loss.total  # of samples, or of their class weights
        whole = total(y)
        # the first part fills grad itself
        others = rows.grad.new_empty(parts - 1, rows.layout.size)
        more = [[view(row, entry) for entry in rows.layout.entries] for row in others]
        into = [rows.gradients_of[0], *more]

        def part(gradients: list[Tensor], x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
            share = total(y) / whole if whole else 0.0
            loss = self._training_loss(rows.objectives[0], x, y, weight) * share
            found = torch.autograd.grad(loss, rows.parameters[0], materialize_grads=True)
            store(gradients, found, accumulate if gradients is into[0] else 0.0)
            return loss.detach()

        weights = [None] * parts if weight is None else weight[0].chunk(parts)
        batches = (into, x.chunk(parts), y.chunk(parts), weights)
        losses = list(self._pool.map(parts, part, *batches))
        for row in others[: len(losses) - 1]:
            rows.grad[0].add_(row, alpha=accumulate or 1.0)
        return torch.stack(losses).sum(0, keepdim=True).to(rows.theta.dtype)
