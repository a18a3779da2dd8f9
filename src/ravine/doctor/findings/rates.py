"""Findings about the learning rate and the optimiser."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ravine.catalogue import find
from ravine.doctor.declaration import Declaration, Evidence, Kind
from ravine.doctor.edits import Case, Remedies
from ravine.doctor.measure.course import PLAIN, Course
from ravine.doctor.measure.curve import Curve
from ravine.doctor.measure.untrained import Untrained
from ravine.doctor.remedies import higher_rate, lower_rate, other_optimizer

UNUSUAL = 0.35  # strength of what is only an unusual number
DESCENT = ("sgd", "momentum", "nesterov")


def is_adaptive(kind: str) -> bool:
    """Whether an optimiser scales each parameter's steps itself."""
    return "adaptive" in find("optimizer", kind).marks


class LrTooHigh(Declaration):
    code = "lr_too_high"
    shown_by = "step_loss"
    rank = 100
    title = "The learning rate is too high."
    cause = "Each step goes further than the gradient is a good description of the loss."
    leads_to = "The loss jumps or rises."
    consequences = (
        "non_finite",
        "exploding_gradient",
        "oscillating",
        "dead_units",
        "saturated_units",
        "stuck",
        "behind_linear",
        "underfitting",
    )
    seen_by = (
        "the same steps at a tenth and a hundredth of the rate learn plainly; in a run, a loss that "
        "rises or jumps; in a loop, steps that move the weights by a large part of their size."
    )
    what_to_do = "A tenth of the rate."
    kinds = frozenset({Kind.RATE, Kind.LEARNING})
    opposite = "lr_too_low"
    generic = 5

    ADAPTIVE, DESCENT = 0.05, 2.0  # rates above which they are unusual, and 10 times the default
    RISEN, BELOW = 0.3, 0.1  # of skill: from the best to the end, from the beginning to the end
    MOVED = 0.3  # part of the weights' size that one step moves them
    BATCHES, NOISE = 5, 5.0  # a point, from which batches average out; standard deviations of one
    FAR = 0.1  # the same, from which a loss that rises is put down to the rate

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        kind, lr = program.recipe.optimizer.kind, program.recipe.optimizer.arguments["lr"]
        highest = max(cls.ADAPTIVE, 10 * find("optimizer", kind).fields["lr"][1])
        if (is_adaptive(kind) and lr > highest) or (kind in DESCENT and lr > cls.DESCENT):
            yield Evidence("optimizer.lr", f"{kind} with lr {lr:g}", UNUSUAL)

    @classmethod
    def during(cls, course: Course) -> Iterator[Evidence]:
        where = "optimizer.lr" if course.loop is None else "lr"
        moved = max(course.loop.updates, default=0.0) if course.loop else 0.0
        if course.loop and moved > cls.MOVED and (not course.finite or course.skill < PLAIN):
            text = f"one step moved the weights by {moved:.2g} times their size (lr {course.loop.lr:g})"
            yield Evidence(where, text, 0.91, remedies=(_other_lr(course.loop.lr, 0.1),))
            return
        finite = [c for c in course.finite if len(c.loss) > 2 and not cls._noise(c)]
        if not finite:
            return
        rises = [max(c.skills()) - c.skill for c in finite]
        below = [c.skills()[0] - c.skill for c in finite]
        if np.median(rises) <= cls.RISEN or np.median(below) <= cls.BELOW:
            return
        height = np.median([c.loss[-1] / max(min(c.loss), 1e-12) for c in finite])
        largest = [
            float(np.nanmax(c.losses[1:]) / max(np.nanmedian(c.losses), 1e-12))
            if c.seen > 2
            else 0.0
            for c in finite
        ]
        text = (
            f"the loss ends {height:.3g} times as high as its lowest value; the largest batch loss "
            f"is {np.median(largest):.2g} times the median"
        )
        if course.loop is None:
            yield Evidence(where, text, 0.75)
        elif moved > cls.FAR:
            yield Evidence(where, text, 0.75, remedies=(_other_lr(course.loop.lr, 0.1),))

    @classmethod
    def _noise(cls, curve: Curve) -> bool:
        """Whether the loss ends above its lowest value by no more than single batches differ anyway: of few
        steps each is one point of the curve."""
        if curve.seen >= cls.BATCHES * len(curve.loss) or curve.seen < 3:
            return False
        between = (
            float(np.median(np.abs(np.diff(curve.losses)))) / 0.954
        )  # sqrt(2) * 0.6745: of a normal
        return curve.loss[-1] - min(curve.loss) <= cls.NOISE * between

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from lower_rate(case, factor)


