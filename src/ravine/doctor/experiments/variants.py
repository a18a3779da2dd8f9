"""Variants of a program, run for the same steps on the same batches as the program itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ravine.doctor.declaration import Evidence
from ravine.doctor.edits import Edits
from ravine.doctor.experiments.experiment import Experiment, SharedData
from ravine.doctor.findings.plan import TooFewEpochs
from ravine.doctor.measure.course import COUNTED, FAR, Course
from ravine.doctor.measure.curve import Curve
from ravine.doctor.verdict import GAIN, IMPROVES, WhatIf
from ravine.recipe import Recipe

FEWEST = 30  # steps of a heavy program
# times the expected seconds, in processor time: then an experiment ends wherever it is
PATIENCE = 30
# operations a second that a heavy program is taken to run at: what is chosen must not depend on how
# fast or how busy the machine is
SPEED = 3e10
FULL_BATCH = 256  # samples that a full batch is taken to have, where operations are counted
HEAVY_STEP = 5e10  # operations of one step from which more than one thread pays
LONGEST = 800  # steps of a plan that is tried at several times its length
WORST = -0.5  # skill below which it makes no difference how bad a program is
TIMES = 4  # how much longer a plan is tried


@dataclass(frozen=True)
class Setting:
    """A course, its data, and the seconds that experiments on it may take.

    ``work`` is the operations of one sample; 0 where they are not known, and then nothing limits
    the experiments.
    """

    course: Course
    shared: SharedData
    seconds: float = math.inf
    work: float = 0.0

    @property
    def recipe(self) -> Recipe:
        """What was run: the recipe, perhaps on smaller batches."""
        return self.course.trained

    @property
    def lr(self) -> float:
        return float(self.recipe.optimizer.arguments["lr"])

    def expected(self, steps: int | None = None) -> float:
        """About how many seconds one member takes for so many steps; 0 where it is not known."""
        batch = self.recipe.data.batch
        samples = FULL_BATCH if batch == "full" else batch
        return self.work * samples * (steps or self.course.steps) / SPEED

    @property
    def affordable(self) -> float:
        """How many steps of one member the seconds allow."""
        return self.seconds / max(self.expected(1), 1e-12) if self.work else math.inf

    def at_rate(self, factor: float, edits: Edits | None = None) -> Recipe:
        """The recipe at a multiple of its learning rate, with other edits."""
        return self.recipe.edit({**(edits or {}), "optimizer.lr": self.lr * factor})

    def edited(self, edits: dict[str, Any]) -> Recipe:
        """The recipe after edits, without what smaller batches have settled already."""
        own = self.recipe.data.batch == self.course.recipe.data.batch
        return self.recipe.edit({k: v for k, v in edits.items() if own or k != "data.batch"})

    def curves(
        self,
        recipes: Sequence[Recipe],
        steps: int,
        seconds: float = math.inf,
        *,
        validation: bool = False,
    ) -> list[Curve]:
        """The curves of recipes after so many steps, measured at the start and at the end; there on
        validation samples too, where that is asked for."""
        experiment = Experiment(recipes, self.shared, steps=steps)
        experiment.measure()
        experiment.advance(steps, seconds=seconds)
        experiment.measure(validation)
        return experiment.curves()

    def skill(self, recipes: Sequence[Recipe], steps: int, seconds: float = math.inf) -> float:
        """The median skill that recipes reach."""
        return float(np.median([c.skill for c in self.curves(recipes, steps, seconds)]))


def sensible_threads(recipe: Recipe, work: float) -> int:
    """Several threads for heavy steps alone, of so many operations a sample: beside busy neighbours
    light ones would take ten times as long."""
    batch = FULL_BATCH if recipe.data.batch == "full" else recipe.data.batch
    return torch.get_num_threads() if work * batch > HEAVY_STEP else 1


def limited(skill: float) -> float:
    """The skill of a program against which a variant is measured."""
    return max(skill, WORST)


def reach(skill: float) -> str:
    """What some steps reach, in words."""
    return f"reach {percent(skill)} of the way from the constant predictor to a loss of 0"


def percent(skill: float) -> str:
    return "no part" if skill < 0 else f"{skill:.0%}"


# --- steps are counted before the rate is blamed ----------------------------------------------------


def still_falls(course: Course) -> bool:
    """Whether a plan of few steps ends while its loss falls: then more steps may be all it needs."""
    late = course.skill_at(1.0) - course.skill_at(0.5)
    return course.over and course.total < COUNTED and late > IMPROVES and course.falling >= 0.5


def steps_first(setting: Setting, what_if: WhatIf, factor: float) -> WhatIf:
    """A higher rate that helps a plan of few steps must also be ahead in a longer plan, and there on
    validation samples as well: to learn the training samples by heart sooner is no help.

    Else, or where a longer plan cannot be afforded, the plan is too short: k times the rate for n
    steps is about the rate itself for k n steps.
    """
    course = setting.course
    if not still_falls(course) or not what_if.counts(course):
        return what_if
    lr, words = setting.lr, f"{what_if.words}; the loss still falls after all {course.total} steps"
    longer = min(LONGEST, max(COUNTED, TIMES * course.total))
    if 2 * setting.expected(longer) <= setting.seconds:
        after = {"stop.after": f"{longer}it"}
        recipes = [setting.at_rate(1.0, after), setting.at_rate(factor, after)]
        curves = setting.curves(recipes, longer, validation=True)
        own, other = (curve.skill for curve in curves)
        compared = f"{longer} steps reach {percent(own)} with lr {lr:.3g}, {percent(other)} with lr {lr * factor:.3g}"
        further = own < FAR and other - limited(own) >= max(GAIN, (1 - own) / 3)
        if further and _held(curves[1]) >= _held(curves[0]):
            return replace(what_if, words=f"{what_if.words}; {compared}")
        words += f", and {compared}"
        if further:
            words += ", which is no better on validation samples"
    ends = Evidence("stop.after", f"the plan ends after {course.total} steps", 1.0)
    finding = TooFewEpochs.finding(ends, course.subject)
    return replace(what_if, finding=finding, words=words, first_tried=False)


def _held(curve: Curve) -> float:
    """The skill on validation samples; 0 where there are none."""
    return curve.base.skill(curve.val_loss[-1]) if curve.val_loss else 0.0
