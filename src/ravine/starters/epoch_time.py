"""What an epoch of training costs on this machine."""

from __future__ import annotations

import time

from ravine.engine.execute import running
from ravine.engine.loop.loop import TrainingLoop
from ravine.engine.loop.record import Memory
from ravine.engine.programs import Program
from ravine.engine.step_time import FORWARD

WARMUP = 3  # steps that are not timed: they allocate
LEAST_SECONDS, MOST_SECONDS = 0.7, 1.5  # of measuring; the second in time of one processor


def seconds_per_epoch(program: Program) -> float:
    """The seconds of an epoch with its evaluation, by training the first steps or epochs in memory,
    as training does: batches, averages and records cost what they will. Where an epoch is longer
    than the measure, its evaluation is counted as forward passes. The program is used up."""
    loop = TrainingLoop(program, Memory())
    epoch = loop.calendar.epoch_steps
    allowed = MOST_SECONDS * max(1, program.execution.threads)
    with running(loop):
        loop.advance(min(WARMUP, epoch))
        first, began = loop.step, time.perf_counter()
        loop.advance(epoch, time.process_time() + allowed)
        if loop.step < epoch:
            step = (time.perf_counter() - began) / (loop.step - first)
            return step * (epoch + _looks(program))
        first, began = loop.step, time.perf_counter()
        while not loop.over and time.perf_counter() - began < LEAST_SECONDS:
            loop.advance(loop.step + epoch)
    return (time.perf_counter() - began) * epoch / max(1, loop.step - first)


def _looks(program: Program) -> float:
    """What the evaluation of an epoch costs, in training steps."""
    pipeline = program.pipeline
    held = pipeline.size("validation") if pipeline.has("validation") else 0
    return FORWARD * held / pipeline.batch_size
