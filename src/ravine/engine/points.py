"""Loss and metrics at many points of parameter space: rows of theta, P at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ravine.data.pipeline import Batch, Pipeline
from ravine.engine.execution import pilot
from ravine.engine.execution.device import theta_dtype
from ravine.engine.programs import Model, populate
from ravine.engine.rows.evaluate import metric_functions
from ravine.engine.rows.population import Population
from ravine.nn.answers import Answers
from ravine.recipe import Recipe

DENSE_WIDTH, WIDTH = 64, 4  # rows at a time where they run together, and where they run one by one


class Points:
    """A population as an instrument: it is moved to the points, ``width`` of them at a time.

    ``buffers`` (name -> [...]) are what does not change from point to point: running statistics of
    batch normalisation.
    """

    def __init__(
        self,
        recipe: Recipe,
        pipeline: Pipeline,
        module: Model = None,
        *,
        buffers: Mapping[str, Tensor] | None = None,
        width: int | None = None,
    ):
        self.pipeline = pipeline
        if width is None:
            pair = _population([recipe] * 2, pipeline, module)
            together = pilot.choose(recipe, pair, pipeline).kind.together
            width = DENSE_WIDTH if together else WIDTH
        self.width = width
        self.population = _population([recipe] * self.width, pipeline, module)
        self.execution = pilot.prepare(self.population, recipe, pipeline)
        # [B, ...] -> [P, B, ...]
        self.outputs: Callable[[Tensor], Tensor] = self.population.outputs
        objective = self.population.objectives[0]
        self.answers = Answers.of(
            objective.model,
            objective.loss,
            pipeline.task,
            pipeline.batch(0).x[:4],
            pipeline.target_units,
        )
        self.metrics = metric_functions(self.answers, pipeline.task, (), recipe.loss)
        for name, value in (buffers or {}).items():
            self.population.buffers[name].copy_(value.expand_as(self.population.buffers[name]))
        self.population.train(False)

    def measure(
        self,
        theta: Tensor,
        batches: list[Batch],
        *,
        buffers: Mapping[str, Tensor] | None = None,
        report: Callable[[int], None] = lambda done: None,
    ) -> dict[str, np.ndarray]:
        """``{"loss": [N], "accuracy": [N], …}`` at the points theta [N, D]; ``buffers`` [N, ...] go
        with them."""
        found: dict[str, list[np.ndarray]] = {}
        for start in range(0, len(theta), self.width):
            rows = theta[start : start + self.width]
            self._move(
                rows,
                {
                    name: value[start : start + self.width]
                    for name, value in (buffers or {}).items()
                },
            )
            for name, values in self._measured(batches).items():
                found.setdefault(name, []).append(values[: len(rows)])
            report(start + len(rows))
        return {name: np.concatenate(values) for name, values in found.items()}

    @torch.no_grad()
    def _move(self, rows: Tensor, buffers: Mapping[str, Tensor]) -> None:
        self.population.theta[: len(rows)].copy_(rows)
        for name, value in buffers.items():
            self.population.buffers[name][: len(value)].copy_(value)

    @torch.no_grad()
    def _measured(self, batches: list[Batch]) -> dict[str, np.ndarray]:
        losses = torch.zeros(self.width, dtype=torch.float64)
        outputs, targets = [], torch.cat([batch.y for batch in batches])
        count = 0.0  # of samples, or the sum of their class weights
        for batch in batches:
            output = self.outputs(batch.x)  # [P, B, ...]
            count += self.population.objectives[0].loss.total(batch.y)
            for i, objective in enumerate(self.population.objectives):
                losses[i] += objective.loss(output[i], batch.y).double().sum().cpu()
            outputs.append(output)
        found: dict[str, Any] = {"loss": (losses / (count or 1.0)).numpy()}
        together, target = torch.cat(outputs, 1), self.pipeline.target_units(targets)
        for name, function in self.metrics.items():
            found[name] = np.array([function(own, target) for own in together], float)
        return found


def _population(recipes: list[Recipe], pipeline: Pipeline, module: Model) -> Population:
    dtype = theta_dtype(recipes[0].precision)
    return populate(recipes, pipeline, module, device=pipeline.device, dtype=dtype)


def initial_rows(recipes: list[Recipe], pipeline: Pipeline, module: Model = None) -> Tensor:
    """theta [P, D] as the recipes' initialisers and seeds make it."""
    return _population(recipes, pipeline, module).theta.detach()
