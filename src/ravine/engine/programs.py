"""Recipes become programs: those that share one are trained as one population."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ravine import randomness
from ravine.data.objects.fields import Fields
from ravine.data.pipeline import Pipeline
from ravine.engine.execution import pilot
from ravine.engine.execution.device import device, theta_dtype
from ravine.engine.execution.execution import Execution
from ravine.engine.given_model import check_model, copied
from ravine.engine.rows.evaluate import evaluation
from ravine.engine.rows.own_step import SampleForm, gives_loss, model_loss
from ravine.engine.rows.population import Objective, Population
from ravine.engine.validate import step_answers, validate
from ravine.engine.weights import finetune
from ravine.engine.weights.heads import fitted_model, fitted_module, shaped, spread
from ravine.errors import InputError
from ravine.nn.answers import Answers
from ravine.nn.build import build, build_loss
from ravine.nn.loss.own_loss import OwnLoss
from ravine.nn.randomized import seeded
from ravine.nn.room import check_members
from ravine.recipe import Recipe
from ravine.registering import module_in_files, own_parts

Model = nn.Module | Callable[[], nn.Module] | None

FEW = 4  # members that are all watched; of more the first one alone


@dataclass
class Program:
    """Recipes that train as one population, and what they share. If there are more of them than the
    population has rows, the last ones wait for their turn."""

    number: int  # its place in the run directory
    recipes: list[Recipe]
    members: list[int]  # their places in the run directory
    pipeline: Pipeline
    population: Population  # of the first members
    execution: Execution
    answers: Answers  # what the outputs mean
    test: bool = True  # whether the test part is looked at when a member ends
    module: Model = None  # where the model was given in Python
    folds: list[Pipeline] | None = None  # each member's own data; ``pipeline`` is the first
    begun_with: list[int] | None = None  # members, where some had ended before it was resumed

    @property
    def watched(self) -> list[int]:
        """The members whose layers and samples are recorded: all of a few, else the first."""
        members = self.members if self.begun_with is None else self.begun_with
        return members if len(members) <= FEW else members[:1]


@dataclass
class StartRows:
    """Where members start, instead of at their initialisers; all must be of one architecture."""

    theta: Tensor | None = None  # [P, D]
    mask: Tensor | None = None  # [P, D] bool; pruned weights are False, and stay zero

    def of(self, members: Sequence[int]) -> StartRows:
        """The rows of some of the members."""
        chosen = [None if rows is None else rows[list(members)] for rows in (self.theta, self.mask)]
        return StartRows(*chosen)

    def write_to(self, program: Program, count: int) -> None:
        """Let the members of a program start from their own among the rows of all ``count``."""
        population = program.population
        wanted = (count, *population.theta.shape[1:])
        for name, rows in (("theta", self.theta), ("mask", self.mask)):
            if rows is not None and rows.shape != wanted:
                got = f"{name} of shape {tuple(rows.shape)}"
                raise InputError("rows", got=got, expected=f"{wanted}: a row for each recipe")
        own = self.of(program.members)
        with torch.no_grad():
            if own.theta is not None:
                population.theta.copy_(own.theta)
            if own.mask is not None:
                population.theta.mul_(own.mask.to(population.theta.device))


def programs_of(
    recipes: Sequence[Recipe],
    module: Model = None,
    arrays: Any = None,
    *,
    test: bool = True,
    pipelines: dict[tuple[str, str], Pipeline] | None = None,
    width: int | None = None,
    group: int | None = None,
    only: Callable[[int], bool] = lambda number: True,
    population: Callable[..., Population] = Population,
) -> list[Program]:
    """The recipes as programs: those that share one train as one population, of at most ``width``
    rows, and where there is a ``group`` of at most so many members. ``only`` says by its number
    whether a program is made. ``pipelines`` keeps data from call to call; ``population`` makes rows of
    objectives."""
    pipelines = {} if pipelines is None else pipelines
    module = module if module is not None else module_in_files(recipes[0].model)
    return [
        program_of(
            number,
            [recipes[m] for m in members],
            members,
            module,
            arrays,
            pipelines,
            test=test,
            width=width,
            make=population,
        )
        for number, members in enumerate(groups_of(recipes, group))
        if only(number)
    ]


def groups_of(recipes: Sequence[Recipe], most: int | None = None) -> list[list[int]]:
    """The places of the recipes that train together, in the order in which they come; at most
    ``most`` in a group."""
    found: dict[str, list[int]] = {}
    for member, recipe in enumerate(recipes):
        found.setdefault(recipe.program, []).append(member)
    return [
        members[first : first + (most or len(members))]
        for members in found.values()
        for first in range(0, len(members), most or len(members))
    ]


def program_of(
    number: int,
    recipes: list[Recipe],
    members: list[int],
    module: Model,
    arrays: Any,
    pipelines: dict[tuple[str, str], Pipeline],
    *,
    test: bool = True,
    width: int | None = None,
    check: bool = True,
    folds: list[Pipeline] | None = None,
    make: Callable[..., Population] = Population,
) -> Program:
    """Recipes of one program: data, population of the first ``width`` members, and execution
    record. ``check`` tries model, loss and metrics on a few samples first. ``folds`` are data of
    each member's own, instead of ``arrays``."""
    recipes, waiting = recipes[:width], recipes[len(recipes[:width]) :]
    first = recipes[0]
    pipeline = folds[0] if folds else pipeline_of(first, module, arrays, pipelines)
    dtype = theta_dtype(first.precision)
    own = folds or pipeline
    population = populate(recipes, own, module, device=pipeline.device, dtype=dtype, make=make)
    if check:
        answers = validate(recipes, pipeline, population)
        _check_adversarial(recipes, pipeline)
    else:
        answers = _answers_of(population.objectives[0], pipeline)
    execution = pilot.prepare(population, first, pipeline)
    if folds:  # CUDA graphs replay one batch's place in memory
        execution, population.apart = replace(execution, graphs=False), True
        pilot.replay(population, execution)
    recipes = [*recipes, *waiting]
    given = (pipeline, population, execution, answers, test, module, folds)
    return Program(number, recipes, members, *given)


