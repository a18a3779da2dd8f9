"""The data of members that each have their own, as the folds of a cross-validation do: their
batches side by side.

A fold's pipeline is that of a run on this fold alone: its preprocessing is fitted to its own training
rows, and its batches come in the order of a run of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ravine.data.pipeline import Batch, Pipeline
from ravine.engine.rows.members import Column, Members


class Folds(Column):
    """Pipelines of P members, of as many steps an epoch and of samples of one shape; a batch is
    x [P, B, ...], y [P, B, ...].

    Where training parts differ in size, the last batch of an epoch is filled up with a sample that
    weighs nothing: only for networks and losses that see each sample alone.
    """

    name = "folds"

    def __init__(self, pipelines: Sequence[Pipeline], rounded: torch.dtype | None = None):
        """``rounded``: the precision to which a network rounds its inputs first."""
        self.pipelines = [p if rounded is None else p.lowered(rounded) for p in pipelines]
        self._others: list[Folds] = []  # the same data in batches of other sizes
        self._settle()

    def _settle(self) -> None:
        first = self.pipelines[0]
        self.batch_size, self.epoch_steps = first.batch_size, first.epoch_steps
        self.train_size = max(pipeline.train_size for pipeline in self.pipelines)

    def with_batch(self, batch: int) -> Folds:
        """The same data in batches of another size."""
        other = copy.copy(self)
        other.pipelines = [pipeline.with_batch(batch) for pipeline in self.pipelines]
        other._settle()
        self._others.append(other)
        return other

    def batch(self, step: int) -> Batch:
        """The training batch of a step, 0 first."""
        own = [pipeline.batch(step) for pipeline in self.pipelines]
        sizes = [batch.size for batch in own]
        size, weight = max(sizes), None
        if min(sizes) < size:
            dtype = self.pipelines[0].dtype
            weight = torch.zeros(len(own), size, dtype=dtype, device=own[0].x.device)
            for row, count in zip(weight, sizes, strict=True):
                row[:count] = size / count
        return Batch(
            torch.stack([_filled(batch.x, size) for batch in own]),
            torch.stack([_filled(batch.y, size) for batch in own]),
            torch.stack([_filled(batch.index, size) for batch in own]),
            weight,
        )

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """The training batches of the steps ``first`` to ``last - 1``."""
        for step in range(first, last):
            yield self.batch(step)

    def keep(self, rows: Sequence[int]) -> None:
        for each in (self, *self._others):
            each.pipelines = [each.pipelines[row] for row in rows]

    def stop_reading(self) -> None:
        """End what reads ahead."""
        for pipeline in self.pipelines:
            pipeline.stop_reading()


def training_data(
    pipeline: Pipeline,
    folds: Sequence[Pipeline] | None,
    rounded: torch.dtype | None,
    members: Members,
) -> Pipeline | Folds:
    """What gives a population its batches: one pipeline for all members, or one of each.

    A network that rounds its inputs to bfloat16 first gets them rounded already, the batches of
    several steps at once: fewer kernels than rounding in each step.
    """
    if folds is None:
        return pipeline if rounded is None else pipeline.lowered(rounded)
    own = Folds(folds, rounded)
    members.add(own)
    return own


def _filled(rows: Tensor, size: int) -> Tensor:
    """Rows [B, ...] made ``size`` by repeating the last."""
    missing = size - len(rows)
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows
