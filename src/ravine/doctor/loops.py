"""The judgement of a loop of which only the steps are known: losses, gradients, layers.

Nothing says what a constant predictor would reach, so the loss is measured against its own beginning,
and what is read from the loss alone makes no alarm: the losses of adversarial pairs and contrastive
losses need not fall, and a noisy regression may have learned at once. Each judgement says what was judged
and what could not be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ravine.doctor.declaration import Kind
from ravine.doctor.finding import Diagnosis
from ravine.doctor.measure.baseline import Baseline
from ravine.doctor.measure.course import Course, Loop
from ravine.doctor.measure.curve import Curve
from ravine.doctor.measure.probes import Seen
from ravine.doctor.table import is_of, ranked, symptoms, while_learning
from ravine.recipe import Recipe

FEWEST = 20  # losses that say something
ENOUGH = 100  # steps, from which on a loss that has plainly fallen is called healthy
JUDGED = "the loss against its own beginning, gradients, the size of steps, layers' outputs"
UNJUDGED = "whether the answers are better than the best constant one, labels, splits, the plan"
MORE = "watch(model, optimizer, data=…, loss=…, steps=…) judges these too"


def loop_course(
    losses: Sequence[float],
    steps: int,
    loop: Loop,
    last: Callable[[], list[Seen]],
    first: Callable[[], list[Seen]],
) -> Course:
    """A loop's losses (all of its ``steps``, or evenly spaced ones) as one member's course."""
    levels = _levels([loss for loss in losses if math.isfinite(loss)]) or [1.0]
    lowest = min(min(levels), 0.0)  # of losses that may be negative: counted from the lowest
    levels = [level - lowest for level in levels]
    begin = Baseline(max(levels[0], 1e-12), 0.0, max(levels[0], 1e-12))
    shifted = np.asarray(losses, dtype=float) - lowest
    norms = np.array([norm for norm in loop.norms if math.isfinite(norm)] or [0.0])
    curve = Curve(
        Recipe(),
        steps,
        shifted,
        np.repeat(norms, -(-len(shifted) // len(norms)))[: len(shifted)],
        at=[round(steps * (i + 1) / len(levels)) for i in range(len(levels))],
        loss=levels,
        base=begin,
        failed=None if loop.lost_at is None else "diverged",
        shift=lowest,
    )
    return Course(None, [curve], last, first, loop=loop)


def judge_loop(course: Course, finite: int, measured: dict[str, Any]) -> Diagnosis:
    """``healthy``, ``sick`` or ``uncertain``; ``finite`` is how many losses are numbers."""
    lost, steps = None if course.loop is None else course.loop.lost_at, course.curves[0].total
    measured = measured | {"judged": JUDGED, "not judged": UNJUDGED}
    if lost is None and finite < FEWEST:
        why = f"{steps} steps say too little"
        return Diagnosis("uncertain", measured=measured, why=why)
    findings = ranked(symptoms(course))
    endless = while_learning(course)
    if lost is not None:
        why = f"the loss is not a number at step {lost}"
        return Diagnosis("sick", ranked([*endless, *findings]), measured=measured, why=why)
    shift = course.curves[0].shift
    first, end = course.loss_at(0.0) + shift, course.loss_at(1.0) + shift
    if endless:
        why = f"the loss went from {first:.4g} to {end:.4g}"
        notes = [finding for finding in findings if finding.code not in {f.code for f in endless}]
        return Diagnosis("sick", ranked(endless), notes, measured, why=why)
    if course.plain:
        why = f"the loss has fallen from {first:.4g} to {end:.4g}"
        rest = f"not judged without the data: {UNJUDGED}; {MORE}"
        if steps < ENOUGH:
            why = f"{why} in {steps} steps, too few to call the loop healthy; {rest}"
            return Diagnosis("uncertain", notes=findings, measured=measured, why=why)
        return Diagnosis("healthy", notes=findings, measured=measured, why=f"{why}; {rest}")
    why = f"the loss went from {first:.4g} to {end:.4g}"
    if all(is_of(finding, Kind.LOSS_ALONE) for finding in findings):
        return Diagnosis("uncertain", notes=findings, measured=measured, why=why)
    return Diagnosis("sick", findings, measured=measured, why=why)


def moved(lr: float, norm: float, size: float, parameters: int, by_gradient: bool) -> float:
    """How far one step moves the weights, over their norm ``size``: along the gradient as in SGD, or
    by about ``lr`` in each parameter, as in Adam."""
    return lr * (norm if by_gradient else math.sqrt(parameters)) / max(size, 1e-12)


def _levels(losses: Sequence[float], parts: int = 20) -> list[float]:
    """Means of equal parts of the run."""
    size = max(1, len(losses) // parts)
    cut = [losses[i : i + size] for i in range(0, len(losses) - size + 1, size)]
    return [sum(part) / len(part) for part in cut]
