"""Small paired experiments: recipes trained side by side in memory on the same batches; nothing is
written."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ravine import durations
from ravine.data.pipeline import Batch, Pipeline
from ravine.doctor.baseline import Baseline, accuracy, baseline
from ravine.engine.execution import pilot
from ravine.engine.programs import Model, Program, populate
from ravine.engine.rows.evaluate import evaluation
from ravine.engine.rows.members import Members
from ravine.engine.rows.step import Stepper
from ravine.nn.traits import Trait, traits
from ravine.optim.plan import Schedules
from ravine.recipe import Recipe

PROBE = 1024  # samples on which losses are compared


@dataclass
class Curve:
    """One member as it went: batch losses, gradient norms, and what was measured on probe samples
    at some steps."""

    recipe: Recipe
    total: int  # steps of the whole plan
    losses: np.ndarray = field(default_factory=lambda: np.zeros(0))  # of every batch [steps]
    norms: np.ndarray = field(default_factory=lambda: np.zeros(0))
    at: list[int] = field(default_factory=list)  # steps at which it was measured
    loss: list[float] = field(default_factory=list)  # on the probe samples
    metric: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_metric: list[float] = field(default_factory=list)
    base: Baseline = field(default_factory=lambda: Baseline(1.0, 0.0, 1.0))
    failed: str | None = None

    @property
    def seen(self) -> int:
        return len(self.losses)

    @property
    def finite(self) -> bool:
        return (
            self.failed is None
            and bool(np.isfinite(self.losses).all())
            and bool(np.isfinite(self.norms).all())
        )

    def skills(self) -> list[float]:
        return [self.base.skill(value) for value in self.loss]

    @property
    def skill(self) -> float:
        """At the end, of the loss; minus infinity for a member that was lost."""
        return self.skills()[-1] if self.loss and self.finite else -math.inf

    @property
    def metric_skill(self) -> float:
        return self.base.metric_skill(self.metric[-1]) if self.metric and self.finite else -math.inf


class Shelf:
    """The data of a program and of its variants, loaded once for each way of preparing them."""

    def __init__(self, module: Model = None, arrays: Any = None):
        self.module, self.arrays = module, arrays
        self._pipelines: dict[str, Pipeline] = {}

    def pipeline(self, recipe: Recipe) -> Pipeline:
        device, dtype = torch.device(pilot.device(recipe.device)), _dtype(recipe)
        key = f"{recipe.data.model_dump_json(exclude={'bootstrap', 'batch'})} {dtype}"
        if key not in self._pipelines:
            self._pipelines[key] = Pipeline(
                recipe.data, arrays=self.arrays, device=device, dtype=dtype
            )
        held = self._pipelines[key]
        return held if held.data.batch == recipe.data.batch else held.with_batch(recipe.data.batch)

    def program(self, recipes: Sequence[Recipe], members: Sequence[int]) -> Program:
        """Recipes that share a program, as its members, initialised."""
        pipeline = self.pipeline(recipes[0])
        population = populate(
            recipes, pipeline, self.module, device=pipeline.device, dtype=_dtype(recipes[0])
        )
        execution = pilot.prepare(population, _by_rule(recipes[0]), pipeline)
        return Program(0, list(recipes), list(members), pipeline, population, execution, test=False)


def _by_rule(recipe: Recipe) -> Recipe:
    """Nothing is timed for an experiment: it is over before that would pay."""
    return recipe.edit(
        {
            "precision": "float64" if recipe.precision == "float64" else "float32",
            "threads": torch.get_num_threads(),
        }
    )


def _dtype(recipe: Recipe) -> torch.dtype:
    return torch.float64 if recipe.precision == "float64" else torch.float32


class Experiment:
    """Recipes trained side by side. ``advance`` steps them, ``curves`` says how they went, in the
    recipes' order."""

    def __init__(self, recipes: Sequence[Recipe], shelf: Shelf):
        by_program: dict[str, list[int]] = {}
        for i, recipe in enumerate(recipes):
            by_program.setdefault(recipe.program, []).append(i)
        self.groups = [
            Group(shelf.program([recipes[i] for i in rows], rows)) for rows in by_program.values()
        ]
        self.recipes = list(recipes)

    def advance(self, steps: int, *, seconds: float = math.inf) -> None:
        """Every member to its step ``steps``, or as far as the clock lets it go; programs share the
        seconds evenly."""
        began = time.monotonic()
        for i, group in enumerate(self.groups):
            group.advance(steps, began + seconds * (i + 1) / len(self.groups))

    def measure(self, validation: bool = False) -> None:
        for group in self.groups:
            group.measure(validation)

    def curves(self) -> list[Curve]:
        placed = {
            member: curve
            for group in self.groups
            for member, curve in zip(group.members, group.curves, strict=True)
        }
        return [placed[i] for i in range(len(self.recipes))]

    def model(self, i: int) -> tuple[nn.Module, nn.Module]:
        """A member's network and its loss, with the weights it has now."""
        for group in self.groups:
            if i in group.members:
                objective = group.program.population.objectives[group.members.index(i)]
                return objective.model, objective.loss
        raise IndexError(i)


