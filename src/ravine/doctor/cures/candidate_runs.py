"""Recipes with several seeds each, trained side by side as far as they are asked for, every step
counted.

Outputs are those that a run of the recipe would end with: of the averaged weights where it
averages, of the best epoch (by the samples that choose) where it stops early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ravine.data.pipeline import Batch, Pipeline
from ravine.doctor.cures.scores import Score, lost, score
from ravine.doctor.experiments.experiment import SharedData
from ravine.engine.execute import running
from ravine.engine.loop.kept_weights import held
from ravine.engine.loop.loop import TrainingLoop
from ravine.engine.loop.record import Memory
from ravine.engine.loop.stopping import keeps_best
from ravine.engine.rows.evaluate import evaluation
from ravine.errors import RavineError
from ravine.recipe import Recipe

BLOCK = 500  # steps after which the budget is reported
MOST_ROWS = 4096  # of those that choose, and of those that decide


@dataclass
class Budget:
    """The budget in training steps: what may be spent and what has been."""

    total: float
    spent: float = 0.0
    on_spend: Callable[[float], None] | None = None  # called with the part that is spent

    def spend(self, steps: float) -> None:
        self.spent += steps
        if self.on_spend is not None:
            self.on_spend(min(1.0, self.spent / self.total))

    @property
    def left(self) -> float:
        return self.total - self.spent


@dataclass(frozen=True)
class SampleHalves:
    """Which samples choose and which decide: rows of one part of the data."""

    part: str  # validation, or train where no sample can be held out
    choosing: Tensor
    deciding: Tensor

    @property
    def held_out(self) -> bool:
        return self.part == "validation"

    @staticmethod
    def of(pipeline: Pipeline, fewest: int = 16) -> SampleHalves:
        """Halves of the validation part, or of the training part; both are the whole of what is
        fewer than ``fewest``."""
        part = (
            "validation"
            if pipeline.has("validation") and pipeline.size("validation") >= fewest
            else "train"
        )
        rows = torch.randperm(pipeline.size(part), generator=torch.Generator().manual_seed(0))
        if len(rows) < fewest:
            return SampleHalves(part, rows, rows)
        half = len(rows) // 2
        return SampleHalves(part, rows[:half][:MOST_ROWS], rows[half:][:MOST_ROWS])


class CandidateRuns:
    """Recipes, each with the same seeds; those of one program and plan are one population."""

    def __init__(
        self, shared: SharedData, halves: SampleHalves, seeds: Sequence[int], budget: Budget
    ):
        self.shared, self.halves, self.seeds, self.budget = shared, halves, list(seeds), budget
        self.recipes: list[Recipe] = []
        self.plans: list[int] = []
        self._places: list[tuple[_Group, int] | None] = []  # None: cannot be run at all

    def add(self, recipes: Sequence[Recipe]) -> list[int]:
        """More recipes, at their first step; their places."""
        first = len(self.recipes)
        kinds: dict[tuple[int, str], list[int]] = {}
        for i, recipe in enumerate(recipes, start=first):
            self.recipes.append(recipe)
            self.plans.append(self.shared.steps(recipe))
            self._places.append(None)
            kinds.setdefault((self.plans[i], recipe.program), []).append(i)
        for (plan, _), places in kinds.items():
            with _tolerant():
                group = _Group(self, [self.recipes[i] for i in places], plan)
                for k, i in enumerate(places):
                    self._places[i] = (group, k)
        return list(range(first, len(self.recipes)))

    def cost(self, i: int, part: float) -> float:
        """Steps that are still to be made to bring recipe i to a part of its plan."""
        place = self._places[i]
        done = place[0].loop.step if place else 0
        return max(0, len(self.seeds) * (_to(self.plans[i], part) - done))

    def advance(self, wanted: Sequence[int], part: float) -> None:
        """These go on to this part of their plans; whatever stands in one population with them is
        dropped."""
        groups: dict[int, tuple[_Group, list[int]]] = {}
        for i, place in enumerate(self._places):
            if place is not None:
                groups.setdefault(id(place[0]), (place[0], []))[1].extend(
                    [place[1]] if i in wanted else []
                )
        for group, kept in groups.values():
            if kept and not group.failed and group.loop.step < _to(group.plan, part):
                with _tolerant(group):
                    group.keep(kept)
                    group.advance(_to(group.plan, part))

    def outputs(self, i: int, *, deciding: bool) -> list[Tensor]:
        place = self._places[i]
        if place is None or place[0].failed:
            return []
        return place[0].outputs(place[1], deciding)

    def scores(self, i: int, *, deciding: bool = False) -> list[Score]:
        """Recipe i's score by seed."""
        rows = self.halves.deciding if deciding else self.halves.choosing
        place = self._places[i]
        if place is None or place[0].failed:
            return [lost(len(rows))] * len(self.seeds)
        group, k = place
        return [
            score(group.pipeline, group.answers, output, group.batch(deciding))
            if alive
            else lost(len(rows))
            for output, alive in zip(group.outputs(k, deciding), group.alive(k), strict=True)
        ]

    def ensemble(self, i: int) -> Score:
        """The score of recipe i's seeds as one ensemble, on the samples that decide."""
        place = self._places[i]
        outputs = self.outputs(i, deciding=True)
        if place is None or not outputs:
            return lost(len(self.halves.deciding))
        group, answers = place[0], place[0].answers
        whole = answers.average(torch.stack(outputs))
        return score(group.pipeline, answers, whole, group.batch(deciding=True))

    def weigh(self, i: int, part: float) -> None:
        """Recipe i's members learn from this part of the training samples alone; the others weigh
        nothing."""
        place = self._places[i]
        if place is not None:
            place[0].subset(part)


