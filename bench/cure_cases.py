"""Cures of published programs beside the human fix and two honest rivals of the same budget: random
search, train longer.

What is compared is trained anew by ``ravine.train_many``, on seeds that no trial has used. The
metric is the case's own (accuracy, or the mean squared or absolute error), on its validation part,
or on its training samples where it has none, as published. Recovered is (cured - buggy) / (fixed -
buggy); without a verified cure it is 0, for then the recipe stays as it was.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from keras_cases import Case
from rivals import random_search

from ravine import Recipe
from ravine.catalogue import durations
from ravine.doctor.cures.scores import probabilities
from ravine.doctor.cures.trial import prove
from ravine.doctor.edits import describe, longer
from ravine.doctor.examination import examine, examine_static
from ravine.doctor.experiments.experiment import SharedData
from ravine.doctor.measure.baseline import accuracy
from ravine.errors import RavineError
from ravine.nn.answers import Answers
from ravine.training.train import train_many

FRESH = (501, 502, 503)  # seeds that no trial has used
# gain of the human fix under which there is nothing to recover; of a loss, as a part of the buggy
# one
LEAST = 0.01
STEP, SPEED = (
    1e-3,
    3e10,
)  # seconds that a step takes beside its operations, operations a second: to tell what is affordable
IN_TURN = 50  # plans that are trained one after the other: trial, fresh seeds, rivals
SHORTEST = 0.1  # of its plan that a case keeps; shorter, it would be another case


def prove_case(
    case: Case, *, budget: float, minutes: float, seeds: Sequence[int] = FRESH
) -> dict[str, Any]:
    """Search and verify a cure; measure it, the human fix and the rivals."""
    began = time.monotonic()
    row: dict[str, Any] = {
        "id": case.id,
        "metric": metric_name(case),
        "accepted": False,
        "worse": False,
        "recovered": None,
    }
    if not case.provable:
        return row | {"cure": "its fix cannot be proved on its own data", "seconds": 0.0}
    shared = SharedData(None, case.arrays)
    parts = _too_long(case, shared, budget, minutes)
    shortened = case if parts == 1 else _shortened(case, parts)
    if shortened is None:
        hours = parts * minutes / 60
        return row | {
            "cure": f"too heavy here: about {hours:.1f} hours, limit {minutes:g} minutes",
            "seconds": 0.0,
        }
    row |= {
        "plan": "whole"
        if parts == 1
        else f"{shortened.recipe.stop.after} of {case.recipe.stop.after}",
        "budget": budget,
    }
    row |= _searched(shortened, shared, budget)
    row |= _measured(shortened, Recipe.from_toml(row.pop("recipe")), shared, budget, seeds)
    return row | {"seconds": round(time.monotonic() - began, 1)}


def _searched(case: Case, shared: SharedData, budget: float) -> dict[str, Any]:
    """What the doctor says, as ``ravine doctor RECIPE --prove`` does."""
    began = time.monotonic()
    diagnosis = examine(case.recipe, arrays=case.arrays)
    program, _, _ = examine_static(case.recipe, shared)
    cure = prove(case.recipe, diagnosis.leads, program, arrays=case.arrays, budget=budget)
    return {
        "accepted": cure.accepted,
        "cure": cure.why,
        "edits": describe(cure.edits),
        "spent": cure.spent,
        "p": cure.p,
        "trial_before": cure.before,
        "trial_after": cure.after,
        "trial_seconds": round(time.monotonic() - began, 1),
        "tried": len(cure.tried),
        "note": cure.note,
        "recipe": cure.recipe,
    }


def _measured(
    case: Case, cured: Recipe, shared: SharedData, budget: float, seeds: Sequence[int]
) -> dict[str, Any]:
    """Every arm on the same fresh seeds: each seed's metric, means, and what is recovered."""
    program, _, _ = examine_static(case.recipe, shared)
    found, drawn, random_spent = random_search(case.recipe, program, shared, budget)
    arms = {
        "buggy": (case.recipe, case.arrays),
        "best_try": (cured, case.arrays),
        "human_fixed": (case.fixed, case.fixed_arrays),
        "random_search": (found, case.arrays),
        "train_longer": (case.recipe.edit(longer(program, budget)), case.arrays),
    }
    by_seed = {
        name: measured(case, recipe, arrays, seeds)
        for name, (recipe, arrays) in arms.items()
        if recipe is not None
    }
    means = {name: float(np.mean(values)) for name, values in by_seed.items()}
    return {
        "by_seed": by_seed,
        "seeds": list(seeds),
        "random_spent": random_spent,
        "random_edits": drawn,
        **means,
    }


