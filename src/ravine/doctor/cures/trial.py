"""Proof by experiment: candidate cures, the untouched recipe and "train longer" as paired
populations, halved by results.

The budget counts training steps of all trial members, in units of one original run. One half of the
validation samples chooses; the other half, on fresh seeds, decides by a paired test whether the
winner beats the untouched recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ravine.doctor.cures.candidate_runs import Budget, CandidateRuns, SampleHalves
from ravine.doctor.cures.candidates import (
    Candidate,
    Move,
    candidates,
    made_of,
    nearby,
    untouched,
)
from ravine.doctor.cures.cure import Cure
from ravine.doctor.cures.scores import Score, paired
from ravine.doctor.edits import Case
from ravine.doctor.experiments.experiment import SharedData
from ravine.doctor.finding import Finding
from ravine.doctor.findings.fit import Overfitting
from ravine.engine.programs import Model
from ravine.errors import InputError
from ravine.recipe import Recipe

MOST_SEEDS = 9  # of the decision, where the budget has room
DECISION = 0.5  # of the budget that is kept for the decision
NEAR = 0.1  # a candidate whose score is this close to the best is trained to its plan's end
FEW = 60  # training samples: under that none are held out
HELD_OUT = 0.3
# original runs of budget from which on an ensemble and half of the data are tried against
# overfitting
BESIDE = 14
LEAST = 0.005  # of score that a cure must bring
PART_OF_PLAN = 3 / 8  # for which the cure without each of its edits is trained
NEEDED = 0.01  # of metric that is lost without an edit that is needed
FEW_ALIKE = 0.02  # the same, of one seed
ALIKE = 0.002  # of score within which the cure of fewer remedies is taken

Report = Callable[[float, str], None]


@dataclass(frozen=True)
class Division:
    """How a budget is divided between choosing a cure and deciding on it."""

    seeds: int  # of each candidate, while they are chosen among
    rungs: tuple[tuple[float, int], ...]  # (part of the plan, candidates that go on after it)
    first: float  # candidates of the first wave for each run of the budget
    second: int  # candidates of the second wave
    fewest: int  # fresh seeds of the decision, at least
    least: float  # runs without which nothing can be decided
    level: float  # under which p must be

    @staticmethod
    def of(budget: float) -> Division:
        return AMPLE if budget >= AMPLE.least else SMALL


AMPLE = Division(3, ((1 / 8, 4), (3 / 8, 2), (1.0, 2)), 0.5, 5, 3, 12.0, 0.025)
# the findings' remedies, compounded, and sound recipes; two pairs of runs decide
SMALL = Division(1, ((1 / 8, 1),), 0.8, 0, 2, 5.0, 0.05)


def prove(
    recipe: Recipe,
    findings: Sequence[Finding],
    case: Case,
    *,
    module: Model = None,
    arrays: Any = None,
    budget: float = 20.0,
    report: Report | None = None,
) -> Cure:
    """Search and verify a cure for a recipe within a budget of training steps; ``report`` is told
    the part that is spent."""
    if budget < SMALL.least:
        raise InputError(
            "--budget",
            got=budget,
            expected=f"at least {SMALL.least:g} original runs",
            repair="2 seeds of two recipes to the end are 4 already",
        )
    shared = SharedData(module, arrays)
    held = held_out(recipe, shared)
    steps = shared.steps(recipe)
    trial = CureSearch(
        replace(case, recipe=held, steps=steps),
        shared,
        budget,
        steps,
        report or (lambda part, what: None),
    )
    return trial.run(findings, recipe)


def held_out(recipe: Recipe, shared: SharedData) -> Recipe:
    """The recipe with some samples held out, where it has none and can spare them."""
    pipeline = shared.pipeline(recipe)
    if pipeline.has("validation") or pipeline.train_size < FEW:
        return recipe
    batch, size = recipe.data.batch, int(pipeline.train_size * (1 - HELD_OUT)) - 2
    return recipe.edit(
        {"data.validation": HELD_OUT, "data.batch": batch if batch == "full" else min(batch, size)}
    )


class CureSearch:
    """One search: it trains candidates rung by rung and keeps count of the steps."""

    def __init__(self, case: Case, shared: SharedData, budget: float, unit: int, report: Report):
        self.case, self.shared, self.original_runs, self.unit, self.report = (
            case,
            shared,
            budget,
            unit,
            report,
        )
        self.division = Division.of(budget)
        self.what = "first candidates"
        self.budget = Budget(budget * unit, on_spend=lambda part: report(part, self.what))
        self.halves = SampleHalves.of(shared.pipeline(case.recipe))
        self.seed = case.recipe.seed
        self.candidates = CandidateRuns(
            shared, self.halves, [self.seed + i for i in range(self.division.seeds)], self.budget
        )
        self.listed: list[Candidate] = []
        self.beside = 0  # runs of the winner that are kept for what no edit can be

    # --- choosing ---------------------------------------------------------------------------------

    def run(self, findings: Sequence[Finding], original: Recipe) -> Cure:
        overfits = self.halves.held_out and any(f.code == Overfitting.code for f in findings)
        self.beside = self.division.seeds if overfits and self.original_runs >= BESIDE else 0
        most = round(self.division.first * self.original_runs)
        found = candidates(self.case, findings, most, few=self.division is SMALL)
        self._enter([untouched(self.case), *found])
        (part, left), *later = self.division.rungs
        # with few runs the untouched recipe is met in the decision alone
        first = range(1 if self.division is SMALL and found else 0, len(self.listed))
        alive = self._rung(first, part, "first candidates") or self._rung([0], part, "the recipe")
        alive += self._rung(self._second_wave(alive), part, "second candidates")
        alive = self._ranked(alive)[:left]
        for part, left in later:
            if len(alive) > 1 and (part < 1 or self._affordable(alive, part) == alive):
                ranked = (
                    self._ranked(self._rung(alive, part, f"{len(alive)} candidates"))[:left]
                    or alive[:1]
                )
                alive = [i for i in ranked if self._last(i) >= self._last(ranked[0]) - NEAR]
        winner = alive[0]
        if not self.listed[winner].moves:
            return self._no_better(original)
        return self._decide(winner, original)

    def _enter(self, new: Sequence[Candidate]) -> list[int]:
        self.listed += new
        return self.candidates.add([candidate.recipe for candidate in new])

    def _second_wave(self, alive: Sequence[int]) -> list[int]:
        if not self.division.second:
            return []
        ranked = self._ranked(alive)
        best = self.listed[ranked[0]]
        others = [
            self.listed[i]
            for i in ranked[1:4]
            if self.listed[i].moves and self._last(i) > self._last(0)
        ]
        known, most = {c.recipe.hash for c in self.listed}, self.division.second
        return self._enter(nearby(self.case, best, others, most, known))

    def _rung(self, wanted: Sequence[int], part: float, what: str) -> list[int]:
        """Train candidates to a part of their plans; those that can be afforded beside a decision,
        the first ones first."""
        self.what = what
        kept = self._affordable(wanted, part)
        self.candidates.advance(kept, part)
        for i in kept:
            scores = self.candidates.scores(i)
            values = [score.value for score in scores]
            self.listed[i].scores.append(
                (float(np.mean(values)) + min(values)) / 2
            )  # it must work on every seed
            self.listed[i].metrics.append([score.metric for score in scores])
        return kept

    def _affordable(self, wanted: Sequence[int], part: float) -> list[int]:
        kept: list[int] = []
        cost = 0.0
        for i in wanted:
            own = self.candidates.cost(i, part)
            if self.budget.left - cost - own >= self._reserve(i):
                kept.append(i)
                cost += own
        return kept

    def _reserve(self, i: int) -> float:
        """Steps of the decision on a candidate, which must stay affordable."""
        return (
            max(self.division.fewest * self._pair(i), DECISION * self.budget.total)
            + self.beside * self.candidates.plans[i]
        )

    def _pair(self, i: int) -> int:
        """Steps of the untouched recipe and of a candidate, one seed of each."""
        return self.candidates.plans[0] + self.candidates.plans[i]

    def _last(self, i: int) -> float:
        return self.listed[i].scores[-1]

    def _ranked(self, places: Sequence[int]) -> list[int]:
        """Best first; of those that are as good, the one of fewest steps and remedies."""

        few = self.division is SMALL  # an eighth of the plan with one seed: the first ones lead

        def rank(i: int) -> tuple[float, int, int]:
            size = i if few else len(self.listed[i].moves)
            alike = FEW_ALIKE if few else ALIKE
            return -round(self._last(i) / alike), self.candidates.plans[i], size

        return sorted(places, key=rank)

    # --- deciding ---------------------------------------------------------------------------------

    def _decide(self, winner: int, original: Recipe) -> Cure:
        """Fresh seeds of the untouched recipe and of the winner, as many as are affordable, on
        samples that did not choose."""
        chosen = self.listed[winner]
        kept = self.beside * self.candidates.plans[winner] + self._cost_of_parts(winner)
        affordable = (self.budget.left - kept) / self._pair(winner)
        count = max(self.division.fewest, min(MOST_SEEDS, int(affordable)))
        fresh = [self.seed + 101 + k for k in range(count)]
        self.what = f"{len(fresh)} fresh seeds"
        pair = CandidateRuns(self.shared, self.halves, fresh, self.budget)
        pair.add([self.case.recipe, chosen.recipe])
        pair.advance([0, 1], 1.0)
        before, after = (pair.scores(i, deciding=True) for i in (0, 1))
        accepted, p = _better(
            before, after, held_out=self.halves.held_out, level=self.division.level
        )
        also = self._beside(pair, 1)
        needed = self._parts_needed(winner) if accepted else []
        old, new = ([score.metric for score in scores] for scores in (before, after))
        return self._cure(chosen, original, old, new, fresh, accepted, p, also, needed)

    def _cost_of_parts(self, winner: int) -> float:
        """Steps that leaving out each edit costs, where the budget has room for more than that."""
        count = len(self.listed[winner].parts)
        cost = count * PART_OF_PLAN * self.candidates.plans[winner] if count > 1 else 0.0
        return cost if self.division is not SMALL else 0.0

    def _parts_needed(self, winner: int) -> list[dict[str, Any]]:
        """What is left of the cure without each of its edits: on samples and seeds of the choice,
        for as large a part of the plan as the winner was seen and the budget allows."""
        chosen = self.listed[winner]
        without = [self._without(chosen, part) for part in chosen.parts]
        if len(without) < 2:
            return []
        for place in reversed(range(len(chosen.metrics))):
            part, seeds = self.division.rungs[place][0], self.candidates.seeds
            while seeds:
                runs = CandidateRuns(self.shared, self.halves, seeds, self.budget)
                places = runs.add([one.recipe for one in without])
                if sum(runs.cost(i, part) for i in places) <= self.budget.left:
                    self.what = f"which of {len(places)} edits are needed"
                    runs.advance(places, part)
                    own = float(np.mean(chosen.metrics[place][: len(seeds)]))
                    return [
                        self._part(words, own, [s.metric for s in runs.scores(i)], part)
                        for i, (_, words) in zip(places, chosen.parts, strict=True)
                    ]
                seeds = seeds[:-1]
        return []

    def _without(self, chosen: Candidate, part: tuple[Move, str]) -> Candidate:
        """The cure without one of its edits."""
        left = made_of(self.case, [move for move, _ in chosen.parts if move is not part[0]])
        return left or untouched(self.case)

    @staticmethod
    def _part(words: str, own: float, without: list[float], part: float) -> dict[str, Any]:
        mean = float(np.mean(without))
        facts = {"edit": words, "with": own, "without": mean, "needed": own - mean > NEEDED}
        return facts | {"part": part, "seeds": len(without)}

    def _no_better(self, original: Recipe) -> Cure:
        """The untouched recipe stood up to all: the best of the others is the best try."""
        others = [c for c in self.listed if c.moves and c.scores]
        best = max(others, key=lambda c: (len(c.scores), c.scores[-1]), default=self.listed[0])
        rung = min(len(best.metrics), len(self.listed[0].metrics)) - 1
        before, after = self.listed[0].metrics[rung], best.metrics[rung]
        also = self._beside(self.candidates, 0)
        note = f"nothing beat the untouched recipe in choosing; at {self.division.rungs[rung][0]:.0%} of the plan"
        return self._cure(
            best, original, before, after, self.candidates.seeds, False, 1.0, also, note=note
        )

    def _cure(
        self,
        chosen: Candidate,
        original: Recipe,
        before: list[float],
        after: list[float],
        seeds: list[int],
        accepted: bool,
        p: float,
        also: list[dict[str, Any]],
        needed: list[dict[str, Any]] | None = None,
        note: str = "",
    ) -> Cure:
        if not self.halves.held_out:
            note = "; ".join(
                filter(
                    None,
                    [
                        note,
                        "too few samples to hold any out: training samples decide, on fresh seeds",
                    ],
                )
            )
        name = "R²" if self.case.task == "regression" else "accuracy"
        tried = [
            {"edits": c.edits, "why": c.why, "scores": [round(s, 4) for s in c.scores]}
            for c in self.listed
            if c.scores
        ]
        self.report(1.0, "done")
        return Cure(
            chosen.edits,
            chosen.why,
            before,
            after,
            seeds,
            accepted,
            original.edit(chosen.edits).to_toml(),
            name,
            p,
            round(self.budget.spent / self.unit, 2),
            self.original_runs,
            tried,
            also,
            needed or [],
            note,
        )

    # --- what no edit of one recipe can be --------------------------------------------------------

    def _beside(self, trained: CandidateRuns, i: int) -> list[dict[str, Any]]:
        """Against overfitting, for a recipe of a field: its seeds as one ensemble; what half of the
        training samples costs."""
        n = len(trained.seeds)
        if not self.beside or trained.cost(i, 1.0) > self.budget.left:
            return []
        trained.advance([i], 1.0)
        members = trained.scores(i, deciding=True)
        found = [
            _remedy(
                f"an ensemble of {n}",
                f"ravine ensemble RECIPE --members {n}",
                members,
                [trained.ensemble(i)] * n,
            )
        ]
        half = CandidateRuns(
            self.shared, self.halves, trained.seeds[: self.division.seeds], self.budget
        )
        half.add([trained.recipes[i]])
        if half.cost(0, 1.0) <= self.budget.left:
            half.weigh(0, 0.5)
            self.what = "half of the data"
            half.advance([0], 1.0)
            less = half.scores(0, deciding=True)
            found.append(
                _remedy(
                    "more data: all samples against half of them", "", less, members[: len(less)]
                )
            )
        return found


def _better(
    before: Sequence[Score], after: Sequence[Score], *, held_out: bool, level: float
) -> tuple[bool, float]:
    """Whether the metric gains, or the probabilities do at equal metric, and the test's p."""
    gains = np.stack(
        [a.shares - b.shares for a, b in zip(after, before, strict=True)]
    )  # [seeds, N]
    p = paired(gains, samples=held_out)
    metric = float(np.mean([a.metric - b.metric for a, b in zip(after, before, strict=True)]))
    return bool(metric >= 0 and gains.mean() >= LEAST and p < level), p


def _remedy(
    name: str, command: str, without: Sequence[Score], with_it: Sequence[Score]
) -> dict[str, Any]:
    better, p = _better(without, with_it, held_out=True, level=AMPLE.level)
    return {
        "remedy": name,
        "command": command,
        "before": float(np.mean([s.metric for s in without])),
        "after": float(np.mean([s.metric for s in with_it])),
        "p": p,
        "helps": better,
    }
