"""Recipes with several seeds each, trained side by side as far as they are asked for, every step
counted.

Outputs are those that a run of the recipe would end with: of the averaged weights where it
averages, of the best epoch (by the samples that choose) where it stops early.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ravine import durations
from ravine.data.pipeline import Batch, Pipeline
from ravine.doctor.experiment import Experiment, Group, Shelf
from ravine.doctor.scores import Score, averaged, lost, score
from ravine.engine.loop.stopping import keeps_best
from ravine.recipe import Recipe

BLOCK = 500  # steps after which the budget is told
LOOKS = 40  # at most so many looks for the best epoch
MOST_ROWS = 4096  # of those that choose, and of those that decide


def plan_steps(recipe: Recipe, shelf: Shelf) -> int:
    """Steps of a recipe's whole plan."""
    pipeline = shelf.pipeline(recipe)
    return max(
        1,
        durations.steps(
            recipe.stop.after, math.ceil(pipeline.epoch_steps / recipe.optimizer.accumulate)
        ),
    )


@dataclass
class Purse:
    """The budget in training steps: what may be spent and what has been."""

    total: float
    spent: float = 0.0
    on_spend: Callable[[float], None] | None = None  # told the part that is spent

    def spend(self, steps: float) -> None:
        self.spent += steps
        if self.on_spend is not None:
            self.on_spend(min(1.0, self.spent / self.total))

    @property
    def left(self) -> float:
        return self.total - self.spent


@dataclass(frozen=True)
class Rows:
    """Which samples choose and which decide: rows of one part of the data."""

    part: str  # validation, or train where no sample can be held out
    choosing: Tensor
    deciding: Tensor

    @property
    def held_out(self) -> bool:
        return self.part == "validation"

    @staticmethod
    def of(pipeline: Pipeline, fewest: int = 16) -> Rows:
        """Halves of the validation part, or of the training part; both are the whole of what is
        fewer than ``fewest``."""
        part = (
            "validation"
            if pipeline.has("validation") and pipeline.size("validation") >= fewest
            else "train"
        )
        rows = torch.randperm(pipeline.size(part), generator=torch.Generator().manual_seed(0))
        if len(rows) < fewest:
            return Rows(part, rows, rows)
        half = len(rows) // 2
        return Rows(part, rows[:half][:MOST_ROWS], rows[half:][:MOST_ROWS])


@dataclass
class _Best:
    """A member's best epoch so far, and whether its patience has run out."""

    loss: float = math.inf
    step: int = 0
    outputs: dict[bool, Tensor] = field(default_factory=dict)
    ended: bool = False


class Field:
    """Recipes, each with the same seeds; those of one program and plan are one population."""

    def __init__(self, shelf: Shelf, rows: Rows, seeds: Sequence[int], purse: Purse):
        self.shelf, self.rows, self.seeds, self.purse = shelf, rows, list(seeds), purse
        self.recipes: list[Recipe] = []
        self.plans: list[int] = []
        self._places: list[tuple[_Lane, int] | None] = []  # None: cannot be run at all

    def add(self, recipes: Sequence[Recipe]) -> list[int]:
        """More recipes, at their first step; their places."""
        first = len(self.recipes)
        kinds: dict[tuple[int, str], list[int]] = {}
        for i, recipe in enumerate(recipes, start=first):
            self.recipes.append(recipe)
            self.plans.append(plan_steps(recipe, self.shelf))
            self._places.append(None)
            kinds.setdefault((self.plans[i], recipe.program), []).append(i)
        for (plan, _), places in kinds.items():
            with _tolerant():
                lane = _Lane(self, [self.recipes[i] for i in places], plan)
                for k, i in enumerate(places):
                    self._places[i] = (lane, k)
        return list(range(first, len(self.recipes)))

    def cost(self, i: int, part: float) -> float:
        """Steps that are still to be made to bring recipe i to a part of its plan."""
        place = self._places[i]
        done = place[0].group.step if place else 0
        return max(0, len(self.seeds) * (_to(self.plans[i], part) - done))

    def advance(self, wanted: Sequence[int], part: float) -> None:
        """These go on to this part of their plans; whatever stands in one population with them is
        dropped."""
        lanes: dict[int, tuple[_Lane, list[int]]] = {}
        for i, place in enumerate(self._places):
            if place is not None:
                lanes.setdefault(id(place[0]), (place[0], []))[1].extend(
                    [place[1]] if i in wanted else []
                )
        for lane, kept in lanes.values():
            if kept and not lane.failed and lane.group.step < _to(lane.plan, part):
                with _tolerant(lane):
                    lane.keep(kept)
                    lane.advance(_to(lane.plan, part))

    def outputs(self, i: int, *, deciding: bool) -> list[Tensor]:
        place = self._places[i]
        if place is None or place[0].failed:
            return []
        return place[0].outputs(place[1], deciding)

    def scores(self, i: int, *, deciding: bool = False) -> list[Score]:
        """Recipe i's score by seed."""
        rows = self.rows.deciding if deciding else self.rows.choosing
        place = self._places[i]
        if place is None or place[0].failed:
            return [lost(len(rows))] * len(self.seeds)
        lane, k = place
        return [
            score(lane.pipeline, self.recipes[i], output, lane.batch(deciding))
            if alive
            else lost(len(rows))
            for output, alive in zip(lane.outputs(k, deciding), lane.alive(k), strict=True)
        ]

    def ensemble(self, i: int) -> Score:
        """The score of recipe i's seeds as one ensemble, on the samples that decide."""
        place = self._places[i]
        outputs = self.outputs(i, deciding=True)
        if place is None or not outputs:
            return lost(len(self.rows.deciding))
        lane = place[0]
        return score(
            lane.pipeline,
            self.recipes[i],
            averaged(outputs, self.recipes[i], lane.pipeline.task),
            lane.batch(deciding=True),
        )

    def weigh(self, i: int, part: float) -> None:
        """Recipe i's members learn from this part of the training samples alone; the others weigh
        nothing."""
        place = self._places[i]
        if place is not None:
            place[0].subset(part)


