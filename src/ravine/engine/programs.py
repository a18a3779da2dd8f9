"""Recipes become programs: those that share one are trained as one population."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ravine import randomness
from ravine.data.pipeline import Pipeline
from ravine.engine import pilot
from ravine.engine.pilot import Execution
from ravine.engine.population import Objective, Population
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


def programs_of(
    recipes: Sequence[Recipe], module: Model = None, arrays: Any = None, *, test: bool = True,
    pipelines: dict[tuple[str, str], Pipeline] | None = None,
) -> list[Program]:
    """The recipes as programs: those that share one train as one population. ``pipelines`` keeps data from call to call."""
    groups: dict[str, list[int]] = {}
    for member, recipe in enumerate(recipes):
        groups.setdefault(recipe.program, []).append(member)
    pipelines = {} if pipelines is None else pipelines
    return [
        program_of(number, [recipes[m] for m in members], members, module, arrays, pipelines, test=test)
        for number, members in enumerate(groups.values())
    ]


def program_of(
    number: int, recipes: list[Recipe], members: list[int], module: Model, arrays: Any,
    pipelines: dict[tuple[str, str], Pipeline], *, test: bool = True,
) -> Program:
    """Recipes of one program: data, population and execution record."""
    first = recipes[0]
    device = torch.device(pilot.device(first.device))
    dtype = torch.float64 if first.precision == "float64" else torch.float32
    shared = (first.data.model_dump_json(exclude={"bootstrap"}), str(dtype))
    if shared not in pipelines:
        pipelines[shared] = Pipeline(first.data, arrays=arrays, device=device, dtype=dtype)
    pipeline = pipelines[shared]
    population = populate(recipes, pipeline, module, device=device, dtype=dtype)
    execution = pilot.prepare(population, first, pipeline)
    return Program(number, recipes, members, pipeline, population, execution, test)


def populate(recipes: Sequence[Recipe], pipeline: Pipeline, module: Model, *, device: torch.device, dtype: torch.dtype) -> Population:
    """The members' modules, each initialised by its own seed, as one population."""
    objectives = [objective(recipe, pipeline, module, dtype) for recipe in recipes]
    population = Population(objectives, [recipe.seed for recipe in recipes], device=device, dtype=dtype)
    if module is not None:
        population.global_seeds = [recipe.seed for recipe in recipes]
    return population


def objective(recipe: Recipe, pipeline: Pipeline, module: Model, dtype: torch.dtype) -> Objective:
    """A member's model and loss."""
    if module is None:
        model = build(
            recipe.model, pipeline.input_shape, pipeline.outputs, vocabulary=pipeline.vocabulary, seed=recipe.seed, dtype=dtype
        )
    elif isinstance(module, nn.Module):
        model = seeded(copy.deepcopy(module))
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(randomness.key(recipe.seed, "init"))
            model = seeded(module())
    loss = build_loss(recipe.loss, pipeline.task, counts=class_counts(recipe, pipeline))
    return Objective(model, loss, recipe.regularize.hard_negatives)


def class_counts(recipe: Recipe, pipeline: Pipeline) -> list[int] | None:
    """How often each class occurs in the training part, where the loss is balanced by it."""
    return pipeline.class_counts().int().tolist() if recipe.loss.class_weights else None
