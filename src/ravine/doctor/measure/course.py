"""The course of a training, measured in numbers without a unit.

The measure is the skill, 1 - L / L0, L0 the loss of the best constant predictor. Where that is not
known, as in a loop that ``ravine.watch`` sees, L0 is the loss at the beginning. Several seeds
decide together: each property is the median over the members.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ravine.doctor.edits import Case
from ravine.doctor.measure.curve import Curve
from ravine.doctor.measure.linear import LinearScore
from ravine.doctor.measure.probes import Seen
from ravine.recipe import Recipe

LOWEST = -99.0  # skill that is shown
PLAIN = 0.1  # skill from which learning is plain
LITTLE = 0.01  # skill under which nothing was learned
NEARLY = 0.8  # of what simple learners explain
UNFINISHED = 0.06  # skill that the second half of a plan still gains where it ends too early
FAR = 0.9  # skill from which the end of a plan is not called too early
MAJORITY = 0.5  # of the seeds
COUNTED = 500  # steps of a plan below which its length is blamed before its rate
SMOOTH = 0.85  # of the stretches in which a loss falls that does not swing


@dataclass(frozen=True)
class Loop:
    """What ``ravine.watch`` knows of a loop beside its losses."""

    lr: float
    updates: Sequence[float]  # how far sampled steps moved the weights, over their norm
    by_gradient: bool  # whether a step is proportional to the gradient, as in SGD
    norms: Sequence[float]  # of the gradient, at the sampled steps
    lost_at: int | None = None  # the step whose loss was not a number


@dataclass(frozen=True)
class Stepping:
    """What ``ravine.watch`` has seen of how a loop makes its steps."""

    kept: int = 0  # backward passes that were looked at, where none began from a gradient of zero
    still: int = 0  # steps between two looks at the weights, where none had changed
    without_gradient: bool = False  # at the last of these looks


@dataclass
class Course:
    """Members that differ by their seeds alone, as they went, and what a probe sees in them.

    ``look_first`` and ``look_last`` probe the members before the first step and now; they are
    called only where a check asks.
    """

    case: Case | None  # None: a loop without a recipe
    curves: list[Curve]
    look_last: Callable[[], list[Seen]] = list
    look_first: Callable[[], list[Seen]] = list
    run: Recipe | None = None  # what was run, where that is the recipe on smaller batches
    loop: Loop | None = None
    # the share of the targets' variance that simple learners explain on samples not fitted to
    simple: Callable[[], float | None] = lambda: None
    # what a linear model reaches on the validation part
    linear: Callable[[], LinearScore | None] = lambda: None
    stepping: Stepping | None = None
    planned: bool = True  # whether it is known how long the program trains

    @property
    def subject(self) -> Case:
        """The case of a course that has a recipe."""
        if self.case is None:
            raise ValueError("a watched loop has no recipe")
        return self.case

    @property
    def recipe(self) -> Recipe:
        """The recipe that is examined."""
        return self.subject.recipe

    @property
    def trained(self) -> Recipe:
        """The recipe that was run: the examined one, perhaps on smaller batches."""
        return self.run or self.curves[0].recipe

    @cached_property
    def seen(self) -> list[Seen]:
        return self.look_last()

    @cached_property
    def first(self) -> list[Seen]:
        return self.look_first()

    @property
    def finite(self) -> list[Curve]:
        """The members whose losses and gradients are all numbers."""
        return [curve for curve in self.curves if curve.finite]

    @property
    def steps(self) -> int:
        return max(curve.seen for curve in self.curves)

    @property
    def total(self) -> int:
        return self.curves[0].total

    @property
    def over(self) -> bool:
        """Whether the whole plan was seen."""
        return self.steps >= self.total or not self.finite

    @property
    def counted(self) -> str:
        """The steps seen and those of the plan, in words: ``200 of 5000 steps``."""
        return f"{self.steps} of {self.total} steps" if self.planned else f"{self.steps} steps"

    @property
    def skill(self) -> float:
        return float(np.median([curve.skill for curve in self.curves]))

    @property
    def metric_skill(self) -> float:
        return float(np.median([curve.metric_skill for curve in self.curves]))

    @property
    def measured(self) -> dict[str, Any]:
        """The steps seen, those of the plan, and the skills, as plain data."""
        return {
            "steps": self.steps,
            **({"of": self.total} if self.planned else {}),
            "skill": [round(max(curve.skill, LOWEST), 4) for curve in self.curves],
            "metric_skill": round(max(self.metric_skill, LOWEST), 4),
        }

    def skill_at(self, part: float) -> float:
        """Median skill at that part of the steps seen."""
        values = []
        for curve in self.curves:
            places = np.asarray(curve.at) / max(1, curve.at[-1])
            skills = np.nan_to_num(curve.skills(), nan=-9.0, neginf=-9.0)
            values.append(float(np.interp(part, places, skills)))
        return float(np.median(values))

    def loss_at(self, part: float) -> float:
        """Median loss at that part of the steps seen, of the finite members."""
        found = [
            float(np.interp(part, np.asarray(c.at) / max(1, c.at[-1]), c.loss)) for c in self.finite
        ]
        return float(np.median(found))

    @property
    def plain(self) -> bool:
        """Whether most members plainly beat the constant predictor and their own beginning."""
        return sum(learned(curve) for curve in self.curves) > MAJORITY * len(self.curves)

    @property
    def as_far_as_simple(self) -> bool:
        """Whether the members learned a little, and as much as simple learners do: what is left of
        the loss may be noise."""
        return self.learned_of_simple(NEARLY)

    def learned_of_simple(self, part: float) -> bool:
        """Whether the members learned a little, and this part of what simple learners do."""
        rises = self.skill - self.skill_at(0.0)
        if not self.finite or self.skill < LITTLE or rises < LITTLE:
            return False
        explained = self.simple()
        return explained is not None and self.skill >= part * explained

    @property
    def falling(self) -> float:
        """The share of the stretches of the second half in which the measured loss fell."""
        shares = [
            float((np.diff(np.asarray(curve.loss)[len(curve.loss) // 2 :]) < 0).mean())
            for curve in self.finite
            if len(curve.loss) > 3
        ]
        return float(np.median(shares)) if shares else 0.0

    @property
    def smooth(self) -> bool:
        """Whether the measured losses fall nearly all the way: what swings then is batch noise."""
        falls = [
            float((np.diff(c.loss) < 0).mean()) > SMOOTH and max(c.loss) <= 1.05 * c.loss[0]
            for c in self.finite
            if len(c.loss) > 4
        ]
        return bool(falls) and sum(falls) > MAJORITY * len(falls)

    def unfinished(self, gain: float = UNFINISHED) -> bool:
        """Whether the plan ends in the middle of a steady descent.

        The second half gained at least ``gain`` of skill, and its last half a third of that.
        """
        finite = self.finite
        if not self.over or not finite or len(finite[0].loss) < 3:
            return False
        if np.median([max(curve.loss) / max(curve.loss[0], 1e-12) for curve in finite]) > 2:
            return False  # it comes back from a loss that had blown up: not a descent
        if _settled(finite, gain / 2):
            return False
        end = self.skill_at(1.0)
        late, latest = end - self.skill_at(0.5), end - self.skill_at(0.75)
        return late >= gain and latest >= gain / 3 and self.skill < FAR and self.falling >= 0.5


def early_end(course: Course) -> str:
    """How the loss still falls when the plan ends, in words; empty where it does not."""
    if course.loop is not None or not course.unfinished():
        return ""
    gain = course.skill_at(1.0) - course.skill_at(0.5)
    return (
        f"the second half of the {course.total} steps still took the loss from "
        f"{course.loss_at(0.5):.3g} to {course.loss_at(1.0):.3g} ({gain:.0%} of the constant "
        f"predictor's loss), falling in {course.falling:.0%} of its stretches"
    )


def learned(curve: Curve) -> bool:
    """Above the constant predictor by a tenth of its loss, above its own beginning, and not far
    below its own best."""
    if not curve.finite or not curve.loss:
        return False
    skills = curve.skills()
    end = float(np.mean(skills[-2:])) if len(skills) > 3 else skills[-1]
    rises = end >= skills[0] + 0.02 or skills[0] >= 0.5
    return end >= PLAIN and rises and end >= max(skills) - 0.5


def _settled(curves: list[Curve], gain: float) -> bool:
    """Whether validation, where it was measured, has gained nothing more in the second half."""
    late = [
        c.base.skill(c.val_loss[-1]) - c.base.skill(c.val_loss[len(c.val_loss) // 2])
        for c in curves
        if len(c.val_loss) >= 5
    ]
    return bool(late) and float(np.median(late)) < gain


def bad_steps(curve: Curve) -> np.ndarray:
    """The steps whose loss is not finite; where all losses are, those whose gradient is not.

    Of runs only the gradient's mean over an epoch is known, so that losses date it better.
    """
    bad = ~np.isfinite(curve.losses)
    return bad if bad.any() else ~np.isfinite(curve.norms)


def first_bad(curve: Curve) -> int:
    """The first such step; the number of steps where there is none."""
    bad = bad_steps(curve)
    return int(bad.argmax()) if bad.any() else curve.seen


def blocks(values: np.ndarray, count: int = 20) -> np.ndarray:
    """Means of ``count`` equal parts of a series."""
    values = values[np.isfinite(values)]
    parts = np.array_split(values, min(count, max(1, len(values))))
    return np.array([part.mean() for part in parts if len(part)])


def of_seeds(course: Course, count: int) -> str:
    """``(2 of 3 seeds)``; empty where there is one seed."""
    n = len(course.curves)
    return "" if n == 1 else f" ({count} of {n} seeds)"
