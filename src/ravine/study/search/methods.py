"""How a search draws its configurations: populations tightened around the best, grids, successive
halving, samplers of Optuna."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import qmc

from ravine.catalogue import durations
from ravine.engine.loop.halving import Halving
from ravine.errors import InputError, unknown
from ravine.randomness import key
from ravine.study.directory import Study
from ravine.study.live import LiveTable
from ravine.study.search.budget import Round, TimeBudget
from ravine.study.search.optuna_sampler import Asker
from ravine.study.search.space import Space
from ravine.study.search.trials import Trial, rank, recent_of

SAMPLED = ("random", "sobol", "halton")
OWN = (*SAMPLED, "grid", "asha")
EARLY = (1 / 15, 1 / 5)  # of a run: where hopeless members are dropped


@dataclass
class Search:
    """What the methods of one search share; its options are ``study.options``."""

    study: Study
    space: Space
    metric: str
    live: LiveTable
    budget: TimeBudget | None = None

    def run(self, name: str) -> tuple[list[Trial], list[list[str]]]:
        """All trials of one method, and what each of its rounds drew from."""
        if name == "grid":
            points = self.space.grid(self.study.options["points"], self.study.recipe)
            return self.train(name, 0, points), [self.space.say()]
        if name == "asha":
            return self._asha(), [self.space.say()]
        return self._tightening(name) if name in SAMPLED else self._by_sampler(name)

    def train(
        self, method: str, round_: int, values: list[dict[str, Any]], **how: Any
    ) -> list[Trial]:
        """One population: a stage of the study."""
        recipes = [self.space.recipe(self.study.recipe, row) for row in values]
        stage = f"{method.replace(':', '-')}-{round_ + 1}"
        report = self.live.stage(stage, recipes, values)
        runs = self.study.train(stage, recipes, report=report, **how)
        if self.budget is not None:
            self.budget.trained()
        return [
            Trial(method, round_, value, recipe, run.result, recent_of(run, self.metric))
            for value, recipe, run in zip(values, recipes, runs, strict=True)
        ]

    def _asha(self) -> list[Trial]:
        options, recipe = self.study.options, self.study.recipe
        count = options["members"] * options["rounds"]
        points = points_of("random", count, len(self.space.variables), recipe.seed, 0)
        values = [self.space.values(point, recipe) for point in points]
        halving = Halving(self.metric, options["first"], options["eta"])
        return self.train("asha", 0, values, width=options["members"], halving=halving)

    def _tightening(self, name: str) -> tuple[list[Trial], list[list[str]]]:
        """A population, the best few, distributions tightened around them, a population again.

        From coarse to fine: only members of the last round run to their end, the others only tell
        where to look.
        """
        recipe, space, rule = self.study.recipe, self.space, self._early()
        trials: list[Trial] = []
        drawn_from: list[list[str]] = []
        while (plan := self._next(name, len(drawn_from), space, rule)).members:
            points = self._points(name, plan.members, len(drawn_from))
            values = [space.values(point, recipe) for point in points]
            halving = rule and replace(rule, coarse=plan.coarse)
            trials += self.train(name, len(drawn_from), values, halving=halving)
            drawn_from.append(space.say())
            best = sorted(trials, key=lambda trial: rank(trial, self.metric))
            keep = self.study.options["keep"]
            space = space.tightened([trial.values for trial in best[:keep]])
        return trials, drawn_from

    def _by_sampler(self, name: str) -> tuple[list[Trial], list[list[str]]]:
        """A sampler of Optuna, asked for whole populations and given their results."""
        recipe, rule = self.study.recipe, self._early()
        seed = key(recipe.seed, "search", name) % 2**31
        asker = Asker(name, self.space, recipe, self.metric, seed=seed)
        trials: list[Trial] = []
        round_ = 0
        while (plan := self._next(name, round_, self.space, None)).members:
            found = self.train(name, round_, asker.ask(plan.members), halving=rule)
            asker.tell([trial.result.get(self.metric, math.nan) for trial in found])
            trials += found
            round_ += 1
        return trials, [self.space.say()]

    def _next(self, name: str, number: int, space: Space, rule: Halving | None) -> Round:
        """The size of the next round, by ``rounds`` or by the minutes that are left."""
        options, recipe = self.study.options, self.study.recipe
        if self.budget is None:
            more = number < options["rounds"]
            return Round(options["members"] if more else 0, number + 1 < options["rounds"])
        first, second = EARLY
        kept = 1 / options["eta"]
        coarse = first + kept * (second - first)
        shares = (coarse, coarse + kept**2 * (1 - second)) if rule else (1.0, 1.0)

        def draw(members: int) -> list[Any]:
            points = self._points(name, members, number)
            return [space.recipe(recipe, space.values(point, recipe)) for point in points]

        return self.budget.next(name, number, options["method"].index(name), draw, shares)

    def _points(self, name: str, members: int, number: int) -> np.ndarray:
        method = name if name in SAMPLED else "random"
        seed = self.study.recipe.seed
        return points_of(method, members, len(self.space.variables), seed, number)

    def _early(self) -> Halving | None:
        """The rule by which hopeless members are dropped early; none for short runs."""
        options = self.study.options
        amount, unit = durations.parse(self.study.recipe.stop.after)
        if not options["drop"] or (unit == "ep" and amount < 20):
            return None
        return Halving(self.metric, f"{float(amount * EARLY[0]):.6g}{unit}", options["eta"])


def points_of(name: str, count: int, dimensions: int, seed: int, round_: int) -> np.ndarray:
    """Points of the unit cube [count, dimensions]: independent, or evenly spread (scrambled Sobol
    or Halton)."""
    draw = key(seed, "search", name, round_) % 2**32
    if name == "random":
        return np.random.default_rng(draw).random((count, dimensions))
    engine = {"sobol": qmc.Sobol, "halton": qmc.Halton}[name](dimensions, rng=draw)
    if name == "sobol":  # balanced in powers of two, of which the first are taken
        return engine.random_base2(max(1, math.ceil(math.log2(count))))[:count]
    return engine.random(count)


def check_methods(methods: list[str], first: str, eta: int, minutes: float | None) -> None:
    """Refuse what no method can do, before anything runs."""
    for name in methods:
        if name not in OWN and not name.startswith("optuna:"):
            raise unknown("--method", name, [*OWN, "optuna:TPESampler"])
        if minutes is not None and name in ("grid", "asha"):
            raise InputError(
                "--minutes",
                got=minutes,
                expected="a method that goes by rounds",
                repair=f"{name} trains a fixed number of members",
            )
    try:
        Halving(first=first, eta=eta)
    except InputError as error:
        raise InputError(
            error.where.replace("halving.", "--") or "--first",
            got=error.got,
            expected=error.expected,
        ) from None
    if not durations.parse(first)[0]:
        raise InputError("--first", got=first, expected="a duration longer than 0")