class LrTooLow(Declaration):
    code = "lr_too_low"
    shown_by = "step_loss"
    rank = 110
    title = "The learning rate is too low."
    cause = "The steps are so short that the training ends before it gets anywhere."
    leads_to = "The loss falls smoothly, but too slowly."
    consequences = (
        "underfitting",
        "behind_linear",
        "too_few_epochs",
        "stuck",
        "vanishing_gradient",
    )
    seen_by = (
        "the same steps at higher rates learn plainly, with other seeds too, and further than the "
        "whole plan is projected to get. Of a plan of under 500 steps whose loss still falls, only "
        "where a higher rate is also ahead in a longer plan: else the plan is too short. A finished run is "
        "judged without these experiments: what still falls at its end is `too_few_epochs`. In a loop "
        "of gradient descent, steps that move the weights by less than a millionth of their size."
    )
    what_to_do = "Ten times the rate, or Adam."
    kinds = frozenset({Kind.RATE, Kind.PLAN, Kind.LEARNING})
    opposite = "lr_too_high"
    generic = 1

    ADAPTIVE, DESCENT = 1e-5, 1e-4  # rates below which they are unusual
    MOVED = 1e-6  # part of the weights' size that a step of gradient descent moves them

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        kind, lr = program.recipe.optimizer.kind, program.recipe.optimizer.arguments["lr"]
        if (is_adaptive(kind) and lr < cls.ADAPTIVE) or (kind in DESCENT and lr < cls.DESCENT):
            yield Evidence("optimizer.lr", f"{kind} with lr {lr:g}", UNUSUAL)

    @classmethod
    def during(cls, course: Course) -> Iterator[Evidence]:
        """Of a loop alone: elsewhere only an experiment tells a low rate from a short plan."""
        loop = course.loop
        if loop is None or not loop.by_gradient or not loop.updates:
            return
        middle = float(np.median(loop.updates))
        if 0 < middle < cls.MOVED and course.skill < PLAIN:
            text = (
                f"one step moves the weights by {middle:.1g} of their size (lr {loop.lr:g}, gradient "
                f"norm {loop.norms[-1]:.2g})"
            )
            yield Evidence("lr", text, 0.6, remedies=(_other_lr(loop.lr, 100.0),))

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from higher_rate(case, factor)


def _other_lr(lr: float, factor: float) -> dict[str, object]:
    """The remedy for a loop without a recipe."""
    return {"edits": {"lr": lr * factor}, "why": f"lr {lr * factor:.3g} in place of {lr:.3g}"}


class OptimizerUnsuited(Declaration):
    code = "optimizer_unsuited"
    shown_by = "step_loss"
    rank = 180
    title = "Another optimiser gets much further in the same number of steps."
    cause = "The optimiser does not cope with the scales or the noise of these gradients."
    leads_to = "Progress is slow or unstable."
    consequences = ("stuck", "underfitting")
    seen_by = (
        "Adam gets much further in the same steps than this optimiser at any of nine rates; rprop on "
        "small batches."
    )
    what_to_do = "Adam, or gradient descent with momentum."
    kinds = frozenset({Kind.LIMIT, Kind.LEARNING})
    generic = 2
    sound = 5

    @classmethod
    def before(cls, program: Untrained) -> Iterator[Evidence]:
        data, size = program.recipe.data, program.pipeline.size("train")
        small = data.batch != "full" and data.batch < size / 4
        if program.recipe.optimizer.kind == "rprop" and small:
            text = (
                f"rprop uses the signs of gradients alone, which are mostly noise on batches of "
                f"{data.batch}"
            )
            yield Evidence("optimizer.kind", text, UNUSUAL)

    @classmethod
    def remedies(cls, case: Case, factor: float | None = None) -> Remedies:
        yield from other_optimizer(case)
