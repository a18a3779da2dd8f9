"""What members own besides their weights while they train: schedules, and the samples that their
bootstrap drew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ravine.engine.loop.calendar import Calendar
from ravine.engine.loop.stopping import Stopping
from ravine.engine.programs import Program
from ravine.engine.rows.members import Column, Facts, Newcomers
from ravine.optim.rows.planned_rates import Schedules
from ravine.randomness import generator
from ravine.recipe import Recipe


class ScheduleColumn(Column):
    """The members' schedules: the steps at which they began, and what they have observed."""

    name = "schedules"

    def __init__(self, schedules: Schedules, calendar: Calendar):
        self.schedules, self.calendar = schedules, calendar

    def keep(self, rows: Sequence[int]) -> None:
        self.schedules.keep(rows)

    def grow(self, new: Newcomers) -> None:
        totals = [Stopping(recipe, self.calendar).total for recipe in new.recipes]
        self.schedules.grow([recipe.schedule for recipe in new.recipes], totals, new.start)

    def facts(self, rows: Sequence[int]) -> Facts:
        plateaus = self.schedules.state()["plateaus"]
        starts = self.schedules.starts
        return {
            self.name: {"plateaus": [plateaus[row] for row in rows]},
            "starts": [starts[row] for row in rows],
        }

    def load(self, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        self.schedules.load_state(facts[self.name])
        self.schedules.starts = list(facts["starts"])


def bootstrap_counts(program: Program, recipes: Sequence[Recipe]) -> Tensor | None:
    """How often each member's bootstrap drew each training sample [P, N]; ones for members without;
    None where no member of the program has one."""
    if not any(recipe.data.bootstrap for recipe in program.recipes):
        return None
    pipelines = program.folds or [program.pipeline] * len(recipes)
    sizes = [pipeline.train_size for pipeline in pipelines]
    counts = torch.ones(len(recipes), max(sizes))
    for row, recipe, n in zip(counts, recipes, sizes, strict=False):
        if recipe.data.bootstrap:
            drawn = torch.randint(n, (n,), generator=generator(recipe.seed, "bootstrap"))
            row[:n].copy_(torch.bincount(drawn, minlength=n))
    return counts.to(program.population.theta)
