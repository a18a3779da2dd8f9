"""Whether a loss can be measured against that of the best constant answer."""

from __future__ import annotations

import math

from torch import Tensor

from ravine.doctor.measure.baseline import baseline
from ravine.doctor.measure.untrained import probe_batch
from ravine.engine.programs import Program
from ravine.engine.rows.evaluate import evaluation
from ravine.nn.loss.own_loss import OwnLoss
from ravine.nn.outputs import answer_in

FEW = 16  # samples of a small batch
SAMPLES = 256
UNLIKE = 0.1  # of the loss, by which small batches may differ from one large batch


def incomparable(program: Program) -> str:
    """Why a constant answer says nothing about a program's loss; empty where it does.

    A loss of one's own may read several outputs, be negative, or compare the samples of a batch with each
    other: what is known of its training is then the loss at its own beginning.
    """
    objective = program.population.objectives[0]
    loss, pipeline = objective.loss, program.pipeline
    if not isinstance(loss, OwnLoss):
        return ""
    batch = probe_batch(pipeline, SAMPLES)
    try:
        with evaluation([objective]):
            output = objective.model(batch.x)
            losses = loss(output, batch.y)
            if not isinstance(output, Tensor):
                if loss.takes_all:
                    return "its loss reads several outputs"
                output = answer_in(output)
            parts = zip(output.split(FEW), batch.y.split(FEW), strict=True)
            small = [float(loss(*part).mean()) for part in parts if len(part[1]) == FEW]
    except Exception:  # what is refused is said where the program is inspected
        return ""
    if float(losses.min()) < 0:
        return "its loss can be negative"
    whole = float(losses.mean())
    apart = abs(sum(small) / len(small) - whole) if small else 0.0
    if math.isfinite(apart) and apart > UNLIKE * abs(whole):
        return "its loss compares the samples of a batch with each other"
    try:
        outputs = output.shape[-1] if output.dim() > 1 else 1
        base = baseline(loss, batch.y.cpu(), outputs, pipeline.task)
    except Exception:  # a person's function may fail in any way
        return "its loss cannot be computed for a constant answer"
    return "" if base.loss > 0 else "the best constant answer has no loss"
