"""Cures of published programs beside the human fix and two honest rivals of the same budget: random search, train longer.

The metric is the case's own (accuracy, or the mean squared error where it says loss), on its validation part, or on its
training samples where it has none, as published; the mean of fresh seeds. Recovered is (cured - buggy) / (fixed - buggy).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from keras_cases import Case

from ravine import Recipe
from ravine.data.pipeline import Batch
from ravine.doctor.baseline import accuracy
from ravine.doctor.examination import examine, examine_static, plan_seconds
from ravine.doctor.experiment import Experiment, Shelf, threshold
from ravine.doctor.remedies import Case as Program
from ravine.doctor.remedies import describe, hidden_activation, longer
from ravine.doctor.trial import probabilities, prove

FRESH = (501, 502, 503)  # seeds that no trial has used
LONGEST = 5400.0  # seconds that all of one case may take, by the count of operations
LEAST = 0.01  # gain of the human fix under which there is nothing to recover, of the buggy metric's own scale


def prove_case(case: Case, *, budget: float) -> dict[str, Any]:
    """Search and verify a cure; measure it, the human fix and the rivals."""
    began = time.monotonic()
    row: dict[str, Any] = {"id": case.id, "metric": _name(case), "accepted": False, "worse": False, "recovered": None}
    refused = _refused(case, budget)
    if refused:
        return row | {"cure": refused, "seconds": 0.0}
    shelf = Shelf(None, case.arrays)
    program, _, _ = examine_static(case.recipe, shelf)
    diagnosis = examine(case.recipe, arrays=case.arrays)
    cure = prove(case.recipe, diagnosis.findings, program, arrays=case.arrays, budget=budget)
    cured = Recipe.from_toml(cure.recipe)
    row |= {
        "accepted": cure.accepted, "cure": describe(cure.edits), "edits": cure.edits, "spent": cure.spent, "p": cure.p,
        "before": cure.before, "after": cure.after, "trial_seconds": time.monotonic() - began, "tried": cure.tried,
        "buggy": measured(case, case.recipe, shelf), "cured": measured(case, cured, shelf),
    }  # fmt: skip
    if case.fixed is not None:
        fixed = shelf if case.fixed_arrays is case.arrays else Shelf(None, case.fixed_arrays)
        row["human_fixed"] = measured(case, case.fixed, fixed)
        row["recovered"] = _recovered(case, row)
    row["random_search"] = random_search(case, program, shelf, budget)
    row["train_longer"] = measured(case, case.recipe.edit(longer(program, budget)), shelf, seeds=FRESH[:1])
    sign = -1.0 if _lower(case) else 1.0
    row["worse"] = sign * (row["cured"] - row["buggy"]) < 0
    return row | {"seconds": time.monotonic() - began}


def _refused(case: Case, budget: float) -> str:
    if not case.provable:
        return "its fix cannot be proved on its own data"
    expected = plan_seconds(case.recipe, arrays=case.arrays, seeds=1) * (3 * budget + 9)
    return f"too heavy here: about {expected / 3600:.1f} hours" if expected > LONGEST else ""


def _lower(case: Case) -> bool:
    return "loss" in case.facts.get("metric", "") or case.facts.get("metric", "") in ("mae", "mse")


def _name(case: Case) -> str:
    return "squared error" if _lower(case) else "accuracy"


def _recovered(case: Case, row: dict[str, Any]) -> float | None:
    gain = row["human_fixed"] - row["buggy"]
    sign = -1.0 if _lower(case) else 1.0
    scale = abs(row["buggy"]) if _lower(case) else 1.0
    return (row["cured"] - row["buggy"]) / gain if sign * gain > LEAST * scale else None


def measured(case: Case, recipe: Recipe, shelf: Shelf, seeds: Sequence[int] = FRESH) -> float:
    """The case's metric after the whole plan, the mean over seeds."""
    return float(np.mean(each(case, [recipe.edit({"seed": seed}) for seed in seeds], shelf)))


def each(case: Case, recipes: Sequence[Recipe], shelf: Shelf) -> list[float]:
    found: dict[int, float] = {}
    for place, recipe in enumerate(recipes):
        if place in found:
            continue
        alike = [i for i, r in enumerate(recipes) if r.program == recipe.program and r.stop == recipe.stop]
        group = Experiment([recipes[i] for i in alike], shelf).groups[0]
        group.advance(group.curves[0].total)
        split = "validation" if group.pipeline.has("validation") else "train"
        parts = list(group.pipeline.split(split, batch=4096))
        batch = Batch(*(torch.cat([getattr(part, name) for part in parts]) for name in ("x", "y", "index")))
        for row, output in enumerate(group.outputs(batch)):
            found[alike[row]] = _metric(case, recipe, group, output, batch.y.cpu(), bool(group.stepper.alive[row]))
    return [found[i] for i in range(len(recipes))]


def _metric(case: Case, recipe: Recipe, group: Any, output: torch.Tensor, y: torch.Tensor, alive: bool) -> float:
    task = group.pipeline.task
    if not alive or not bool(torch.isfinite(output).all()):
        y = y.double()
        return float((y - y.mean(0)).square().mean() * 10) if _lower(case) else 0.0
    if not _lower(case):
        return accuracy(output, y, task, threshold(recipe, task))
    if task == "regression":
        said, truth = group.pipeline.target_units(output), group.pipeline.target_units(y)
        return float((said.double().reshape(len(y), -1) - truth.double().reshape(len(y), -1)).square().mean())
    p, truth = probabilities(output, y, recipe, task)
    return float((p - truth).square().mean())


def random_search(case: Case, program: Program, shelf: Shelf, budget: float, seed: int = 0) -> float:
    """As many random variants as the budget has runs, one seed each; the one that is best on the metric, on fresh seeds."""
    drawn = np.random.default_rng(seed)
    listed = []
    size = shelf.pipeline(case.recipe).train_size
    while len(listed) < int(budget):
        edits: dict[str, Any] = {}
        if drawn.random() < 0.5:
            kind = str(drawn.choice(["relu", "tanh", "sigmoid"]))
            edits |= hidden_activation(program, kind) or {}
        edits["optimizer"] = {"kind": str(drawn.choice(["sgd", "adam", "rmsprop"])), "lr": float(10 ** drawn.uniform(-4, 0))}
        batch = int(drawn.choice([16, 32, 64, 128]))
        own = case.recipe.data.batch
        edits["data.batch"] = min(size, batch if batch >= own else own)
        listed.append(case.recipe.edit(edits))
    scores = each(case, listed, shelf)
    best = (np.argmin if _lower(case) else np.argmax)(scores)
    return measured(case, listed[int(best)], shelf)