def judged(row: dict[str, Any], lower: bool) -> dict[str, Any]:
    """The row with what was cured, and the part of the human fix's gain that each arm recovers."""
    if "buggy" not in row:
        return row
    sign = -1.0 if lower else 1.0
    cured = row["best_try"] if row["accepted"] else row["buggy"]
    row |= {"cured": cured, "worse": row["accepted"] and sign * (cured - row["buggy"]) < 0}
    gain = sign * (row.get("human_fixed", row["buggy"]) - row["buggy"])
    if gain > LEAST * (abs(row["buggy"]) if lower else 1.0):
        for name, arm in (
            ("recovered", "cured"),
            ("random_recovered", "random_search"),
            ("longer_recovered", "train_longer"),
        ):
            row[name] = sign * (row[arm] - row["buggy"]) / gain
    return row


# --- what is affordable ---------------------------------------------------------------------------


def _too_long(case: Case, shared: SharedData, budget: float, minutes: float) -> int:
    """The least whole number of parts of the plan of which one is affordable; 1 where all of it
    is."""
    _, _, work = examine_static(case.recipe, shared)
    size = shared.pipeline(case.recipe).train_size
    batch = size if case.recipe.data.batch == "full" else case.recipe.data.batch
    runs = (
        2 * budget + 3 * len(FRESH) + budget * len(FRESH)
    )  # trial, random search, fresh seeds, train longer
    seconds = shared.steps(case.recipe) * (
        STEP * IN_TURN * budget / 20 + runs * work * batch / SPEED
    )
    return max(1, int(np.ceil(seconds / (60 * minutes))))


def _shortened(case: Case, parts: int) -> Case | None:
    """The case, its human fix too, on that part of the plan; None where too little would be left of
    it."""
    if durations.parse(case.recipe.stop.after)[0] / parts < 1 or 1 / parts < SHORTEST:
        return None
    program = examine_static(case.recipe, SharedData(None, case.arrays))[0]
    recipe = case.recipe.edit(longer(program, 1 / parts))
    if case.fixed is None:
        return replace(case, recipe=recipe)
    fixed = case.fixed.edit(longer(replace(program, recipe=case.fixed), 1 / parts))
    return replace(case, recipe=recipe, fixed=fixed)


# --- the metric -----------------------------------------------------------------------------------


def lower_is_better(case: Case) -> bool:
    said = case.facts.get("metric") or ""
    return _task(case.recipe) == "regression" or any(
        word in said for word in ("loss", "mse", "mae", "error")
    )


def metric_name(case: Case) -> str:
    if not lower_is_better(case):
        return "accuracy"
    return "absolute error" if "mae" in (case.facts.get("metric") or "") else "squared error"


def _task(recipe: Recipe) -> str:
    return str(recipe.data.source.arguments["task"])


def measured(case: Case, recipe: Recipe, arrays: Any, seeds: Sequence[int]) -> list[float]:
    """The case's metric after the whole plan, by seed."""
    x, y = arrays[2:4] if len(arrays) == 4 else arrays[:2]
    with tempfile.TemporaryDirectory() as folder:
        try:
            runs = train_many(
                [recipe.edit({"seed": s}) for s in seeds],
                data=arrays,
                out=f"{folder}/run",
                quiet=True,
                test=False,
            )
            outputs = [
                run.outputs(x).double()
                * (torch.nan if run.result["stopped"] == "diverged" else 1.0)
                for run in runs
            ]
            answers = runs[0].answers
        except RavineError as error:  # a recipe that cannot be trained
            print(f"{case.id}: {error}", file=sys.stderr)
            outputs = [torch.full((len(y), 1), torch.nan)] * len(seeds)
            answers = Answers("binary", "sigmoid")
    truth = torch.as_tensor(np.asarray(y))
    return [_metric(case, recipe, answers, output, truth) for output in outputs]


def _metric(
    case: Case, recipe: Recipe, answers: Answers, output: torch.Tensor, y: torch.Tensor
) -> float:
    """NaN is the first class, as Keras counts it; of an error, ten times the variance."""
    task, lower, lost = _task(recipe), lower_is_better(case), not bool(torch.isfinite(output).all())
    if not lower:
        if task == "classification" and y.dim() > 1 and y.shape[1] > 1:
            y = y.argmax(-1)  # rows of 0 and one 1
        return accuracy(output.nan_to_num(-1.0) if lost else output, y, task, answers)
    if task == "regression":
        said, truth = output, y.double()
    else:
        said, truth = (output, y.double()) if lost else probabilities(output, y, answers)
    truth = truth.reshape(len(y), -1)
    off = truth - truth.mean(0) if lost else said.reshape(len(y), -1) - truth
    value = off.abs().mean() if metric_name(case) == "absolute error" else off.square().mean()
    return float(value) * (10 if lost else 1)
