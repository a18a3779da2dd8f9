"""Small paired experiments: recipes trained side by side in memory on the same batches; nothing is
written."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from ravine.data.pipeline import Batch, Pipeline
from ravine.doctor.measure.baseline import Baseline, accuracy, baseline
from ravine.doctor.measure.curve import Curve
from ravine.doctor.measure.untrained import PROBE, probe_batch
from ravine.engine.execute import running
from ravine.engine.loop.calendar import Calendar, plan_steps
from ravine.engine.loop.kept_weights import held
from ravine.engine.loop.loop import TrainingLoop
from ravine.engine.loop.record import Memory
from ravine.engine.programs import Model, Program, pipeline_of, program_of
from ravine.engine.rows.evaluate import evaluation
from ravine.engine.rows.population import Objective
from ravine.nn.analysis.traits import Trait, traits
from ravine.recipe import Recipe


class SharedData:
    """The data of a recipe and of its variants, prepared once for each way of preparing them, and
    programs on them, made as training makes them."""

    def __init__(self, module: Model = None, arrays: Any = None):
        self.module, self.arrays = module, arrays
        self._pipelines: dict[tuple[str, str], Pipeline] = {}

    def pipeline(self, recipe: Recipe) -> Pipeline:
        return pipeline_of(_by_rule(recipe), self.module, self.arrays, self._pipelines)

    def steps(self, recipe: Recipe) -> int:
        """Steps of a recipe's whole plan."""
        return plan_steps(recipe, self.pipeline(recipe))

    def program(self, recipes: Sequence[Recipe], members: Sequence[int]) -> Program:
        """Recipes that share a program, as its members, initialised; nothing is checked."""
        recipes = [_by_rule(recipe) for recipe in recipes]
        return program_of(
            0,
            recipes,
            list(members),
            self.module,
            self.arrays,
            self._pipelines,
            test=False,
            check=False,
        )


def _by_rule(recipe: Recipe) -> Recipe:
    """Nothing is timed for an experiment: it is over before that would pay."""
    return recipe.edit(
        {
            "precision": "float64" if recipe.precision == "float64" else "float32",
            "threads": torch.get_num_threads(),
        }
    )


class Experiment:
    """Recipes trained side by side, as ``ravine.train`` trains them, with their record in memory.

    ``advance`` steps them, ``measure`` looks at them, ``curves`` says how they went, in the
    recipes' order. Plans shorter than ``steps`` are lengthened to it.
    """

    def __init__(self, recipes: Sequence[Recipe], shared: SharedData, *, steps: int = 0):
        by_program: dict[str, list[int]] = {}
        for i, recipe in enumerate(recipes):
            longer = _at_least(recipe, steps, shared)
            by_program.setdefault(longer.program, []).append(i)
        self.groups = [
            Group(
                shared.program([_at_least(recipes[i], steps, shared) for i in rows], rows),
                [recipes[i] for i in rows],
            )
            for rows in by_program.values()
        ]
        self.recipes = list(recipes)

    def advance(self, steps: int, *, seconds: float = math.inf) -> None:
        """Every member to its step ``steps``, or as far as these seconds of processor time allow;
        programs share them evenly."""
        began = time.process_time()
        for i, group in enumerate(self.groups):
            group.advance(steps, began + seconds * (i + 1) / len(self.groups))

    def measure(self, validation: bool = False) -> None:
        for group in self.groups:
            group.measure(validation)

    def curves(self) -> list[Curve]:
        placed = {member: curve for group in self.groups for member, curve in group.curves.items()}
        return [placed[i] for i in range(len(self.recipes))]

    @contextmanager
    def objective(self, i: int) -> Iterator[Objective]:
        """A member's network and loss, with the weights it has now, or ended with."""
        (group,) = (group for group in self.groups if i in group.curves)
        with group.objective(i) as found:
            yield found


def _at_least(recipe: Recipe, steps: int, shared: SharedData) -> Recipe:
    pipeline = shared.pipeline(recipe)
    if plan_steps(recipe, pipeline) >= steps:
        return recipe
    return recipe.edit(
        {"stop.after": f"{math.ceil(steps / Calendar(recipe, pipeline).epoch_steps)}ep"}
    )