def _to(plan: int, part: float) -> int:
    return max(1, round(part * plan))


class _Lane:
    """The population of one program and plan in a field."""

    def __init__(self, owner: Field, recipes: Sequence[Recipe], plan: int):
        self.owner, self.plan, self.failed = owner, plan, False
        self.seeds = len(owner.seeds)
        members = [recipe.edit({"seed": seed}) for recipe in recipes for seed in owner.seeds]
        self.group: Group = Experiment(members, owner.shelf).groups[0]
        self.pipeline = self.group.pipeline
        self._batches: dict[bool, Batch] = {}
        self.best = {m: _Best() for m, recipe in enumerate(members) if keeps_best(recipe)}

    def batch(self, deciding: bool) -> Batch:
        if deciding not in self._batches:
            rows = self.owner.rows
            chosen = rows.deciding if deciding else rows.choosing
            parts = list(self.pipeline.split(rows.part, batch=4096))
            x, y = (torch.cat([getattr(part, name) for part in parts]) for name in ("x", "y"))
            chosen = chosen.to(y.device)
            self._batches[deciding] = Batch(x[chosen], y[chosen], chosen)
        return self._batches[deciding]

    # --- training ---------------------------------------------------------------------------------

    def keep(self, recipes: Sequence[int]) -> None:
        """Only these recipes' members go on."""
        wanted = {m for k in recipes for m in range(k * self.seeds, (k + 1) * self.seeds)}
        rows = [row for row, member in enumerate(self.group.members) if member in wanted]
        if len(rows) < len(self.group.members):
            self.group.keep(rows)

    def advance(self, to: int) -> None:
        """To a step; where members stop early, epoch by epoch."""
        look = self.group.epoch_steps * math.ceil(self.plan / self.group.epoch_steps / LOOKS)
        while self.group.step < to:
            if (
                self.best
                and all(self.best[m].ended for m in self.group.members if m in self.best)
                and self._all_watched()
            ):
                return
            next_step = min(
                to, (self.group.step // look + 1) * look if self.best else self.group.step + BLOCK
            )
            steps = len(self.group.members) * (next_step - self.group.step)
            self.group.advance(next_step)
            self.owner.purse.spend(steps)
            if self.best and (self.group.step % look == 0 or self.group.step >= self.plan):
                self._look()

    def _all_watched(self) -> bool:
        return all(member in self.best for member in self.group.members)

    def _look(self) -> None:
        """Note the best epoch of those that end with it; judged by the samples that choose."""
        choosing = self._now(deciding=False)
        deciding: list[Tensor] | None = None
        for row, member in enumerate(self.group.members):
            best = self.best.get(member)
            if best is None or best.ended:
                continue
            loss = self._loss(row, choosing[row])
            if loss < best.loss:
                deciding = deciding or self._now(deciding=True)
                best.loss, best.step, best.outputs = (
                    loss,
                    self.group.step,
                    {False: choosing[row], True: deciding[row]},
                )
            patience = self.group.curves[row].recipe.stop.patience
            if patience is not None:
                best.ended = self.group.step - best.step >= durations.steps(
                    patience, self.group.epoch_steps
                )

    def _loss(self, row: int, output: Tensor) -> float:
        y = self.batch(deciding=False).y
        with torch.inference_mode():
            loss = self.group.program.population.objectives[row].loss(output.to(y.device), y)
        value = float(loss.double().mean())
        return value if math.isfinite(value) else math.inf

    def subset(self, part: float) -> None:
        """A weight of 1 / part for the first samples of the training part's random order, of 0 for
        the others."""
        n = self.pipeline.train_size
        order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
        weights = torch.zeros(n)
        weights[order[: max(1, int(part * n))]] = 1 / part
        stepper = self.group.stepper
        stepper.sample_weights = (
            weights.to(stepper.population.theta).expand(len(self.group.members), n).clone()
        )

    # --- outputs ----------------------------------------------------------------------------------

    def _rows(self, recipe: int) -> list[tuple[int, int]]:
        members = range(recipe * self.seeds, (recipe + 1) * self.seeds)
        return [(member, self.group.members.index(member)) for member in members]

    def alive(self, recipe: int) -> list[bool]:
        return [
            bool(self.group.stepper.alive[row]) or m in self.best for m, row in self._rows(recipe)
        ]

    def outputs(self, recipe: int, deciding: bool) -> list[Tensor]:
        """The outputs of one recipe's members, in the seeds' order."""
        now = self._now(deciding)
        return [
            self.best[m].outputs.get(deciding, now[row]) if m in self.best else now[row]
            for m, row in self._rows(recipe)
        ]

    def _now(self, deciding: bool) -> list[Tensor]:
        """Every member's outputs as it stands, of averaged weights where it averages them."""
        stepper = self.group.stepper
        averages = np.array([curve.recipe.average.ema > 0 for curve in self.group.curves])
        if stepper.average is None or not averages.any():
            return self.group.outputs(self.batch(deciding))
        theta = stepper.population.theta
        held = theta.detach().clone()
        with torch.no_grad():
            theta[averages] = stepper.average[averages]
            found = self.group.outputs(self.batch(deciding))
            theta.copy_(held)
        return found


@contextmanager
def _tolerant(lane: _Lane | None = None) -> Iterator[None]:
    """Recipes that cannot be run at all (batch norm over a batch of one sample, …) are out, not an
    error."""
    try:
        yield
    except (RuntimeError, ValueError):
        if lane is not None:
            lane.failed = True
