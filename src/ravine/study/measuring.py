"""Measurements of trained runs for studies: metrics and outputs on a part of the data, and the
ranking of runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ravine.data.pipeline import Pipeline
from ravine.engine.execution.device import theta_dtype
from ravine.engine.programs import with_step, with_targets
from ravine.engine.rows.evaluate import (
    evaluate,
    evaluation,
    metric_functions,
    metric_name,
    metric_names,
)
from ravine.engine.rows.population import Objective
from ravine.engine.run import Run
from ravine.errors import InputError
from ravine.measures import better_is
from ravine.nn.answers import Answers
from ravine.nn.build import build_loss
from ravine.recipe import Recipe


@dataclass(frozen=True)
class Outputs:
    """Outputs of P networks on the same N samples, in evaluation mode."""

    outputs: torch.Tensor  # [P, N, ...] as the networks give them
    targets: torch.Tensor  # [N, ...] in their units
    pipeline: Pipeline
    answers: Answers

    @property
    def values(self) -> torch.Tensor:
        """[P, N, ...] in the units of the targets."""
        return torch.stack([self.answers.values(row) for row in self.outputs])

    @property
    def probabilities(self) -> np.ndarray:
        """[P, N, K]; two columns where a network has one output for two classes."""
        return torch.stack([self.answers.by_class(row) for row in self.outputs]).numpy()


def pipeline_of(recipe: Recipe, data: Any = None) -> Pipeline:
    """The data of a recipe, or what was given in Python."""
    if recipe.data.source.kind == "arrays" and data is None:
        repair = "give the same data again: data=(x, y)"
        raise InputError("data", got="arrays given in Python", expected="the data", repair=repair)
    dtype = theta_dtype(recipe.precision)
    return Pipeline(recipe.data, arrays=data, dtype=dtype)


def need(pipeline: Pipeline, split: str) -> None:
    if split not in ("train", "validation", "test"):
        raise InputError("--split", got=split, expected="train, validation or test")
    if not pipeline.has(split):
        raise InputError(
            "data",
            got=f"no {split} part",
            expected=f"a {split} part",
            repair=f"set data.{split} above 0",
        )


def outputs_on(
    runs: Sequence[Run], split: str, *, data: Any = None, pipeline: Pipeline | None = None
) -> Outputs:
    """The outputs of every run's network for every sample of a part."""
    pipeline = pipeline or pipeline_of(runs[0].recipe, data)
    need(pipeline, split)
    batches = list(pipeline.split(split))
    found = []
    for run in runs:
        with evaluation([run.model]):
            found.append(torch.cat([run.model(batch.x) for batch in batches]))
    targets = pipeline.target_units(torch.cat([batch.y for batch in batches]))
    return Outputs(torch.stack(found).clone(), targets.clone(), pipeline, runs[0].answers)


def measure(
    runs: Sequence[Run], split: str, *, data: Any = None, pipeline: Pipeline | None = None
) -> dict[str, np.ndarray]:
    """``{"loss": [P], "accuracy": [P], …}`` of runs that share their data."""
    recipe = runs[0].recipe
    pipeline = pipeline or pipeline_of(recipe, data)
    need(pipeline, split)
    metrics = metric_functions(runs[0].answers, pipeline.task, recipe.metrics, recipe.loss)
    objectives = []
    for run in runs:
        loss = build_loss(
            run.recipe.loss,
            pipeline.task,
            counts=[int(n) for n in pipeline.class_counts().tolist()] or None,
        )
        facts = pipeline.preparation.facts
        made = Objective(run.model, with_targets(loss, facts))
        made = with_step(made.to(next(run.model.parameters()).dtype), run.recipe, facts)
        objectives.append(made)
    return evaluate(objectives, pipeline, split, metrics)


def judged_by(recipe: Recipe, asked: str | None, data: Any = None) -> str:
    """The validation metric that chooses: the asked one, or the task's first (``val_accuracy``,
    ``val_rmse``)."""
    pipeline = pipeline_of(recipe, data)
    need(pipeline, "validation")
    facts = pipeline.preparation.facts
    if "target_fields" in facts or facts.get("unlabelled"):  # nothing is known of the answers
        own = [*map(metric_name, recipe.metrics), "loss"]
    else:
        own = [*metric_names(pipeline.task, recipe.metrics, recipe.loss), "loss"]
    known = [f"val_{name}" for name in dict.fromkeys(own)]
    if asked is not None and asked not in known:
        raise InputError("--metric", got=asked, expected=f"one of {', '.join(known)}")
    return asked or known[0]


def score(result: dict[str, Any], metric: str) -> tuple[float, float]:
    """A key that sorts the best run first: by the metric, ties by validation loss; what is not
    finite comes last."""
    value, loss = result.get(metric), result.get("val_loss")
    sign = 1.0 if better_is(metric) == "min" else -1.0
    first = sign * value if value is not None and math.isfinite(value) else math.inf
    return first, loss if loss is not None and math.isfinite(loss) else math.inf


def mean_sd(values: Iterable[float]) -> list[float]:
    """Mean and standard deviation (n - 1) of the finite values."""
    finite = [v for v in values if v is not None and math.isfinite(v)]
    if not finite:
        return [math.nan, math.nan]
    return [float(np.mean(finite)), float(np.std(finite, ddof=1)) if len(finite) > 1 else 0.0]


def results(runs: Sequence[Run]) -> list[dict[str, Any]]:
    return [run.result for run in runs]