def _to(plan: int, part: float) -> int:
    return max(1, round(part * plan))


class _Group:
    """The population of one program and plan among candidates, trained as ``ravine.train`` trains it.

    Where samples are held out, those that choose are its validation part: they alone decide when a
    member stops early, and which of its weights are the best.
    """

    def __init__(self, owner: CandidateRuns, recipes: Sequence[Recipe], plan: int):
        self.owner, self.recipes = owner, list(recipes)
        self.plan, self.failed = plan, False
        self.seeds = len(owner.seeds)
        members = [recipe.edit({"seed": seed}) for recipe in recipes for seed in owner.seeds]
        program = owner.shared.program(members, range(len(members)))
        self.pipeline, self.answers = program.pipeline, program.answers
        if owner.halves.held_out:
            choosing = self.pipeline.with_rows("validation", owner.halves.choosing)
            program = replace(program, pipeline=choosing)
        self.record = Memory()
        self.loop = TrainingLoop(program, self.record, sparing=True)
        self._batches: dict[bool, Batch] = {}

    def batch(self, deciding: bool) -> Batch:
        if deciding not in self._batches:
            rows = self.owner.halves
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
        if not self.loop.over:
            self.loop.keep(sorted(wanted))

    def advance(self, to: int) -> None:
        """To a step; every step that a member takes is counted."""
        with running(self.loop):
            while not self.loop.over and self.loop.step < to:
                before = self.record.steps
                self.loop.advance(min(to, self.loop.step + BLOCK))
                self.owner.budget.spend(self.record.steps - before)

    def subset(self, part: float) -> None:
        """A weight of 1 / part for the first samples of the training part's random order, of 0 for
        the others."""
        n = self.pipeline.train_size
        order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
        weights = torch.zeros(n)
        weights[order[: max(1, int(part * n))]] = 1 / part
        stepper = self.loop.stepper
        rows = weights.to(stepper.population.theta).expand(len(self.loop.members), n)
        drawn = stepper.sample_weights
        stepper.sample_weights = rows.clone() if drawn is None else drawn * rows

    # --- outputs ----------------------------------------------------------------------------------

    def _members(self, recipe: int) -> range:
        return range(recipe * self.seeds, (recipe + 1) * self.seeds)

    def alive(self, recipe: int) -> list[bool]:
        """Which of a recipe's members have something to show: those that have not diverged, or have
        kept their best weights."""
        numbers = self.loop.members.numbers
        found = []
        for member in self._members(recipe):
            result = self.record.results.get(member)
            lives = (
                result["stopped"] != "diverged"
                if result is not None
                else bool(self.loop.stepper.alive[numbers.index(member)])
            )
            found.append(lives or keeps_best(self.recipes[recipe]))
        return found

    def outputs(self, recipe: int, deciding: bool) -> list[Tensor]:
        """The outputs of one recipe's members, in the seeds' order, with the weights with which
        they have ended or would end now."""
        batch, population = self.batch(deciding), self.loop.population
        population.gather_buffers()
        live = self.loop.weights.final(self.loop.stops)  # rows [P, D], and stacked buffers
        found = []
        for member in self._members(recipe):
            final, row, weights = self.record.finals.get(member), 0, live
            if final is None:
                row = self.loop.members.numbers.index(member)
            else:  # it has ended: it is shown in the first row
                weights = live[0].clone(), {name: t.clone() for name, t in live[1].items()}
                weights[0][0] = final[0].to(live[0])
                for name, value in final[1].items():
                    weights[1][name][0] = value
            objective = population.objectives[row]
            with held(population, *weights), evaluation([objective]):
                parts = [population.call(objective.model, x) for x in batch.x.split(512)]
            found.append(torch.cat(parts).float().cpu())
        return found


@contextmanager
def _tolerant(group: _Group | None = None) -> Iterator[None]:
    """Recipes that cannot be run at all (batch norm over a batch of one sample, …) are out, not an
    error."""
    try:
        yield
    except (RuntimeError, ValueError, RavineError):
        if group is not None:
            group.failed = True
