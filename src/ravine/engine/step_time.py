"""What a training step of a program costs."""

from __future__ import annotations

import time

import numpy as np

from ravine.engine.execution.device import kernel_threads
from ravine.engine.programs import Program
from ravine.engine.rows.members import Members
from ravine.engine.rows.step import Stepper

WARMUP, TIMED = 3, 20
QUICK = 6  # timed steps where many programs are to be timed
MOST_SECONDS = 3.0  # after which no further step is timed
FORWARD = 1 / 3  # of a training step: what evaluating a batch costs


def seconds_per_step(program: Program, timed: int = TIMED) -> float:
    """The median time of some steps of a program's members together, at rates of zero; reading the
    batch is left out."""
    recipes = list(program.recipes)
    stepper = Stepper(program.population, Members(recipes))
    program.population.train()
    rate = np.zeros((1, len(recipes)))
    times: list[float] = []
    with kernel_threads(program.execution.threads):
        while len(times) < WARMUP + timed and (len(times) <= WARMUP or sum(times) < MOST_SECONDS):
            batch = program.pipeline.batch(len(times))
            began = time.perf_counter()
            measured = stepper.run([[batch]], len(times), rate, None)
            float(measured.losses[0, 0])  # waits for the device
            times.append(time.perf_counter() - began)
    return float(np.median(times[WARMUP:]))
