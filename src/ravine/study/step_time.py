"""What a step of a recipe costs when it runs alone: inside a population the clock runs for all
members at once."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ravine.engine.inputs import resolve_inputs
from ravine.engine.programs import programs_of
from ravine.engine.rows.members import Members
from ravine.engine.rows.step import Stepper
from ravine.recipe import Recipe

WARMUP, TIMED = 3, 20


def seconds_per_epoch(recipe: Recipe, model: Any = None, data: Any = None) -> float:
    """The median time of some steps of one member alone, times the steps of an epoch; evaluation is
    left out."""
    recipe, module, arrays = resolve_inputs(recipe, model, data, {})
    program = programs_of([recipe], module, arrays, test=False)[0]
    stepper = Stepper(program.population, Members([recipe]))
    program.population.train()
    rate = np.full((1, 1), recipe.optimizer.lr)
    times = []
    for step in range(WARMUP + TIMED):
        batch = program.pipeline.batch(step)
        began = time.perf_counter()
        measured = stepper.run([[batch]], step, rate, None)
        float(measured.losses[0, 0])  # waits for the device
        times.append(time.perf_counter() - began)
    return float(np.median(times[WARMUP:])) * program.pipeline.epoch_steps
