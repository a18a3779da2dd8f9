"""Findings about how the loss behaves: they are consequences of what ranks above them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ravine.doctor.declaration import Declaration, Evidence, Kind
from ravine.doctor.edits import Case, Remedies
from ravine.doctor.measure.course import (
    MAJORITY,
    PLAIN,
    Course,
    bad_steps,
    blocks,
    first_bad,
    of_seeds,
)
from ravine.doctor.remedies import clipped_gradients, higher_rate, lower_rate, other_activation


class NonFinite(Declaration):
    code = "non_finite"
    shown_by = "step_loss"
    rank = 290
    title = "The loss or a gradient is not a number."
    cause = "A number has grown beyond what the precision can hold, or was divided by zero."
    leads_to = "The member is lost: no further step can repair its weights."
    seen_by = "the first step at which a loss or gradient is not a number."
    what_to_do = "A lower rate, clipping."
    kinds = frozenset({Kind.SIGN})

    STRENGTH = 0.9

    @classmethod
    def during(cls, course: Course) -> Iterator[Evidence]:
        lost = [curve for curve in course.curves if not curve.finite]
        if len(lost) <= MAJORITY * len(course.curves):
            return
        bad = [bad_steps(curve) for curve in lost]
        first: int | None = min(first_bad(curve) for curve in lost)
        if course.loop is not None:
            first = course.loop.lost_at
        came_back = all(b.any() and not b[-1] for b in bad)
        when = f"from step {first} on"
        if came_back:
            count = max(b.sum() for b in bad)
            when = f"at {count} of {course.steps} steps, the first of them {first}"
        text = f"the loss or its gradient is not a number {when}{of_seeds(course, len(lost))}"
        yield Evidence("loss", text, cls.STRENGTH)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from lower_rate(case, factor)
        yield from clipped_gradients(case, factor)


class Oscillating(Declaration):
    code = "oscillating"
    shown_by = "step_loss"
    rank = 300
    title = "The loss swings up and down without settling."
    cause = "Each step overshoots, or each batch pulls the weights in another direction."
    leads_to = "There is no lasting progress."
    seen_by = (
        "between twentieths of the run the loss moves far and turns more often than not. Not where the "
        "loss of the same samples, measured on the way, falls steadily: then the swings are the noise "
        "of the batches."
    )
    what_to_do = "A lower rate, larger batches."
    kinds = frozenset({Kind.LOSS_ALONE})

    TURNS = 0.5  # of the steps from one twentieth to the next
    SIZE = 0.15  # of such a step, in units of the constant predictor's loss
    FEWEST = 8  # twentieths

    @classmethod
    def during(cls, course: Course) -> Iterator[Evidence]:
        swings = []
        for curve in course.finite:
            means = blocks(curve.losses[curve.seen // 3 :])
            if len(means) > cls.FEWEST:
                steps = np.diff(means)
                turns = float((np.sign(steps[1:]) != np.sign(steps[:-1])).mean())
                swings.append((turns, float(np.abs(steps).mean() / curve.base.reference)))
        if not swings or course.smooth:
            return
        turns, size = (float(np.median(column)) for column in zip(*swings, strict=True))
        if turns > cls.TURNS and size > cls.SIZE:
            text = (
                f"from one twentieth of the run to the next the loss moves by {size:.0%} of the "
                f"constant predictor's, and turns in {turns:.0%} of the cases"
            )
            yield Evidence("loss", text, 0.6)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from lower_rate(case, factor)


class Stuck(Declaration):
    code = "stuck"
    shown_by = "step_loss"
    rank = 310
    title = "The loss stays where the constant predictor is."
    cause = "The steps do not lead to weights that use the inputs."
    leads_to = "Nothing is learned."
    consequences = ("underfitting",)
    seen_by = "after all its steps the loss is that of the best constant answer, or where it began."
    what_to_do = "What is ranked above it in the list of findings."
    kinds = frozenset({Kind.STARVED, Kind.LOSS_ALONE})
    generic = 4

    WORSE = -0.05  # skill from which the loss is about the constant predictor's
    UNMOVED = 0.02  # of skill, since the beginning

    @classmethod
    def during(cls, course: Course) -> Iterator[Evidence]:
        skill = course.skill
        unmoved = skill < PLAIN and abs(skill - course.skill_at(0.0)) < cls.UNMOVED
        text = f"after {course.steps} steps the loss is {1 - skill:.1%} of the best constant predictor's"
        if skill <= cls.WORSE or course.loop is not None:
            if not unmoved:
                return
            began, ends = course.loss_at(0.0), course.loss_at(1.0)
            text = f"the loss began at {began:.4g} and is {ends:.4g} after {course.steps} steps"
        elif not (skill < PLAIN):
            return
        yield Evidence("loss", text, 0.55)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from other_activation(case)
        yield from higher_rate(case)
        yield from lower_rate(case)
