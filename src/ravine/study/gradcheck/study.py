"""Gradient check: what autograd and the penalties' formulas give, against central differences in
float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any, Unpack

import torch
from torch import Tensor

from ravine.catalogue import Count, Whole
from ravine.data.source import Batch
from ravine.engine.points import Points
from ravine.engine.rows.population import Population
from ravine.layout import Entry
from ravine.optim.penalties import add_penalty_gradients, penalty
from ravine.randomness import generator
from ravine.recipe import Recipe
from ravine.study import measuring
from ravine.study.declare import Conclusion, OfRecipe, study
from ravine.study.directory import Study
from ravine.study.gradcheck.figures import errors_figure
from ravine.study.page import Page, PageTable

STEP = 2e-4
# of the largest gradient: the least denominator of a relative error, unless rounding makes more
FLOOR = 1e-3
# Limits of the relative error, powers of ten: their only home.
LIMITS = {"right": 1e-7, "suspicious": 1e-4, "wrong": 1e-2}
RIGHT, SUSPICIOUS, WRONG = LIMITS.values()
THRESHOLDS = (
    "Up to {right} the gradient is right. Up to {suspicious} it is right where the loss has kinks "
    "(ReLU, max pooling, hinge), and doubtful where it has none. "
    "From {suspicious} to {wrong} it is suspicious, over {wrong} wrong."
).format(**{name: f"1e{round(math.log10(limit))}" for name, limit in LIMITS.items()})


@study
def gradcheck(  # type: ignore[misc] # an option of its own hides that of OfRecipe
    study: Study,
    recipe: Recipe,
    *,
    coordinates: Count = 20,
    samples: Count = 32,
    trained: Whole = 30,
    seed: Whole = 0,
    **common: Unpack[OfRecipe],
) -> Conclusion:
    """Gradients against central differences in float64, tensor by tensor.

    The gradient of one batch is compared at the initial point and after some steps of training, at
    a few entries of each tensor and at one more of every row of the output layer. The derivative is
    (4 D(h) - D(2h)) / 3 with D(h) = (f(w + h) - f(w - h)) / 2h and h = 2e-4, penalties included,
    dropout masks held. The relative error is |a - n| / max(|a|, |n|, g/1000), g the largest entry
    of the whole gradient. Entries at a kink of the loss (ReLU, max pooling) are skipped and
    counted. The verdict is ``right`` (up to 1e-7), ``right but for kinks`` (with skipped entries),
    ``doubtful`` (up to 1e-4), ``suspicious`` (up to 1e-2) or ``wrong``, with exit code 1.

    Args:
        coordinates: Derivatives compared in each tensor.
        samples: Samples of the batch.
        trained: Check again after so many steps of training; 0: not again.
        seed: Of the places that are compared.

    >>> gradcheck(Recipe(data={"source": "blobs"}, model="softmax"), quiet=True, out=tmp / "g")["verdict"]
    'right'
    """
    recipe = recipe.edit({"precision": "float64"})
    pipeline = measuring.pipeline_of(recipe, study.data)
    module = copy.deepcopy(study.model) if callable(study.model) else None
    points = Points(recipe, pipeline, module)
    points.population.train(True)
    raw = pipeline.batch(0)
    batch = Batch(raw.x[:samples], raw.y[:samples], raw.index[:samples])
    classes = pipeline.outputs
    table = study.once(
        "tensors",
        lambda: list(
            _tensors(recipe, points.population, batch, coordinates, seed, classes, "initial")
        ),
    )
    if trained:
        _move(points.population, _trained(study, recipe, trained))
        table += study.once(
            "again",
            lambda: list(
                _tensors(recipe, points.population, batch, coordinates, seed, classes, "trained")
            ),
        )
    return _conclude(study, _summary(table))


def _summary(table: list[dict[str, Any]]) -> dict[str, Any]:
    """The verdict on the worst tensor; an error that is not a number is infinite."""

    def error(row: dict[str, Any]) -> float:
        found = row["relative error"]
        return math.inf if found is None or math.isnan(found) else found

    worst = max(table, key=error)
    kinks = sum(row["kinks"] for row in table)
    return {
        "verdict": verdict_of(error(worst), kinks),
        "relative error": error(worst),
        "tensor": worst["tensor"],
        "point": worst["point"],
        "kinks": kinks,
        "coordinates": sum(row["coordinates"] for row in table),
        "floor": FLOOR,
        "thresholds": LIMITS,
        "table": table,
    }


def verdict_of(worst: float, kinks: int) -> str:
    """The verdict on the largest relative error; one that is not a number is wrong."""
    if worst <= RIGHT:
        return "right but for kinks" if kinks else "right"
    if worst <= SUSPICIOUS:
        return "doubtful"
    return "suspicious" if worst <= WRONG else "wrong"


def _trained(study: Study, recipe: Recipe, steps: int) -> Tensor:
    """The weights after some steps of training [D]."""
    short = recipe.edit({"stop": {"after": f"{steps}it"}, "average": {}})
    return (
        study.train("trained", [short], report=lambda _: None)[0].slots["theta"].detach().flatten()
    )


def _move(population: Population, point: Tensor) -> None:
    with torch.no_grad():
        population.theta.copy_(point.to(population.theta).expand_as(population.theta))


def _tensors(
    recipe: Recipe,
    population: Population,
    batch: Batch,
    coordinates: int,
    seed: int,
    classes: int,
    point: str,
) -> Iterator[dict[str, Any]]:
    analytic, size = _analytic(recipe, population, batch)
    base = population.theta[0].detach().clone()
    # of a difference, where the gradient is next to nothing
    rounding = 2 * torch.finfo(torch.float64).eps * size / STEP
    floor = max(
        FLOOR * float(analytic.abs().max()), rounding / RIGHT, torch.finfo(torch.float64).tiny
    )
    for entry in population.layout.entries:
        places = _places(entry, coordinates, classes, generator(seed, "gradcheck", entry.name))
        found = analytic[places]
        near, far = (
            _differences(recipe, population, batch, base, places, h)[0] for h in (STEP, 2 * STEP)
        )
        errors = _errors(found, (4 * near - far) / 3, floor)
        bad = ~(errors <= RIGHT)
        kinks = torch.zeros_like(bad)
        if bad.any():
            closer = _differences(recipe, population, batch, base, places[bad], STEP / 100)
            kinks[bad] = _at_kink(found[bad], closer, errors[bad], floor)
        yield _row(entry, point, errors[~kinks], int(kinks.sum()), found)


def _places(entry: Entry, coordinates: int, classes: int, draws: torch.Generator) -> Tensor:
    """Columns of theta: some of the tensor's, and one of each row where there is a row for each
    class."""
    size = entry.stop - entry.start
    places = torch.randperm(size, generator=draws)[:coordinates]
    if entry.shape and entry.shape[0] == classes:
        width = size // classes
        rows = torch.arange(classes) * width + torch.randint(width, (classes,), generator=draws)
        places = torch.cat([places, rows]).unique()
    return entry.start + places


def _at_kink(
    analytic: Tensor, closer: tuple[Tensor, Tensor, Tensor], errors: Tensor, floor: float
) -> Tensor:
    """Where a wide difference errs since the loss has a kink between its points, or right there."""
    middle, left, right = closer
    left_error, right_error, again = (
        _errors(analytic, slope, floor) for slope in (left, right, middle)
    )
    passed = (again < errors / 3) & (again < SUSPICIOUS)
    sides = _errors(left, right, floor) > 10 * SUSPICIOUS
    between = (torch.minimum(left, right) - analytic <= SUSPICIOUS * floor) & (
        analytic - torch.maximum(left, right) <= SUSPICIOUS * floor
    )
    one_side = torch.minimum(left_error, right_error) < SUSPICIOUS
    return passed | (sides & (between | one_side))


def _row(entry: Entry, point: str, errors: Tensor, kinks: int, found: Tensor) -> dict[str, Any]:
    return {
        "tensor": entry.name.removeprefix("model."),
        "point": point,
        "shape": " x ".join(map(str, entry.shape)),
        "coordinates": len(found),
        "relative error": float(errors.max()) if len(errors) else 0.0,
        "median error": float(errors.median()) if len(errors) else 0.0,
        "kinks": kinks,
        "zero gradients": int((found == 0).sum()),
    }


def _analytic(recipe: Recipe, population: Population, batch: Batch) -> tuple[Tensor, float]:
    """The gradient, and the largest number that the loss is computed from: rounding is in
    proportion to it."""
    population.seed_step(0)
    losses = population.gradients(batch.x, batch.y, None, 0)
    grad = population.grad.clone()
    add_penalty_gradients(
        grad, population.theta.detach(), population.layout, *_strengths(recipe, len(population))
    )
    population.seed_step(0)
    with torch.no_grad():
        scores = population.call(population.objectives[0].model, batch.x)
    return grad[0], max(abs(float(losses[0])), float(scores.abs().max()))


def _differences(
    recipe: Recipe, population: Population, batch: Batch, base: Tensor, places: Tensor, step: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Slopes at the places: central, to the left, to the right; P points at a time."""
    shifts = [(0, 0.0), *((int(place), shift) for place in places for shift in (-step, step))]
    values: list[Tensor] = []
    for start in range(0, len(shifts), len(population)):
        part = shifts[start : start + len(population)]
        _move(population, base)
        with torch.no_grad():
            for row, (place, shift) in enumerate(part):
                population.theta[row, place] += shift
        population.seed_step(0)
        losses = population.losses(batch.x, batch.y)
        losses = losses + penalty(
            population.theta.detach(), population.layout, *_strengths(recipe, len(population))
        )
        values.append(losses[: len(part)])
    _move(population, base)
    middle, around = torch.cat(values).split([1, len(shifts) - 1])
    low, high = around.view(-1, 2).unbind(1)
    return (high - low) / (2 * step), (middle - low) / step, (high - middle) / step


