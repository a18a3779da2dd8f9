"""Random search, the doctor's rival: variants drawn over the same kinds of edits, run to their ends
until the budget is spent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ravine import Recipe
from ravine.doctor.cures.candidate_runs import Budget, CandidateRuns, SampleHalves
from ravine.doctor.cures.trial import held_out
from ravine.doctor.edits import (
    Case,
    describe,
    fresh_weights,
    hidden_activation,
    longer,
    proper_head,
    scale_inputs,
)
from ravine.doctor.experiments.experiment import SharedData
from ravine.errors import InputError


def random_search(
    recipe: Recipe, program: Case, shared: SharedData, budget: float, seed: int = 0
) -> tuple[Recipe, str, float]:
    """The variant that is best on the samples on which the doctor's trial chooses, its edits, and
    the runs spent.

    One seed each, as random search spends its budget (Bergstra and Bengio, 2012): more variants
    instead of paired seeds.
    """
    held = held_out(recipe, shared)
    spending = Budget(budget * shared.steps(recipe))
    runs = CandidateRuns(shared, SampleHalves.of(shared.pipeline(held)), [recipe.seed], spending)
    drawn = np.random.default_rng(seed)
    listed: list[dict[str, Any]] = []
    scores: list[float] = []
    while spending.left > 0 and len(listed) < 4 * budget:
        edits = {
            path: value
            for part in _variant(replace(program, recipe=recipe), drawn, runs)
            for path, value in part.items()
        }
        try:
            place = runs.add([held.edit(edits)])[0]
        except InputError:
            continue
        if runs.cost(place, 1.0) > spending.left:
            break
        runs.advance([place], 1.0)
        listed.append(edits)
        scores.append(runs.scores(place)[0].value)
    best = listed[int(np.argmax(scores))] if scores else {}
    return recipe.edit(best), describe(best), round(spending.spent / (spending.total / budget), 2)


def _variant(
    case: Case, drawn: np.random.Generator, runs: CandidateRuns
) -> Iterator[dict[str, Any]]:
    """Edits of one variant: of each kind with probability 1/2, the learning rate log-uniform."""

    def yes() -> bool:
        return bool(drawn.random() < 0.5)

    def then(edits: dict[str, Any] | None) -> dict[str, Any]:
        nonlocal case
        if edits:
            case = replace(case, recipe=case.recipe.edit(edits))
        return edits or {}

    if yes():
        yield then(scale_inputs(case))
    if yes():
        yield then(proper_head(case))
    if yes():
        yield then(hidden_activation(case, str(drawn.choice(["relu", "tanh", "sigmoid", "elu"]))))
    if yes():
        yield then(fresh_weights(case, str(drawn.choice(["he_normal", "glorot_uniform"]))))
    if yes():
        size = runs.shared.pipeline(runs.recipes[0] if runs.recipes else case.recipe).train_size
        yield {"data.batch": int(min(drawn.choice([16, 32, 64, 128]), max(1, int(0.7 * size) - 2)))}
    if yes():
        yield longer(case, float(drawn.choice([0.5, 2.0, 4.0])))
    yield {
        "optimizer": {
            "kind": str(drawn.choice(["sgd", "adam", "rmsprop"])),
            "lr": float(10 ** drawn.uniform(-4, 0)),
        }
    }