class Group:
    """The members of one program, their training loop, and what is measured of them on the way."""

    def __init__(self, program: Program, recipes: Sequence[Recipe]):
        self.program, self.pipeline = program, program.pipeline
        self.record = Memory()
        self.loop = TrainingLoop(program, self.record, sparing=True)
        first = program.population.objectives[0]
        size = math.prod(self.pipeline.input_shape)
        self.probe = probe_batch(self.pipeline, PROBE if size < 500 else PROBE // 4)
        self.validation: Batch | None = None
        if self.pipeline.has("validation"):
            most = 4 * PROBE if size < 500 else PROBE
            self.validation = next(iter(self.pipeline.split("validation", limit=most, batch=most)))
        self.base = self._baseline(first)
        self.curves = {
            member: Curve(recipe, stop.total, base=self.base, network=partial(self.network, member))
            for member, recipe, stop in zip(program.members, recipes, self.loop.stops, strict=True)
        }

    def _baseline(self, objective: Objective) -> Baseline:
        with evaluation([objective]):
            output = self.program.population.call(objective.model, self.probe.x[:2])
        outputs = output.shape[-1] if output.dim() > 1 else 1
        return baseline(objective.loss, self.probe.y.cpu(), outputs, self.pipeline.task)

    def advance(self, steps: int, deadline: float = math.inf) -> None:
        """To a step, or until the process has used ``deadline`` seconds of processor time."""
        with running(self.loop):
            self.loop.advance(steps, deadline)
        for member, curve in self.curves.items():
            curve.losses, curve.norms = self.record.losses(member), self.record.norms(member)

    def measure(self, validation: bool = False) -> None:
        """Note loss and metric of every member on the probe samples, and on validation samples."""
        for member, curve in self.curves.items():
            if curve.at and curve.at[-1] == len(curve.losses) and not validation:
                continue  # it has ended
            curve.at.append(len(curve.losses))
            with self.objective(member) as objective:
                loss, metric = self.judge(objective, self.probe)
                if self.lost(member):
                    loss, metric = math.nan, math.nan
                curve.loss.append(loss)
                curve.metric.append(metric)
                if validation and self.validation is not None:
                    loss, metric = self.judge(objective, self.validation)
                    curve.val_loss.append(loss)
                    curve.val_metric.append(metric)
                    curve.val_samples = len(self.validation.y)

    def lost(self, member: int) -> bool:
        """Whether a member has diverged, and does not train any more."""
        result = self.record.results.get(member)
        if result is not None:
            return result["stopped"] == "diverged"
        return not bool(self.loop.stepper.alive[self.loop.members.numbers.index(member)])

    @contextmanager
    def objective(self, member: int) -> Iterator[Objective]:
        """A member's network and loss, with the weights it has now, or ended with."""
        population = self.loop.population
        population.gather_buffers()
        final = self.record.finals.get(member)
        if final is None:
            yield population.objectives[self.loop.members.numbers.index(member)]
            return
        # a member that has ended is shown in the first row, whose own weights wait aside
        theta = population.theta.detach().clone()
        buffers = {name: stacked.clone() for name, stacked in population.saved_buffers().items()}
        theta[0] = final[0].to(theta)
        for name, value in final[1].items():
            buffers[name][0] = value
        with held(population, theta, buffers):
            yield population.objectives[0]

    @contextmanager
    def network(self, member: int) -> Iterator[nn.Module]:
        """A member's network, likewise."""
        with self.objective(member) as found:
            yield found.model

    def judge(self, objective: Objective, batch: Batch) -> tuple[float, float]:
        """Loss and metric without dropout; batch norm by the statistics of these samples while its
        averages are young."""
        with evaluation([objective]):
            young: list[Any] = (
                [m for m in objective.modules() if Trait.BATCH_STATISTICS in traits(m)]
                if self.loop.step < 500
                else []
            )
            averages = [(b, b.clone()) for m in young for b in m.buffers(recurse=False)]
            for m in young:
                m.train()
            output = torch.cat(
                [self.program.population.call(objective.model, x) for x in batch.x.split(512)]
            )
            value = float(objective.loss(output, batch.y).double().mean())
            for average, before in averages:
                average.copy_(before)
        return value, accuracy(output, batch.y, self.pipeline.task, self.program.answers)