def _answers_of(objective: Objective, pipeline: Pipeline) -> Answers:
    """What the outputs of a program mean that was not checked; of one that refuses its data,
    nothing."""
    if objective.own_step is not None:
        return step_answers(objective, pipeline)
    try:
        x = pipeline.batch(0).x[:4]
        return Answers.of(objective.model, objective.loss, pipeline.task, x, pipeline.target_units)
    except (InputError, RuntimeError, IndexError, ValueError):
        return Answers("loss", "values")


def pipeline_of(
    recipe: Recipe, module: Model, arrays: Any, pipelines: dict[tuple[str, str], Pipeline]
) -> Pipeline:
    """The data of a recipe, prepared for its model: whole numbers are tokens where the model takes
    them. ``pipelines`` keeps what was prepared, for recipes that differ in their batches alone
    too."""
    where, dtype = torch.device(device(recipe.device)), theta_dtype(recipe.precision)
    carried = finetune.carried_over(recipe)
    data = recipe.data
    described = data.model_dump_json(exclude={"bootstrap", "batch"})
    for tokens in (True, False):
        key = (described, f"{where} {dtype} {carried and recipe.start.weights} {tokens}")
        if key not in pipelines:
            pipelines[key] = Pipeline(
                data, arrays=arrays, device=where, dtype=dtype, fitted=carried, tokens=tokens
            )
        pipeline = pipelines[key].batched_as(data)
        if pipeline.vocabulary is None or not tokens:
            break
        model = objective(recipe, pipeline, module, dtype).model.to(dtype=dtype)
        if _takes_tokens(model, pipeline):
            break
    return pipeline


def _check_adversarial(recipes: Sequence[Recipe], pipeline: Pipeline) -> None:
    attacks = any(recipe.regularize.adversarial for recipe in recipes)
    several = "fields" in pipeline.preparation.facts
    if attacks and (several or not pipeline.batch(0).x.is_floating_point()):
        expected = "inputs that are real numbers: they are moved uphill"
        got = "several inputs" if several else "tokens"
        raise InputError("regularize.adversarial", got=got, expected=expected)


