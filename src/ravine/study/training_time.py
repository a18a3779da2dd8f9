"""What training costs in seconds, from the measured time of a few steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ravine.catalogue import durations
from ravine.engine.execution.pilot import by_rules_alone
from ravine.engine.inputs import resolve_inputs
from ravine.engine.programs import programs_of
from ravine.engine.step_time import FORWARD, QUICK, seconds_per_step
from ravine.recipe import Recipe


def seconds_per_epoch(recipe: Recipe, model: Any = None, data: Any = None) -> float:
    """The median time of some steps of one member alone, times the steps of an epoch; evaluation is
    left out. (Inside a population the clock runs for all members at once.)"""
    recipe, module, arrays = resolve_inputs(recipe, model, data, {})
    program = programs_of([recipe], module, arrays, test=False)[0]
    return seconds_per_step(program) * program.pipeline.epoch_steps


def seconds_of(recipes: Sequence[Recipe], model: Any = None, data: Any = None) -> float:
    """About how long a study trains all of these, in the way in which studies train: those that share a
    program together, the evaluation of each epoch included; all of them to their end."""
    found = [resolve_inputs(recipe, model, data, {}) for recipe in recipes]
    module, arrays = found[0][1], found[0][2]
    total = 0.0
    with by_rules_alone():
        programs = programs_of([recipe for recipe, _, _ in found], module, arrays, test=False)
    for program in programs:
        pipeline = program.pipeline
        steps = max(
            durations.steps(recipe.stop.after, pipeline.epoch_steps) for recipe in program.recipes
        )
        epochs = steps / pipeline.epoch_steps
        held_out = pipeline.size("validation") if pipeline.has("validation") else 0
        batches = held_out / pipeline.batch_size
        total += seconds_per_step(program, QUICK) * (steps + FORWARD * batches * epochs)
    return total
