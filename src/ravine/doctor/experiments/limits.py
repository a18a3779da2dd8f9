"""Experiments on a program that learns: what holds it back, and whether its plan ends too early."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ravine.doctor.declaration import Declaration, Evidence, Kind
from ravine.doctor.edits import Edits, describe, longer
from ravine.doctor.experiments.variants import (
    LONGEST,
    PATIENCE,
    TIMES,
    Setting,
    limited,
    percent,
    reach,
    steps_first,
)
from ravine.doctor.experiments.whatif import TRIES, Extent, try_remedy
from ravine.doctor.finding import Finding
from ravine.doctor.findings.fit import AugmentationDestructive
from ravine.doctor.findings.plan import BatchTooLarge, TooFewEpochs
from ravine.doctor.findings.rates import LrTooLow
from ravine.doctor.measure.course import UNFINISHED
from ravine.doctor.table import is_of
from ravine.doctor.verdict import GAIN, WhatIf

FAR = 0.7  # skill from which nothing holds a program back
HEAVY = 1.0  # seconds of all members, from which only one other rate is tried
FASTER = (5.0, 20.0)  # multiples of the rate at which a plan that ends early is tried
AHEAD = (3.0, 10.0)  # multiples that may stand for the rest of a plan
SURE = 0.6  # of the best gain, from which a cause is as likely as the best one
LEAST = 0.03, 0.15  # skill that a rate, and that a remedy, must bring at least


def held_back(setting: Setting, found: Sequence[Finding]) -> Iterator[WhatIf]:
    """Whether what is unusual in a program that learns limits it.

    Without it the skill must double, or half of the loss that is left must go.
    """
    course = setting.course
    suspects = [f for f in found if is_of(f, Kind.LIMIT) and f.remedies]
    too_dear = setting.expected() * (1 + TRIES * len(suspects)) > setting.seconds
    if not suspects or course.skill > FAR or too_dear:
        return
    steps, seconds = course.steps, PATIENCE * setting.seconds
    multiples = [f for f in AHEAD if f <= 2 * course.total / steps]
    higher = setting.curves([setting.at_rate(f) for f in multiples], steps) if multiples else []
    projected = max([course.skill, *(curve.skill for curve in higher)])
    extent = Extent(steps, False, 1.0, seconds, seconds)
    for suspect in suspects:
        what_if = try_remedy(setting, suspect, extent, course.skill, projected, 1.0)
        needed = max(LEAST[1], min((1 - projected) / 2, projected))
        if suspect.code == AugmentationDestructive.code:
            needed = what_if.needed
        yield replace(what_if, needed=needed)


def ended_early(setting: Setting) -> list[WhatIf]:
    """Where a whole plan may have ended in mid-descent: at higher rates, longer, on smaller
    batches.

    A rate must take away a third of the loss that is left; more steps, which always help, a half.
    """
    course = setting.course
    if not course.over or (course.plain and not course.unfinished(UNFINISHED / 2)):
        return []
    what_ifs = list(_faster(setting)) if course.plain else []
    what_ifs += _further(setting)
    best = max((one.gain for one in what_ifs if one.counts(course)), default=0.0)
    return [one if one.gain > SURE * best else replace(one, sure=False) for one in what_ifs]


def _faster(setting: Setting) -> Iterator[WhatIf]:
    course, run, lr = setting.course, setting.recipe, setting.lr
    seeds = [curve.recipe.seed for curve in course.curves]
    needed = max(LEAST[0], (1 - course.skill) / 3)
    for factor in (10.0,) if setting.expected() * len(seeds) > HEAVY else FASTER:
        recipes = [run.edit({"optimizer.lr": lr * factor, "seed": seed}) for seed in seeds]
        skill = setting.skill(recipes, course.steps, PATIENCE * setting.seconds)
        words = (
            f"with lr {lr * factor:.3g} the same {course.steps} steps {reach(skill)}, with "
            f"lr {lr:.3g} {percent(course.skill)}"
        )
        evidence = Evidence("optimizer.lr", f"lr is {lr:.3g}", 1.0, factor)
        finding = LrTooLow.finding(evidence, course.subject)
        what_if = WhatIf(finding, skill - course.skill, skill, words, needed)
        yield steps_first(setting, what_if, factor)


def _further(setting: Setting) -> Iterator[WhatIf]:
    """Several times the plan, LONGEST / TIMES steps at least; the same epochs on smaller batches."""
    course, run = setting.course, setting.recipe
    needed = max(GAIN, (1 - course.skill) / 2) if course.plain else GAIN
    times = max(TIMES, math.ceil(LONGEST / TIMES / course.total))
    ends = Evidence("stop.after", f"the plan ends after {course.total} steps", 1.0)
    found: list[tuple[type[Declaration], Evidence, Edits]] = [
        (TooFewEpochs, ends, longer(course.subject, times))
    ]
    batch = run.data.batch
    few = batch == course.recipe.data.batch and course.total < BatchTooLarge.STEPS
    if few and (batch == "full" or batch >= 2 * BatchTooLarge.SMALLER):
        leaves = Evidence("data.batch", BatchTooLarge.text_of(course), 1.0)
        smaller = BatchTooLarge.remedies_for(course.subject)[0]["edits"]
        found.append((BatchTooLarge, leaves, smaller))
    for kind, evidence, edits in found:
        recipe = run.edit(edits)
        steps = min(setting.shared.steps(recipe), LONGEST)
        if course.total >= LONGEST or setting.expected(steps) > setting.seconds / 2:
            continue
        skill = setting.skill([recipe], steps, PATIENCE * setting.seconds)
        words = (
            f"with {describe(edits)} {steps} steps {reach(skill)}, as it is {percent(course.skill)}"
        )
        finding = kind.finding(evidence, course.subject)
        gain = skill - limited(course.skill)
        yield WhatIf(
            finding, gain, skill, words, needed, remedy={"edits": edits, "why": "more steps"}
        )
