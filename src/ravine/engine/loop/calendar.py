"""Which epoch a step belongs to and which batches it takes: batches may be accumulated, and may
grow from epoch to epoch."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

from ravine.catalogue import durations
from ravine.data.pipeline import Batch, Pipeline
from ravine.engine.loop.folds import Folds
from ravine.errors import InputError
from ravine.optim.scaling import batch_sizes
from ravine.recipe import Recipe


class Calendar:
    """Steps and epochs of a program. Where batches grow, epochs have fewer and fewer steps.

    ``epoch_steps`` is the length of the first epoch; durations in epochs are counted by the epochs
    themselves.
    """

    def __init__(self, recipe: Recipe, pipeline: Pipeline | Folds):
        self.accumulate: int = recipe.optimizer.accumulate
        sizes = _sizes(recipe, pipeline)
        held: dict[Any, Any] = {
            size: pipeline if size == pipeline.batch_size else pipeline.with_batch(size)
            for size in set(sizes)
        }
        self._pipelines = [held[size] for size in sizes]  # of each epoch; the last one's goes on
        lengths = [math.ceil(p.epoch_steps / self.accumulate) for p in self._pipelines]
        self.epoch_steps = lengths[0]
        # the first step of each epoch
        self._starts = [sum(lengths[:epoch]) for epoch in range(len(lengths))]
        self._last = lengths[-1]

    def stop_reading(self) -> None:
        """End what reads batches ahead."""
        for pipeline in self._pipelines:
            pipeline.stop_reading()

    def place(self, step: int) -> tuple[int, int]:
        """The epoch of a step, and its place in the epoch."""
        epoch = bisect_right(self._starts, step) - 1
        if epoch < len(self._starts) - 1:
            return epoch, step - self._starts[epoch]
        more, place = divmod(step - self._starts[-1], self._last)
        return epoch + more, place

    def start(self, epoch: int) -> int:
        """The first step of an epoch."""
        beyond = max(0, epoch - len(self._starts) + 1)
        return self._starts[min(epoch, len(self._starts) - 1)] + beyond * self._last

    def end(self, step: int) -> int:
        """The number of steps after which the epoch of this step is over."""
        return self.start(self.place(step)[0] + 1)

    def is_end(self, step: int) -> bool:
        """Whether an epoch is over after so many steps."""
        return self.place(step)[1] == 0

    def epochs(self, step: int) -> float:
        """How many epochs so many steps are."""
        epoch, place = self.place(step)
        return epoch + place / (self.start(epoch + 1) - self.start(epoch))

    def steps(self, duration: str, total: int | None = None) -> int:
        """Steps in a duration from the beginning of the run."""
        amount, unit = durations.parse(duration)
        if unit != "ep":
            return durations.steps(duration, self.epoch_steps, total)
        whole = int(amount)
        part = (amount - whole) * (self.start(whole + 1) - self.start(whole))
        return self.start(whole) + int(part + Fraction(1, 2))

    def batches(self, first: int, last: int) -> Iterator[Sequence[Batch]]:
        """The micro-batches of each step; an epoch's last step takes the rest of the epoch."""
        if self.accumulate == 1 and len(self._starts) == 1:
            yield from ([batch] for batch in self._pipelines[0].batches(first, last))
            return
        for step in range(first, last):
            epoch, place = self.place(step)
            pipeline = self._pipelines[min(epoch, len(self._pipelines) - 1)]
            begin = epoch * pipeline.epoch_steps
            start = begin + place * self.accumulate
            yield list(
                pipeline.batches(start, min(start + self.accumulate, begin + pipeline.epoch_steps))
            )


def plan_steps(recipe: Recipe, pipeline: Pipeline) -> int:
    """Steps of a recipe's whole plan, its end by ``stop.after``."""
    return max(1, Calendar(recipe, pipeline).steps(recipe.stop.after))


def _sizes(recipe: Recipe, pipeline: Pipeline | Folds) -> list[int]:
    """The batch size of each epoch, up to where it no longer changes."""
    grow = recipe.data.grow
    if not grow.milestones:
        return [pipeline.batch_size]
    amount, unit = durations.parse(recipe.stop.after)
    if unit != "ep":
        raise InputError(
            "stop.after", got=recipe.stop.after, expected="epochs (ep), where the batch grows"
        )
    limit = min(grow.limit or pipeline.train_size, pipeline.train_size)
    sizes = batch_sizes(
        pipeline.batch_size, grow.milestones, math.ceil(amount), factor=grow.factor, limit=limit
    )
    while len(sizes) > 1 and sizes[-1] == sizes[-2]:
        sizes.pop()
    return sizes
