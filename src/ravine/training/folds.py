"""One training on several training parts: the folds of a cross-validation as members of one
population, in memory."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ravine.data.pipeline import Pipeline
from ravine.engine.execute import execute
from ravine.engine.execution.device import theta_dtype
from ravine.engine.inputs import resolve_inputs
from ravine.engine.loop.kept_weights import held
from ravine.engine.loop.loop import TrainingLoop
from ravine.engine.loop.record import Memory
from ravine.engine.programs import Program, objective, pipeline_of, program_of
from ravine.nn.analysis.traits import Trait, every_layer, traits
from ravine.nn.answers import Answers
from ravine.nn.loss.own_loss import OwnLoss
from ravine.nn.randomized import Randomized
from ravine.recipe import Recipe


@dataclass
class Trained:
    """What a fold's training gave."""

    recipe: Recipe
    pipeline: Pipeline
    answers: Answers
    result: dict[str, Any]
    state: dict[str, Tensor]  # the network's state_dict
    beside: int  # the folds that were trained together with it, itself included


def train_folds(
    recipes: Sequence[Recipe], data: Sequence[tuple[Any, Any]], model: Any = None
) -> list[Trained]:
    """Train each recipe on its own (x, y); what fits together trains as one population.

    Each member has the batches, the fitted preprocessing and the draws of a run of its own, so that
    weights equal those of such runs but for rounding. Folds share a population where their samples
    have one shape after preprocessing and their epochs as many steps. Training parts that differ in
    size do so where network and loss see each sample alone: with batch normalisation, say, parts of
    each size are a population. Nothing is written.
    """
    resolved = [
        resolve_inputs(recipe, model, arrays, {})
        for recipe, arrays in zip(recipes, data, strict=True)
    ]
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        pipelines = [pipeline_of(own, module, arrays, {}) for own, module, arrays in resolved]
        groups: dict[Hashable, list[int]] = {}
        for number, ((recipe, module, _), pipeline) in enumerate(
            zip(resolved, pipelines, strict=True)
        ):
            groups.setdefault(_alike(recipe, pipeline, module), []).append(number)
        records, loops = [], []
        for place, numbers in enumerate(groups.values()):
            _, module, arrays = resolved[numbers[0]]
            folds = [pipelines[number] for number in numbers]
            program = program_of(
                place,
                [resolved[number][0] for number in numbers],
                numbers,
                module,
                arrays,
                {},
                folds=folds if len(folds) > 1 else None,
                test=False,
            )
            records.append(Memory())
            loops.append(TrainingLoop(program, records[-1], sparing=True))
        execute(loops)
    found = {
        number: _trained(number, loop, record, pipelines[number])
        for loop, record in zip(loops, records, strict=True)
        for number in loop.program.members
    }
    return [found[number] for number in range(len(resolved))]


def _alike(recipe: Recipe, pipeline: Pipeline, module: Any) -> Hashable:
    """Folds for which this is equal are rows of one population."""
    size = 0 if _may_fill(recipe, pipeline, module) else pipeline.train_size
    shapes = (pipeline.input_shape, pipeline.outputs, pipeline.vocabulary)
    return recipe.program, shapes, pipeline.epoch_steps, pipeline.batch_size, size


def _may_fill(recipe: Recipe, pipeline: Pipeline, module: Any) -> bool:
    """Whether a sample that weighs nothing may fill up a batch: it changes no other sample's output
    or loss, nor the mean."""
    made = objective(recipe, pipeline, module, theta_dtype(recipe.precision))
    if made.own_step is not None or made.mines or made.attacks or recipe.data.grow.milestones:
        return False
    if isinstance(made.loss, OwnLoss) or recipe.loss.class_weights:
        return False
    layers: list[nn.Module] = list(made.model.modules())
    drawing = [layer for layer in layers if traits(layer) & Trait.RANDOM]
    # their draws are numbered sample by sample, so that one sample more changes no other's
    by_key = all(isinstance(layer, Randomized) for layer in drawing)
    return by_key and every_layer(made.model, Trait.SAMPLES_ALONE)


def _trained(number: int, loop: TrainingLoop, record: Memory, pipeline: Pipeline) -> Trained:
    """A member's end, with the weights that count."""
    program: Program = loop.program
    population, (theta, buffers) = program.population, record.finals[number]
    rows = population.theta.detach().clone()
    rows[0] = theta.to(rows)
    stacked = {name: each.clone() for name, each in population.saved_buffers().items()}
    for name, value in buffers.items():
        stacked[name][0] = value
    with held(population, rows, stacked):
        kept = population.objectives[0].model.state_dict()
        state = {name: value.detach().cpu().clone() for name, value in kept.items()}
    place = program.members.index(number)
    answers = Answers.from_dict(program.answers.to_dict(), pipeline.target_units)
    result = record.results[number]
    return Trained(program.recipes[place], pipeline, answers, result, state, len(program.members))
