"""Recipes become programs: those that share one are trained as one population."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ravine import randomness
from ravine.data.pipeline import Pipeline
from ravine.engine import finetune
from ravine.engine.execution import pilot
from ravine.engine.execution.pilot import Execution
from ravine.engine.loop.halving import Halving
from ravine.engine.rows.evaluate import evaluation
from ravine.engine.rows.population import Objective, Population
from ravine.engine.validate import rehearse
from ravine.errors import InputError
from ravine.nn.build import build, build_loss
from ravine.nn.randomized import seeded
from ravine.recipe import Recipe

Model = nn.Module | Callable[[], nn.Module] | None


@dataclass
class Program:
    """Recipes that train as one population, and what they share."""

    number: int  # its place in the run directory
    recipes: list[Recipe]
    members: list[int]  # their places in the run directory
    pipeline: Pipeline
    population: Population
    execution: Execution
    test: bool = True  # whether the test part is looked at when a member ends
    module: Model = None  # where the model was given in Python
    waiting: list[tuple[int, Recipe]] = field(
        default_factory=list
    )  # (member, recipe): they take the rows of those that end
    width: int = 0  # rows at most, where members wait
    halving: Halving | None = None
    trace: tuple[str, ...] = ()  # durations after which the weights are kept for good


@dataclass
class Rows:
    """Where members start, instead of at their initialisers; all must share one program."""

    theta: Tensor | None = None  # [P, D]
    mask: Tensor | None = None  # [P, D] bool; pruned weights are False, and stay zero

    def enter(self, programs: Sequence[Program]) -> None:
        population = programs[0].population
        for name, rows in (("theta", self.theta), ("mask", self.mask)):
            if rows is not None and (len(programs) != 1 or rows.shape != population.theta.shape):
                got = f"{name} of shape {tuple(rows.shape)} for {len(programs)} programs"
                raise InputError(
                    "rows", got=got, expected=f"one program and {tuple(population.theta.shape)}"
                )
        with torch.no_grad():
            if self.theta is not None:
                population.theta.copy_(self.theta)
            if self.mask is not None:
                population.theta.mul_(self.mask.to(population.theta.device))


def programs_of(
    recipes: Sequence[Recipe],
    module: Model = None,
    arrays: Any = None,
    *,
    test: bool = True,
    pipelines: dict[tuple[str, str], Pipeline] | None = None,
    width: int | None = None,
    halving: Halving | None = None,
) -> list[Program]:
    """The recipes as programs: those that share one train as one population. ``pipelines`` keeps
    data from call to call.

    At most ``width`` members of a program train at a time; the others take the rows of those that
    end, or that ``halving`` drops.
    """
    groups: dict[str, list[int]] = {}
    for member, recipe in enumerate(recipes):
        groups.setdefault(recipe.program, []).append(member)
    pipelines = {} if pipelines is None else pipelines
    programs = []
    for number, members in enumerate(groups.values()):
        first = members[:width]
        program = program_of(
            number, [recipes[m] for m in first], first, module, arrays, pipelines, test=test
        )
        program.waiting = [(m, recipes[m]) for m in members[len(first) :]]
        program.width, program.halving = width or len(members), halving
        programs.append(program)
    return programs


def program_of(
    number: int,
    recipes: list[Recipe],
    members: list[int],
    module: Model,
    arrays: Any,
    pipelines: dict[tuple[str, str], Pipeline],
    *,
    test: bool = True,
) -> Program:
    """Recipes of one program: data, population and execution record."""
    first = recipes[0]
    device = torch.device(pilot.device(first.device))
    dtype = torch.float64 if first.precision == "float64" else torch.float32
    carried = finetune.carried_over(first)
    said = first.data.model_dump_json(exclude={"bootstrap"})
    for tokens in (True, False):
        shared = (said, f"{dtype} {carried and first.start.weights} {tokens}")
        if shared not in pipelines:
            pipelines[shared] = Pipeline(
                first.data, arrays=arrays, device=device, dtype=dtype, fitted=carried, tokens=tokens
            )
        pipeline = pipelines[shared]
        population = populate(recipes, pipeline, module, device=device, dtype=dtype)
        if pipeline.vocabulary is None or _takes_tokens(population.objectives[0].model, pipeline):
            break  # else they are numbers
    rehearse(recipes, pipeline, population)
    if (
        any(recipe.regularize.adversarial for recipe in recipes)
        and not pipeline.batch(0).x.is_floating_point()
    ):
        expected = "inputs that are real numbers: they are moved uphill"
        raise InputError("regularize.adversarial", got="tokens", expected=expected)
    execution = pilot.prepare(population, first, pipeline)
    return Program(
        number, recipes, members, pipeline, population, execution, test, module, width=len(members)
    )


def _takes_tokens(model: nn.Module, pipeline: Pipeline) -> bool:
    """Whether a model runs on whole numbers, which may be tokens; dense layers and convolutions do
    not."""
    x = pipeline.batch(0).x[:2]
    try:
        with evaluation([model]):
            model(x)
    except RuntimeError:
        return False
    return True


def populate(
    recipes: Sequence[Recipe],
    pipeline: Pipeline,
    module: Model,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> Population:
    """The members' modules, each initialised by its own seed, as one population."""
    objectives = [objective(recipe, pipeline, module, dtype) for recipe in recipes]
    population = Population(
        objectives, [recipe.seed for recipe in recipes], device=device, dtype=dtype
    )
    if module is not None:
        population.global_seeds = [recipe.seed for recipe in recipes]
    return population


def objective(recipe: Recipe, pipeline: Pipeline, module: Model, dtype: torch.dtype) -> Objective:
    """A member's model and loss."""
    if module is None:
        model = build(
            finetune.fitted_model(recipe, pipeline.outputs),
            pipeline.input_shape,
            pipeline.outputs,
            vocabulary=pipeline.vocabulary,
            seed=recipe.seed,
            dtype=dtype,
            batch=lambda: pipeline.batch(0).x,
        )
    elif isinstance(module, nn.Module):
        own = copy.deepcopy(
            finetune.shaped(module, pipeline.input_shape, pipeline.vocabulary is not None)
        )
        model = finetune.fitted_module(seeded(own), recipe, pipeline.outputs)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(randomness.key(recipe.seed, "init"))
            own = finetune.shaped(module(), pipeline.input_shape, pipeline.vocabulary is not None)
            model = finetune.fitted_module(seeded(own), recipe, pipeline.outputs)
    finetune.load(model, recipe.start)
    loss = build_loss(recipe.loss, pipeline.task, counts=class_counts(recipe, pipeline))
    return Objective(model, loss, recipe.regularize.hard_negatives, recipe.regularize.adversarial)


def class_counts(recipe: Recipe, pipeline: Pipeline) -> list[int] | None:
    """How often each class occurs in the training part, where the loss is balanced by it."""
    return pipeline.class_counts().int().tolist() if recipe.loss.class_weights else None