def _takes_tokens(model: nn.Module, pipeline: Pipeline) -> bool:
    """Whether a model runs on whole numbers, which may be tokens; dense layers and convolutions do
    not. It is tried where it was made: it may be too large for the device."""
    x = pipeline.batch(0).x[:2].cpu()
    try:
        with evaluation([model]):
            model(x)
    except RuntimeError:
        return False
    return True


def populate(
    recipes: Sequence[Recipe],
    data: Pipeline | Sequence[Pipeline],
    module: Model,
    *,
    device: torch.device,
    dtype: torch.dtype,
    make: Callable[..., Population] = Population,
) -> Population:
    """The members' modules, each initialised by its own seed, as one population; ``data`` that they
    share, or of each member."""
    pipelines = [data] * len(recipes) if isinstance(data, Pipeline) else data
    objectives: list[Objective] = []
    for recipe, pipeline in zip(recipes, pipelines, strict=True):
        objectives.append(objective(recipe, pipeline, module, dtype))
        if len(objectives) == 1 and device.type == "cpu":
            parameters = sum(each.numel() for each in objectives[0].parameters())
            check_members(len(recipes), parameters, dtype.itemsize)
    population = make(objectives, [recipe.seed for recipe in recipes], device=device, dtype=dtype)
    first = recipes[0]
    theirs = "foreign" in first.model.technique.marks
    if theirs or module is not None or any(own_parts([first.model, first.loss, first.step])):
        population.global_seeds = [recipe.seed for recipe in recipes]
    return population


def objective(recipe: Recipe, pipeline: Pipeline, module: Model, dtype: torch.dtype) -> Objective:
    """A member's model and loss."""
    facts, always = pipeline.preparation.facts, recipe.step is None
    if module is None:
        model = build(
            fitted_model(recipe, pipeline.outputs),
            pipeline.input_shape,
            pipeline.outputs,
            vocabulary=pipeline.vocabulary,
            seed=recipe.seed,
            dtype=dtype,
            batch=lambda: pipeline.batch(0).x,
        )
        model = seeded(model) if any(own_parts([recipe.model])) else model
    elif isinstance(module, nn.Module):
        tokens = pipeline.vocabulary is not None
        own = copied(shaped(check_model(module), pipeline.input_shape, tokens))
        model = spread(fitted_module(seeded(own), recipe, pipeline.outputs), facts, always=always)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(randomness.key(recipe.seed, "init"))
            tokens = pipeline.vocabulary is not None
            own = shaped(check_model(module()), pipeline.input_shape, tokens)
            model = spread(
                fitted_module(seeded(own), recipe, pipeline.outputs), facts, always=always
            )
    finetune.load(model, recipe.start, recipe.model, pipeline.outputs)
    loss = with_targets(
        build_loss(recipe.loss, pipeline.task, counts=class_counts(recipe, pipeline)), facts
    )
    perturbed = recipe.regularize
    made = Objective(model, loss, perturbed.hard_negatives, perturbed.adversarial)
    return with_step(made, recipe, facts)


def with_targets(loss: nn.Module, facts: Mapping[str, Any]) -> nn.Module:
    """The loss; one of a person's own is given targets of several kinds as the data give them."""
    if isinstance(loss, OwnLoss) and "target_fields" in facts:
        loss.parted = Fields.from_dict(facts["target_fields"]).given
    return loss


def with_step(objective: Objective, recipe: Recipe, facts: Mapping[str, Any]) -> Objective:
    """The objective with the step of the recipe, or with the loss that a model gives itself; ``facts``
    are those of the data."""
    objective.form = SampleForm.of(facts)
    if recipe.step is not None:
        function = recipe.step.technique.function()
        objective.own_step = functools.partial(function, **recipe.step.arguments)
    elif recipe.loss.kind == "auto" and gives_loss(objective.model, objective.form):
        objective.own_step = model_loss
    return objective


def class_counts(recipe: Recipe, pipeline: Pipeline) -> list[int] | None:
    """How often each class occurs in the training part, where the loss is balanced by it."""
    return pipeline.class_counts().int().tolist() if recipe.loss.class_weights else None