def _strengths(recipe: Recipe, rows: int) -> list[Tensor]:
    return [
        torch.full((rows,), getattr(recipe.loss, name), dtype=torch.float64)
        for name in ("l1", "l2", "lp", "p")
    ]


def _errors(one: Tensor, other: Tensor, floor: float) -> Tensor:
    """Relative differences, the denominator no less than ``floor``."""
    return (one - other).abs() / torch.maximum(one.abs(), other.abs()).clamp_min(floor)


def _conclude(study: Study, summary: dict[str, Any]) -> Conclusion:
    verdicts = {
        "right": "The gradient is right",
        "right but for kinks": "The gradient is right, but for kinks",
        "wrong": "The gradient is wrong",
        "suspicious": "The gradient is suspicious",
        "doubtful": "The gradient is doubtful",
    }
    worst = summary["relative error"]
    power = f"{worst:.1e}" if math.isfinite(worst) else "not finite"
    count = summary["coordinates"]
    content = Page(
        title=f"Gradient check of {study.recipe.name}",
        sentences=[
            (
                f"{verdicts[summary['verdict']]}: the largest relative error is "
                f"{power}, in {summary['tensor']} at the {summary['point']} point."
            ),
            f"{count} derivatives were compared with central differences in float64; {summary['kinks']} at kinks were skipped.",
            THRESHOLDS,
        ],
        figures={
            "errors": (
                "Largest relative error of each tensor",
                errors_figure(summary["table"], RIGHT, SUSPICIOUS),
            )
        },
        tables=[PageTable("By tensor", summary["table"], best=None)],
        reading=[
            THRESHOLDS,
            (
                f"Relative to the larger of the two derivatives, or to {FLOOR:g} "
                "of the largest entry of the gradient where both are smaller."
            ),
            "A tensor whose every derivative is off has a wrong backward pass; zero gradients everywhere mean that it is cut off.",
        ],
    )
    if summary["verdict"] == "wrong":
        summary["failure"] = f"{content.sentences[0]} {THRESHOLDS}"
    return summary, content