class Group:
    """The members of one program."""

    def __init__(self, program: Program):
        self.program, self.pipeline = program, program.pipeline
        self.members = list(program.members)
        self.table = Members(program.recipes)
        self.stepper = Stepper(program.population, self.table)
        self.epoch_steps = math.ceil(self.pipeline.epoch_steps / self.stepper.accumulate)
        totals = [max(1, durations.steps(r.stop.after, self.epoch_steps)) for r in program.recipes]
        self.schedules = Schedules(
            [r.schedule for r in program.recipes], epoch_steps=self.epoch_steps, totals=totals
        )
        self.curves = [
            Curve(recipe, total) for recipe, total in zip(program.recipes, totals, strict=True)
        ]
        self.step = 0
        self.rates = np.array([r.optimizer.arguments["lr"] for r in program.recipes])
        self.probe = probe_batch(
            self.pipeline, PROBE if math.prod(self.pipeline.input_shape) < 500 else PROBE // 4
        )
        self.probabilities = program.recipes[0].loss.arguments.get("input") == "probabilities"
        self.threshold = threshold(program.recipes[0], self.pipeline.task)
        self.base = self._baseline(self.probe.y)
        self.validation: Batch | None = None
        if self.pipeline.has("validation"):
            most = 4 * PROBE if math.prod(self.pipeline.input_shape) < 500 else PROBE
            self.validation = next(iter(self.pipeline.split("validation", limit=most, batch=most)))
        for curve in self.curves:
            curve.base = self.base
        self.program.population.train()
        self.seconds_a_step = 0.0

    def _baseline(self, y: Tensor) -> Baseline:
        loss = self.program.population.objectives[0].loss
        with torch.no_grad():
            output = self.program.population.call(
                self.program.population.objectives[0].model, self.probe.x[:2]
            )
        outputs = output.shape[-1] if output.dim() > 1 else 1
        return baseline(
            loss, y.cpu(), outputs, self.pipeline.task, probabilities=self.probabilities
        )

    def advance(self, steps: int, deadline: float = math.inf) -> None:
        while self.step < steps and time.monotonic() < deadline and bool(self.stepper.alive.any()):
            size = (
                1 if self.step == 0 else max(1, min(64, int(0.5 / max(self.seconds_a_step, 1e-6))))
            )
            last = min(steps, self.step + size)
            began = time.monotonic()
            rates = self.schedules.factors(self.step, last) * self.rates
            measured = self.stepper.run(
                self._batches(self.step, last),
                self.step,
                rates,
                self.schedules.momentum(self.step, last),
            )
            if self.step:
                self.seconds_a_step = (time.monotonic() - began) / (last - self.step)
            self.step = last
            losses, norms = measured.losses.cpu().numpy(), measured.norms.cpu().numpy()
            for i, curve in enumerate(self.curves):
                curve.losses = np.concatenate([curve.losses, losses[:, i]])
                curve.norms = np.concatenate([curve.norms, norms[:, i]])
        if self.step < steps and not bool(self.stepper.alive.any()):
            self.step = steps

    def _batches(self, first: int, last: int) -> Iterator[Sequence[Batch]]:
        k, n = self.stepper.accumulate, self.pipeline.epoch_steps
        for step in range(first, last):
            epoch, place = divmod(step, self.epoch_steps)
            start = epoch * n + place * k
            yield list(self.pipeline.batches(start, min(start + k, (epoch + 1) * n)))

    def measure(self, validation: bool = False) -> None:
        population = self.program.population
        population.gather_buffers()
        for i, (objective, curve) in enumerate(
            zip(population.objectives, self.curves, strict=True)
        ):
            curve.at.append(self.step)
            loss, metric = self._judge(objective, self.probe)
            if not bool(self.stepper.alive[i]):
                loss, metric = math.nan, math.nan
            curve.loss.append(loss)
            curve.metric.append(metric)
            if validation and self.validation is not None:
                loss, metric = self._judge(objective, self.validation)
                curve.val_loss.append(loss)
                curve.val_metric.append(metric)
        population.train()

    def keep(self, rows: Sequence[int]) -> None:
        """Only these members go on."""
        self.table.keep(rows)
        self.schedules.keep(rows)
        self.rates = self.rates[list(rows)]
        self.members = [self.members[row] for row in rows]
        self.curves = [self.curves[row] for row in rows]

    def outputs(self, batch: Batch) -> list[Tensor]:
        """Every member's outputs [n, ...] in evaluation mode."""
        population = self.program.population
        population.gather_buffers()
        found = []
        for objective in population.objectives:
            with evaluation([objective]):
                found.append(
                    torch.cat([population.call(objective.model, x) for x in batch.x.split(512)])
                    .float()
                    .cpu()
                )
        population.train()
        return found

    def _judge(self, objective: Any, batch: Batch) -> tuple[float, float]:
        """Loss and metric without dropout; batch norm by the statistics of these samples while its
        averages are young."""
        with evaluation([objective]):
            young = (
                [m for m in objective.modules() if Trait.BATCH_STATISTICS in traits(m)]
                if self.step < 500
                else []
            )
            momenta = [m.momentum for m in young]
            for m in young:
                m.train()
                m.momentum = 0.0
            output = torch.cat(
                [self.program.population.call(objective.model, x) for x in batch.x.split(512)]
            )
            value = float(objective.loss(output, batch.y).double().mean())
            for m, momentum in zip(young, momenta, strict=True):
                m.momentum = momentum
        return value, accuracy(output, batch.y, self.pipeline.task, self.threshold)


def threshold(recipe: Recipe, task: str) -> float:
    """Where one output says yes: 0 for scores, 1/2 for probabilities and fitted targets."""
    logits = (
        recipe.loss.kind in ("binary_cross_entropy", "cross_entropy", "auto")
        and recipe.loss.arguments.get("input") != "probabilities"
    )
    return 0.0 if (logits and task != "regression") or recipe.loss.kind == "binary_hinge" else 0.5


def probe_batch(pipeline: Pipeline, samples: int = PROBE) -> Batch:
    """Training samples drawn as training draws them, at most ``samples``."""
    found: list[Batch] = []
    for step in range(pipeline.epoch_steps):
        found.append(pipeline.batch(step))
        if sum(len(b.y) for b in found) >= samples:
            break
    x, y, index = (
        torch.cat([getattr(b, name) for b in found])[:samples] for name in ("x", "y", "index")
    )
    return Batch(x, y, index)
