"""Gradient check: what autograd and the penalties' formulas give, against central differences in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ravine.data.source import Batch
from ravine.engine.points import Points
from ravine.engine.population import Population
from ravine.errors import InputError
from ravine.layout import Entry
from ravine.optim.penalties import add_penalty_gradients, penalty
from ravine.randomness import generator
from ravine.recipe import Recipe
from ravine.study import measuring
from ravine.study.directory import Study

STEP = 1e-5
GOOD, FAIR = 1e-6, 1e-3  # relative errors: right, right but for kinks


def gradcheck(
    recipe: Recipe, *, coordinates: int = 20, samples: int = 32, seed: int = 0, model: Any = None, data: Any = None,
    out: str | Path | None = None, quiet: bool = False, command: str = "",
) -> dict[str, Any]:
    """Compare the gradient of one batch with central differences, tensor by tensor; gives the study's summary.

    At ``coordinates`` places of each tensor, drawn by ``seed``, the derivative is (f(w + h) - f(w - h)) / 2h with h = 1e-5,
    penalties included, dropout masks held. All points are rows of theta, evaluated many at a time. The relative difference is
    |a - n| / max(|a|, |n|), less what rounding makes of the difference. Where it is above 1e-6 the place is tried with h/100: a kink (ReLU, max
    pooling) between w - h and w + h shrinks away, a wrong gradient does not.

    >>> gradcheck(Recipe(data={"source": "blobs"}, model="softmax"), quiet=True, out=tmp / "g")["verdict"]
    'right'
    """
    if coordinates < 1 or samples < 1:
        raise InputError("--coordinates and --samples", got=[coordinates, samples], expected="whole numbers of at least 1")
    recipe = recipe.edit({"precision": "float64"})
    options = {"coordinates": coordinates, "samples": samples, "seed": seed}
    study = Study.enter("gradcheck", recipe, options, out, model=model, data=data, quiet=quiet, command=command)
    pipeline = measuring.pipeline_of(recipe, data)
    points = Points(recipe, pipeline, model if callable(model) else None)
    points.population.train(True)
    raw = pipeline.batch(0)
    batch = Batch(raw.x[:samples], raw.y[:samples], raw.index[:samples])
    table = study.once("tensors", lambda: list(_tensors(recipe, points.population, batch, coordinates, seed)))
    worst = max(table, key=lambda row: row["relative difference"])
    verdict = "right" if worst["relative difference"] < GOOD else "right but for kinks" if worst["relative difference"] < FAIR else "wrong"
    summary = {"verdict": verdict, "relative difference": worst["relative difference"], "tensor": worst["tensor"], "table": table,
               "coordinates": sum(row["coordinates"] for row in table)}  # fmt: skip
    return _conclude(study, summary)


def _tensors(recipe: Recipe, population: Population, batch: Batch, coordinates: int, seed: int) -> Iterator[dict[str, Any]]:
    analytic = _analytic(recipe, population, batch)
    base = population.theta[0].detach().clone()
    floor = 1e-7 * max(float(analytic.abs().max()), 1e-5)
    for entry in population.layout.entries:
        size = entry.stop - entry.start
        places = entry.start + torch.randperm(size, generator=generator(seed, "gradcheck", entry.name))[:coordinates]
        found = analytic[places]
        errors = _errors(found, _numeric(recipe, population, batch, base, places, STEP), floor, STEP)
        bad = errors > GOOD
        kinks = 0
        if bad.any():
            again = _errors(found[bad], _numeric(recipe, population, batch, base, places[bad], STEP / 100), floor, STEP / 100)
            kinks = int((again < errors[bad] / 3).sum())
            errors[bad] = torch.minimum(errors[bad], again)
        yield _row(entry, places, errors, kinks, found)


def _row(entry: Entry, places: Tensor, errors: Tensor, kinks: int, found: Tensor) -> dict[str, Any]:
    return {
        "tensor": entry.name.removeprefix("model."), "shape": " x ".join(map(str, entry.shape)), "coordinates": len(places),
        "relative difference": float(errors.max()), "median difference": float(errors.median()), "kinks": kinks,
        "zero gradients": int((found == 0).sum()),
    }  # fmt: skip


def _analytic(recipe: Recipe, population: Population, batch: Batch) -> Tensor:
    population.seed_step(0)
    population.gradients(batch.x, batch.y, None, 0)
    grad = population.grad.clone()
    add_penalty_gradients(grad, population.theta.detach(), population.layout, *_strengths(recipe, len(population)))
    return grad[0]


def _numeric(recipe: Recipe, population: Population, batch: Batch, base: Tensor, places: Tensor, step: float) -> Tensor:
    """Central differences at the places, P points at a time."""
    shifts = [(int(place), sign) for place in places for sign in (step, -step)]
    values: list[Tensor] = []
    for start in range(0, len(shifts), len(population)):
        part = shifts[start : start + len(population)]
        with torch.no_grad():
            population.theta.copy_(base.expand_as(population.theta))
            for row, (place, shift) in enumerate(part):
                population.theta[row, place] += shift
        population.seed_step(0)
        losses = population.losses(batch.x, batch.y)
        losses = losses + penalty(population.theta.detach(), population.layout, *_strengths(recipe, len(population)))
        values.append(losses[: len(part)])
    with torch.no_grad():
        population.theta.copy_(base.expand_as(population.theta))
    f = torch.cat(values).view(-1, 2)
    return (f[:, 0] - f[:, 1]) / (2 * step)


def _strengths(recipe: Recipe, rows: int) -> list[Tensor]:
    return [torch.full((rows,), getattr(recipe.loss, name), dtype=torch.float64) for name in ("l1", "l2", "lp", "p")]


def _errors(analytic: Tensor, numeric: Tensor, floor: float, step: float) -> Tensor:
    """Relative differences, less what rounding alone makes of a central difference."""
    scale = torch.maximum(analytic.abs(), numeric.abs()).clamp_min(floor)
    rounding = 4 * torch.finfo(torch.float64).eps / step
    return ((analytic - numeric).abs() - rounding).clamp_min(0) / scale


def _conclude(study: Study, summary: dict[str, Any]) -> dict[str, Any]:
    from ravine.study.page import Page, Table
    from ravine.study.pictures.checks import errors_figure

    said = {"right": "The gradient is right", "right but for kinks": "The gradient is right, but for kinks", "wrong": "The gradient is wrong"}
    worst = summary["relative difference"]
    power = f"{worst:.1e}" if math.isfinite(worst) else "not finite"
    content = Page(
        title=f"Gradient check of {study.recipe.name}",
        sentences=[f"{said[summary['verdict']]}: the largest relative error is {power}, in {summary['tensor']}.",
                   f"{summary['coordinates']} derivatives were compared with central differences in float64."],
        figures={"errors": ("Largest relative error of each tensor", errors_figure(summary["table"], GOOD, FAIR))},
        tables=[Table("By tensor", summary["table"], best=None)],
        reading=[
            "Under 1e-6 is right. Up to 1e-3 at some places is usual with ReLU or max pooling, whose kinks lie between the two points.",
            "A tensor whose every derivative is off has a wrong backward pass; zero gradients everywhere mean that it is cut off.",
        ],
    )  # fmt: skip
    return study.finish(summary, content)
